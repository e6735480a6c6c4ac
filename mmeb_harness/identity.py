"""What has to be the same wherever a part of one run is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmeb_harness import environment
from mmeb_harness.files import fingerprint
from mmeb_harness.plan import PlannedTask, fingerprint_of
from mmeb_harness.types import Embedder, Scalar

Identity = Mapping[str, Scalar]


def run_identity(
    embedder: Embedder, plan: Sequence[PlannedTask], limit: int | None, batch_tokens: int
) -> dict[str, Scalar]:
    """Names of things, and their values: equal ones give equal vectors, but for what processors round differently."""
    info, profile = embedder.info, plan[0].profile
    return {
        "model": info.name,
        "model revision": info.revision,
        "tasks": fingerprint([one.task.name for one in plan]),
        "data revision": fingerprint([one.data_revision for one in plan]),
        "frames": profile.frames.video,
        "limit": limit,
        "batch tokens": batch_tokens,
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
