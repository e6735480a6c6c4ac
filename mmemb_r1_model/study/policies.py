"""Five ways to decide who reasons, and what each of them scores, writes and takes.

    never · always · random at the same share · adaptive · oracle (the better path of each query)

The random gate's figures are expectations: every query reasons with the share at which the adaptive gate does in
that task and seed. The oracle reads the answers: a bound, no method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmemb_r1_model.study.statistics import Floats, Means, Sample

if TYPE_CHECKING:
    import pandas as pd

POLICIES = ("never", "always", "random", "adaptive", "oracle")


def sample_of(frame: pd.DataFrame, share: float, seed: int) -> Sample:
    """A seed's queries as columns: `score_P`, `share_P`, `tokens_P` of every policy P.

    Args:
        frame: rows of `read_checkpoint`, all or some.
        share: of the whole task that reasons adaptively.
    """
    never, always, adaptive = (frame[mode].to_numpy(float) for mode in ("never", "always", "adaptive"))
    tokens = frame.tokens_always.to_numpy(float)
    better = (always > never).astype(float)
    reasons: dict[str, Floats] = {
        "never": np.zeros(len(frame)),
        "always": np.ones(len(frame)),
        "random": np.full(len(frame), share),
        "adaptive": frame.reasoned.to_numpy(float),
        "oracle": better,
    }
    scores = {
        "never": never,
        "always": always,
        "random": share * always + (1 - share) * never,
        "adaptive": adaptive,
        "oracle": np.maximum(never, always),
    }
    columns: dict[str, Floats] = {}
    for policy in POLICIES:
        columns[f"score_{policy}"] = scores[policy]
        columns[f"share_{policy}"] = reasons[policy]
        columns[f"tokens_{policy}"] = reasons[policy] * tokens
    columns["tokens_adaptive"] = frame.tokens_adaptive.to_numpy(float)
    columns["closed_always"] = frame.closed_always.to_numpy(float)
    columns["pays"] = better
    columns["hurts"] = (always < never).astype(float)
    columns["brier"] = (frame.gate.to_numpy(float) - better) ** 2
    return Sample(columns, seed)


def gain_over(policy: str) -> Any:
    """A statistic: adaptive minus another policy."""
    return lambda means: means["score_adaptive"] - means[f"score_{policy}"]


def head_room_closed(means: Means) -> Any:
    """Share of what the oracle wins over the better fixed policy that the gate wins too; nan where it wins nothing."""
    best = np.maximum(means["score_never"], means["score_always"])
    room = np.asarray(means["score_oracle"] - best)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, (means["score_adaptive"] - best) / room, np.nan)


def latencies(measured: dict[str, Any], frame: pd.DataFrame, share: float, seed: int) -> dict[str, dict[str, float]]:
    """Policy → mean, p50 and p95 seconds of a query alone, and items per second in batches.

    Random and oracle are put together from the times of never and always: no engine ran them.

    Args:
        measured: of one task, see latency.py; its queries are the frame's first ones.
    """
    times = {mode: np.array(values) for mode, values in measured["seconds"].items()}
    some = frame.iloc[: len(times["never"])]
    drawn = np.random.default_rng(seed).random(len(some)) < share
    better = (some.always > some.never).to_numpy()
    times["random"] = np.where(drawn, times["always"], times["never"])
    times["oracle"] = np.where(better, times["always"], times["never"])
    speed = dict(measured["items_per_second"])
    for policy, part in (("random", share), ("oracle", float(better.mean()))):
        speed[policy] = 1 / (part / speed["always"] + (1 - part) / speed["never"])
    found = {}
    for policy in POLICIES:
        p50, p95 = np.percentile(times[policy], [50, 95])
        found[policy] = {
            "mean": float(times[policy].mean()),
            "p50": float(p50),
            "p95": float(p95),
            "items_per_second": float(speed[policy]),
        }
    return found
