"""Whether a run's data is still what the run was computed on: every item is read and hashed anew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mmeb_harness.api.asked import choose
from mmeb_harness.api.config import RunConfig
from mmeb_harness.core.errors import DataError
from mmeb_harness.data.folder import load_samples
from mmeb_harness.results.recomputed import Outcome
from mmeb_harness.results.scores import read_run
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import KeyedSamples


def verify_data(folder: Path, data: Path, read: Callable[[int], None]) -> Iterator[Outcome]:
    """An outcome a task of the run in `folder`, held against what the data folder holds now.

    Args:
        read: told how many media files more were read.

    Raises:
        ResultError: the folder holds no finished run.
        HarnessError: the data has no such tasks.
    """
    run, results = read_run(folder)
    chosen = choose(RunConfig(data=str(data), tasks=run.tasks, edition=run.edition or None))
    with tempfile.TemporaryDirectory(prefix="mmeb-verify-") as remembered:
        hashes = MediaHashes(Path(remembered), chosen.data.root, read=read)
        for result, registered in zip(results, chosen.tasks, strict=True):
            outcome = Outcome(f"data of {result.name}")
            try:
                samples = load_samples(registered.task, chosen.data, run.profile, run.limit)
                keyed = KeyedSamples.of(samples, hashes)
                if not result.content:
                    outcome.problems.append("the result doesn't say what its items were; an earlier release wrote it")
                elif keyed.content != result.content:
                    outcome.problems.append(f"its items in {data} are others than those of the run: run it again")
            except DataError as error:
                outcome.problems.append(str(error))
            yield outcome
