"""The vectors of runs through mteb's own evaluation: its nDCG@5 beside ours, of any model, MaxSim as well.

pip install 'mmeb-harness[peers]'
python -m tests.benchmarks.real_pages.beside_mteb RUN … --data FOLDER [--vectors FOLDER]

mteb gets the vectors that a run left in its store as what an encoder returns, ranks them by its own cosine or MaxSim
and scores by pytrec_eval. What it makes of a model of `st:` that it is handed, `mmeb-eval bench --beside mteb` tells.
Ends with 1 where two numbers differ by more than mteb's rounding though no tie was settled (it settles ties otherwise).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from mmeb_baselines.peers import BATCH, mteb_score

from mmeb_harness import Frames, Samples, read_json, run_command
from mmeb_harness.core.embedder import AnyVectors
from mmeb_harness.core.registry import own_tasks
from mmeb_harness.results.scores import read_run_file
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import VectorStore, content_keys
from tests.benchmarks.real_pages.report import read_entry

#: mteb rounds to five digits.
CLOSE = 1e-5


class KnownVectors:
    """An encoder of mteb that knows the vectors of each id."""

    def __init__(self, queries: AnyVectors, candidates: AnyVectors, samples: Samples) -> None:
        import mteb

        self._vectors = {"query": queries, "document": candidates}
        self._places = {
            kind: {item.id: place for place, item in enumerate(items)}
            for kind, items in (("query", samples.queries), ("document", samples.candidates))
        }
        self.mteb_model_meta = mteb.models.ModelMeta.create_empty(overwrites={"name": "known/vectors", "revision": "1"})

    def encode(self, inputs: Any, *, prompt_type: Any, **_: Any) -> Any:
        vectors = self._vectors[prompt_type.value]
        places = [self._places[prompt_type.value][item_id] for batch in inputs for item_id in batch["id"]]
        if isinstance(vectors, np.ndarray):
            return vectors[places]
        return [np.asarray(vectors[place], dtype=np.float32) for place in places]

    def similarity(self, queries: Any, candidates: Any) -> Any:
        from mteb.similarity_functions import cos_sim, max_sim

        return max_sim(queries, candidates) if isinstance(candidates, list) else cos_sim(queries, candidates)

    def similarity_pairwise(self, queries: Any, candidates: Any) -> Any:
        raise NotImplementedError("a retrieval task asks for none")


def stored_vectors(run: Path, samples: Samples, data: Path, vectors: Path | None) -> tuple[AnyVectors, AnyVectors]:
    """Those of queries and candidates that a run left.

    Args:
        vectors: the store; `None`: beside the run.

    Raises:
        ResultError: the run or its store can't be read.
    """
    folder = (vectors or run.resolve().parent / ".vectors") / read_run_file(run).model_fingerprint
    store = VectorStore(folder, read_json(folder / "model.json")["similarity"])
    with tempfile.TemporaryDirectory() as remembered:
        hashes = MediaHashes(Path(remembered), data)
        keys = (content_keys(samples.queries, "query", hashes), content_keys(samples.candidates, "candidate", hashes))
    queries, candidates = (store.get(of_side).vectors for of_side in keys)
    return queries, candidates


@click.command(help=__doc__)
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--vectors", type=click.Path(path_type=Path), help="The runs' --vectors. Default: beside each run.")
def main(runs: tuple[Path, ...], data: Path, vectors: Path | None) -> int:
    apart, tasks = False, own_tasks(data.resolve())
    for run in runs:
        result = read_entry(f"{run.name}={run}").result
        task = tasks[result.name].task
        samples = task.load(data, Frames())
        known = KnownVectors(*stored_vectors(run, samples, data, vectors), samples)
        theirs = mteb_score(known, task, samples, lambda items, _: [item.text for item in items], BATCH)
        apart = apart or (abs(theirs - result.score) > CLOSE and not result.tied_decisions)
        click.echo(
            f"{run.name}, {task.name}: nDCG@5 {result.score:.5f}, by mteb {theirs:.5f}; {result.tied_decisions} ties "
            "settled in the first places"
        )
    return int(apart)


if __name__ == "__main__":
    run_command(main)
