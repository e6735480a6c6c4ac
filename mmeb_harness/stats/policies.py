"""Policies of when to reason, from one model's runs in its three modes: what its gate is worth.

    never · always · random (reasons as often as the gate, in each task) · fixed (each task's better mode) · adaptive ·
    probe (a forecast from the state that the gate reads, where it was kept) · oracle (each query's better path)

The random gate is an expectation, not a run: with share s of a task it scores s always + (1 - s) never. Fixed and probe
are fitted on other queries than they decide (see `controls`). The oracle reads the answers: a bound, no method, and of
two paths that err by chance most of it is luck. Where writing a rationale isn't deterministic, adaptive isn't put
together from the other two runs; it is always the run itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mmeb_harness.core.embedder import MODES, REASONING, Mode
from mmeb_harness.results.files import RunResult
from mmeb_harness.results.scores import read_run_file
from mmeb_harness.stats.controls import Decisions
from mmeb_harness.stats.resampling import Floats

Policy = Literal["never", "always", "random", "fixed", "adaptive", "probe", "oracle"]
#: In the order of tables.
EVERY_POLICY: tuple[Policy, ...] = get_args(Policy)
#: Those that need no states.
POLICIES: tuple[Policy, ...] = tuple(policy for policy in EVERY_POLICY if policy != "probe")


@dataclass(frozen=True)
class Outcomes:
    """What one policy makes of a task's queries; arrays of (N,).

    Attributes:
        scores: main metric.
        reasoned: whether a query reasons, or with which probability.
    """

    scores: Floats
    reasoned: Floats
    reasoning_tokens: Floats


def routed(runs: Mapping[Mode, Outcomes], reasons: Decisions) -> Outcomes:
    """What it would be to reason on some queries (N,) and not on the others."""
    never, always = runs["never"], runs["always"]
    scores, tokens = (
        np.where(reasons, getattr(always, name), getattr(never, name)) for name in ("scores", "reasoning_tokens")
    )
    return Outcomes(scores, reasons.astype(np.float64), tokens)


def outcomes_of(runs: Mapping[Mode, Outcomes], share: float, fixed: Decisions) -> dict[Policy, Outcomes]:
    """All policies that need no states, from the runs of three on the same queries.

    Args:
        share: with which the random gate reasons: that of the whole task in the adaptive run.
        fixed: which queries are of a task, or fold, whose better mode is to reason.
    """
    never, always = runs["never"], runs["always"]
    return {
        "never": never,
        "always": always,
        "random": Outcomes(
            scores=share * always.scores + (1 - share) * never.scores,
            reasoned=np.full(len(never.scores), share),
            reasoning_tokens=share * always.reasoning_tokens,
        ),
        "fixed": routed(runs, fixed),
        "adaptive": runs["adaptive"],
        "oracle": routed(runs, always.scores > never.scores),
    }


def mode_runs(folders: Sequence[Path]) -> dict[Mode, Path] | None:
    """Mode → folder, if these are one model's runs in all three modes; else `None`.

    Raises:
        ResultError: a run that can't be read.
    """
    runs = [read_run_file(folder) for folder in folders]
    by_mode = {str(run.model_settings.get(REASONING)): folder for run, folder in zip(runs, folders, strict=True)}
    one_model = len({apart_from(run) for run in runs}) == 1
    if len(folders) != len(MODES) or set(by_mode) != set(MODES) or not one_model:
        return None
    return {mode: by_mode[mode] for mode in MODES}


def apart_from(run: RunResult, settings: Collection[str] = (REASONING,)) -> tuple[object, ...]:
    """What a run's model is but for some settings: equal of runs that differ in these alone."""
    rest = sorted((name, repr(value)) for name, value in run.model_settings.items() if name not in settings)
    return run.model, run.model_revision, run.model_dimensions, tuple(rest), run.profile


def adaptive_minus(policy: Policy, policies: Sequence[Policy] = POLICIES) -> Callable[[Floats], Floats]:
    """A statistic: (..., P) means of the policies → (...) what adaptive has more than another one."""
    return lambda means: means[..., policies.index("adaptive")] - means[..., policies.index(policy)]


def head_room_closed(means: Floats, policies: Sequence[Policy] = POLICIES) -> Floats:
    """(..., P) means of the policies → (...) share of what the oracle wins over the better of never and always.

    It is nan where the oracle wins nothing.
    """
    ends: tuple[Policy, ...] = ("never", "always", "adaptive", "oracle")
    never, always, adaptive, oracle = (means[..., policies.index(policy)] for policy in ends)
    best = np.maximum(never, always)
    with np.errstate(divide="ignore", invalid="ignore"):
        closed: Floats = np.where(oracle > best, (adaptive - best) / (oracle - best), np.nan)
    return closed
