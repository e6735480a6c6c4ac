"""A run as the score files that the benchmark's own code writes, for who reads those."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import write_json
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.exchange.handed import refuse_existing
from mmeb_harness.results.official_files import SCORE_SUFFIX
from mmeb_harness.results.scores import read_run
from mmeb_harness.results.submission import check_real, official_entry


def export_official(folder: Path, output: Path, registered: Mapping[str, RegisteredTask]) -> list[str]:
    """Write <output>/<task>_score.json of each of a run's tasks that is the benchmark's; a / in its name is a folder.

    Args:
        registered: tasks of the run's edition, by name.

    Returns:
        The tasks.

    Raises:
        ResultError: not a finished run, limited, of synthetic data, over other queries than declared, or without a task
            of the benchmark; or a file is there already.
    """
    run, results = read_run(folder)
    check_real(run)
    of_benchmark = {name: row.task for name, row in registered.items() if row.collection == BENCHMARK}
    entries = {
        result.name: official_entry(result.name, result, of_benchmark[result.name])
        for result in results
        if result.name in of_benchmark
    }
    if not entries:
        raise ResultError(f"{run.name} has none of the benchmark's tasks, only data of your own; use --eee or --trec")
    files = {name: output / f"{name}{SCORE_SUFFIX}" for name in entries}
    refuse_existing(files.values())
    for name, file in files.items():
        write_json(file, entries[name])
    return list(entries)
