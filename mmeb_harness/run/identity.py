"""What has to be the same wherever a part of one run is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.files import fingerprint
from mmeb_harness.core.items import Scalar
from mmeb_harness.run.plan import PlannedTask, fingerprint_of

Identity = Mapping[str, Scalar]


class Meeting(Protocol):
    """Where the processes that share one run agree that they compute parts of the same."""

    def opened(self, identity: Identity) -> AbstractContextManager[None]:
        """The process that ranks: let the others in, until the run ends."""
        ...

    def join(self, identity: Identity) -> None:
        """The others: wait for the one that ranks, and compare; raises `ResultError` where they differ."""
        ...

    def remarks(self) -> list[str]:
        """What a user should know of the others."""
        ...


def run_identity(
    embedder: Embedder, plan: Sequence[PlannedTask], limit: int | None, batch_tokens: int
) -> dict[str, Scalar]:
    """Names of things, and their values: equal ones give equal vectors, but for what processors round differently."""
    return {
        "tasks": fingerprint([one.task.name for one in plan]),
        "data revision": fingerprint([one.data_revision for one in plan]),
        "frames": plan[0].profile.frames.video,
        "limit": limit,
        "batch tokens": batch_tokens,
        **model_identity(embedder),
    }


def model_identity(embedder: Embedder) -> dict[str, Scalar]:
    """The part of it that a process knows that has seen no data: the model, and the packages that compute."""
    info = embedder.info
    return {
        "model": info.name,
        "model revision": info.revision,
        # Device and dtype among them.
        **{f"model setting {name}": value for name, value in info.settings.items()},
        "model fingerprint": fingerprint_of(embedder),
        **environment.package_versions(),
    }


def difference(mine: Identity, theirs: Identity) -> tuple[str, Scalar, Scalar] | None:
    """The first thing that isn't the same: its name, mine, theirs; `None` if all is."""
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            return name, mine.get(name), theirs.get(name)
    return None
