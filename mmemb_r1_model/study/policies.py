"""One seed's queries as columns of every policy, and statistics of them; the policies are those of the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mmeb_harness import MODES
from mmeb_harness.stats.policies import POLICIES, Outcomes, outcomes_of
from mmeb_harness.stats.resampling import Floats, Resampled, clusters_of, resample
from mmeb_harness.stats.seeds import OverSeeds, statistic_over_seeds

if TYPE_CHECKING:
    import pandas as pd

#: name of a column → its mean, or its means over resamples.
Means: TypeAlias = Mapping[str, Floats]
Statistic: TypeAlias = Callable[[Means], Floats]


@dataclass(frozen=True)
class Sample:
    """One seed's queries: means of columns, as they are and resampled."""

    names: tuple[str, ...]
    resampled: Resampled

    @property
    def means(self) -> Means:
        """Column → its mean."""
        return _named(self.names, self.resampled.means_K)


def sampled(columns: Mapping[str, Floats], seed: int) -> Sample:
    """Resample queries.

    Args:
        columns: name → (n,), equally long, n > 0.
    """
    values_NK = np.stack(list(columns.values()), axis=1)
    alone = clusters_of(values_NK, np.arange(len(values_NK)))
    return Sample(tuple(columns), resample(alone, np.random.default_rng(seed)))


def estimate(samples: Sequence[Sample], statistic: Statistic) -> OverSeeds:
    """A statistic of columns' means over queries and seeds, with its intervals; `samples`: one a seed."""
    names = samples[0].names
    return statistic_over_seeds(
        [sample.resampled for sample in samples], lambda means_K: statistic(_named(names, means_K))
    )


def over_tasks(tasks: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Means over tasks, every one of which counts alike; a seed each.

    Args:
        tasks: of each its seeds' samples, of the same columns.
    """
    return [_mean_of(samples) for samples in zip(*tasks, strict=True)]


def _mean_of(samples: Sequence[Sample]) -> Sample:
    parts = [sample.resampled for sample in samples]
    means_K, draws_BK = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("means_K", "draws_BK"))
    return Sample(samples[0].names, Resampled(means_K, draws_BK, sum(part.clusters for part in parts)))


def _named(names: Sequence[str], means_K: Floats) -> Means:
    return dict(zip(names, np.moveaxis(means_K, -1, 0), strict=True))


def of_policies(statistic: Callable[[Floats], Floats]) -> Statistic:
    """A statistic of the harness, of the policies' scores."""
    return lambda means: statistic(np.stack([means[f"score_{policy}"] for policy in POLICIES], axis=-1))


def sample_of(frame: pd.DataFrame, share: float, seed: int) -> Sample:
    """A seed's queries as columns: `score_P`, `share_P`, `tokens_P` of every policy P; where reasoning pays and hurts.

    Args:
        frame: rows of `read_checkpoint`, all or some.
        share: of the whole task that reasons adaptively.
    """
    runs = {
        mode: Outcomes(*(frame[name].to_numpy(float) for name in (mode, f"reasoned_{mode}", f"tokens_{mode}")))
        for mode in MODES
    }
    columns: dict[str, Floats] = {}
    for policy, outcomes in outcomes_of(runs, share, frame.reasoned_fixed.to_numpy(bool)).items():
        columns[f"score_{policy}"] = outcomes.scores
        columns[f"share_{policy}"] = outcomes.reasoned
        columns[f"tokens_{policy}"] = outcomes.reasoning_tokens
    columns["pays"] = (frame.always > frame.never).to_numpy(float)
    columns["hurts"] = (frame.always < frame.never).to_numpy(float)
    return sampled(columns, seed)


def latencies(measured: dict[str, Any], frame: pd.DataFrame, share: float, seed: int) -> dict[str, dict[str, float]]:
    """Policy → mean, p50 and p95 seconds of a query alone, and items per second in batches.

    Random, fixed and oracle are put together from the times of never and always: no engine ran them.

    Args:
        measured: of one task, see latency.py; its queries are the frame's first ones.
    """
    times = {mode: np.array(values) for mode, values in measured["seconds"].items()}
    some = frame.iloc[: len(times["never"])]
    drawn = np.random.default_rng(seed).random(len(some)) < share
    better, fixed = (some.always > some.never).to_numpy(), some.reasoned_fixed.to_numpy(bool)
    speed = dict(measured["items_per_second"])
    put_together = {"random": (drawn, share)} | {
        name: (reasons, float(reasons.mean())) for name, reasons in (("fixed", fixed), ("oracle", better))
    }
    for policy, (reasons, part) in put_together.items():
        times[policy] = np.where(reasons, times["always"], times["never"])
        speed[policy] = 1 / (part / speed["always"] + (1 - part) / speed["never"])
    return {
        policy: {
            "mean": float(times[policy].mean()),
            "p50": float(np.percentile(times[policy], 50)),
            "p95": float(np.percentile(times[policy], 95)),
            "items_per_second": float(speed[policy]),
        }
        for policy in POLICIES
    }
