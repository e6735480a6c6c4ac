"""The identity of a run: what all processes that compute parts of it must have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.files import fingerprint
from mmeb_harness.core.items import Scalar
from mmeb_harness.run.plan import Plan

Identity: TypeAlias = Mapping[str, Scalar]


def run_identity(plans: Sequence[Plan]) -> Identity:
    """Names of things, and their values: equal ones give equal vectors, but for what processors round differently.

    Args:
        plans: one, or several for modes in which the model embeds queries at once.
    """
    plan, modes = plans[0], ", ".join(str(plan.model.mode) for plan in plans)
    return {
        **({"modes": modes} if len(plans) > 1 else {}),
        "tasks": fingerprint(list(plan.tasks)),
        "data revision": fingerprint([planned.data_revision for planned in plan.tasks.values()]),
        "frames": plan.profile.frames.video,
        "audio seconds": plan.settings.audio_seconds,
        "pages": plan.settings.pages,
        "limit": plan.settings.limit,
        "batch tokens": plan.settings.batch_tokens,
        "states are kept": plan.settings.keep_states or None,  # of shards from before there was a choice: no
        **model_identity(plan.model, plan.fingerprint),
    }


def model_identity(model: ModelInfo, model_fingerprint: str) -> Identity:
    """The part of it that a process knows that has seen no data: the model, and the packages that compute."""
    return {
        "model": model.name,
        "model revision": model.revision,
        # Device and dtype among them.
        **{f"model setting {name}": value for name, value in model.settings.items()},
        "model fingerprint": model_fingerprint,
        **environment.package_versions(),
    }


def difference(mine: Identity, theirs: Identity) -> tuple[str, Scalar, Scalar] | None:
    """The first thing that isn't the same: its name, mine, theirs; `None` if all is."""
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            return name, mine.get(name), theirs.get(name)
    return None
