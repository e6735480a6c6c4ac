"""A finished run that is to be handed on: what it must be for that, under which name, and as which variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.embedder import REASONING
from mmeb_harness.core.errors import OptionError, ResultError
from mmeb_harness.core.items import Scalar
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.scores import read_run
from mmeb_harness.results.submission import check_real, check_whole_task

#: Of a task that a plugin brought which isn't installed now.
UNKNOWN_COLLECTION = "own"


@dataclass(frozen=True)
class Handed:
    """A finished run, not limited, each task of it over as many queries as declared.

    Attributes:
        registered: tasks known here, by name.
        model_name: as its readers know the model, ORG/NAME.
    """

    folder: Path
    run: RunResult
    results: tuple[TaskResult, ...]
    registered: Mapping[str, RegisteredTask]
    model_name: str

    def collection(self, task: str) -> str:
        """Which collection a task is of: the benchmark, or a plugin's."""
        return self.registered[task].collection if task in self.registered else UNKNOWN_COLLECTION

    def others_collection(self, task: str) -> str:
        """The same as others know it: the benchmarks, of which one collection holds both, have names of their own."""
        known = self.collection(task)
        return benchmark_of(self.run.edition).name.lower() if known == BENCHMARK else known


def hand_on(
    folder: Path, registered: Mapping[str, RegisteredTask], model_name: str | None, *, synthetic: bool
) -> Handed:
    """Read a run that others will take for what it says.

    Args:
        registered: tasks of the run's edition.
        model_name: ORG/NAME; default: the checkpoint's id on the hub.
        synthetic: whether the form has a place to say that data are made up.

    Raises:
        ResultError: not a finished run, limited, of synthetic data where that can't be said, or over other queries than
            declared.
        OptionError: no name, or one that is not ORG/NAME.
    """
    run, results = read_run(folder)
    check_real(run, synthetic=synthetic)
    for result in results:
        if not run.data_synthetic and result.name in registered:
            check_whole_task(result.name, result, registered[result.name].task)
    name = model_name or str(run.model_settings.get("checkpoint") or run.model)
    if len(parts := name.split("/")) != 2 or not all(part.strip(". ") for part in parts):
        raise OptionError(f"{name!r} is no name that others know a model by; give --model-name ORG/NAME")
    return Handed(folder, run, tuple(results), registered, name)


def variant_settings(run: RunResult) -> dict[str, Scalar]:
    """What sets a run apart from others of the same weights: only what isn't the model's own choice."""
    apart = {
        REASONING: run.model_settings.get(REASONING),
        "dimensions": run.profile.dimensions,
        "quantization": run.profile.quantization,
    }
    own = (None, "adaptive", "none")
    return {name: value for name, value in sorted(apart.items()) if value not in own}


def variant_note(run: RunResult) -> str:
    """The same for a reader: "adaptive, 44 % reasoned"; "" of a model that never reasons and is used as it is."""
    parts = []
    if (mode := run.model_settings.get(REASONING)) is not None:
        parts += [str(mode), f"{100 * run.queries.reasoning_rate:.0f} % reasoned"]
    if run.profile.dimensions is not None:
        parts.append(f"{run.profile.dimensions} dimensions")
    if run.profile.quantization != "none":
        parts.append(run.profile.quantization)
    return ", ".join(parts)


def benchmark_tasks(handed: Handed) -> list[TaskResult]:
    """Those of the run's tasks that are the benchmark's.

    Raises:
        ResultError: there are none.
    """
    if of_benchmark := [result for result in handed.results if handed.collection(result.name) == BENCHMARK]:
        return of_benchmark
    raise ResultError(
        f"{handed.run.name} has none of the benchmark's tasks, only data of your own; use --eee, --mteb or --trec"
    )


def refuse_existing(paths: Iterable[Path]) -> None:
    """Nothing of anybody's is written over.

    Raises:
        ResultError: one of them is there.
    """
    if taken := next((path for path in paths if path.exists() or path.is_symlink()), None):
        raise ResultError(f"{taken} is there already; delete it, or name another place")
