"""The same task and vectors through mteb's own evaluation: its nDCG@5 beside ours.

pip install mteb==2.26.24 polars
python -m tests.benchmarks.real_pages.beside_mteb --data FOLDER --task RealPages-text --model st:FOLDER \
    --model-arg instruction=none --its-own

A model's vectors are made once; mteb gets them as what an encoder returns, ranks by its own cosine or MaxSim and scores
by pytrec_eval. With `--its-own` mteb loads the model of `st:` by itself as well and embeds the texts that it was given.
Ends with 1 where a number differs by more than 1e-9 though no tie was settled (mteb settles ties otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from mmeb_harness import Embedder, Frames, Item, Role, Samples, Task, TokenVectors, run_command
from mmeb_harness.core.registry import choose_tasks, load_model
from mmeb_harness.ranking.task import score_queries

METRIC, THEIR_METRIC = "ndcg_linear@5", "ndcg_at_5"
BATCH = 32
CLOSE = 1e-9
AnyVectors = NDArray[np.float32] | TokenVectors


def encode_all(embedder: Embedder, items: Sequence[Item], role: Role) -> AnyVectors:
    """Vectors of all items, some items at a time."""
    parts = [embedder.encode(items[first : first + BATCH], role).vectors for first in range(0, len(items), BATCH)]
    if isinstance(parts[0], TokenVectors):
        return TokenVectors.of_items([part[place] for part in parts for place in range(len(part))])
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


def mteb_task(task: Task, samples: Samples) -> Any:
    """The samples as a retrieval task of mteb, of texts: where a candidate is a picture, its id stands for it."""
    from datasets import Dataset
    from mteb import TaskMetadata
    from mteb.abstasks import AbsTaskRetrieval

    metadata = TaskMetadata(
        name=task.name,
        description="Pages of a manual",
        reference=None,
        dataset={"path": "in/memory", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=THEIR_METRIC,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )
    gains = {query: {page: int(grade) for page, grade in relevant.items()} for query, relevant in samples.gains.items()}
    pages = [{"id": page.id, "text": page.text, "title": ""} for page in samples.candidates]

    class Pages(AbsTaskRetrieval):
        def load_data(self, *_: Any, **__: Any) -> None:
            queries = Dataset.from_list([{"id": query.id, "text": query.text} for query in samples.queries])
            split = {"queries": queries, "corpus": Dataset.from_list(pages), "relevant_docs": gains, "top_ranked": None}
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    Pages.metadata = metadata
    return Pages()


class KnownVectors:
    """An encoder of mteb that knows the vector of each id."""

    def __init__(self, queries: AnyVectors, candidates: AnyVectors, samples: Samples, name: str) -> None:
        import mteb

        self._vectors = {"query": queries, "document": candidates}
        self._places = {
            kind: {item.id: place for place, item in enumerate(items)}
            for kind, items in (("query", samples.queries), ("document", samples.candidates))
        }
        self.mteb_model_meta = mteb.models.ModelMeta.create_empty(overwrites={"name": f"mmeb/{name}", "revision": "1"})

    def encode(self, inputs: Any, *, prompt_type: Any, **_: Any) -> Any:
        kind = prompt_type.value
        vectors = self._vectors[kind]
        places = [self._places[kind][item_id] for batch in inputs for item_id in batch["id"]]
        if isinstance(vectors, TokenVectors):
            return [np.asarray(vectors[place], dtype=np.float32) for place in places]
        return vectors[places]

    def similarity(self, queries: Any, candidates: Any) -> Any:
        from mteb.similarity_functions import cos_sim, max_sim

        return max_sim(queries, candidates) if isinstance(candidates, list) else cos_sim(queries, candidates)

    def similarity_pairwise(self, queries: Any, candidates: Any) -> Any:
        raise NotImplementedError("a retrieval task asks for none")


def their_score(task: Any, model: Any) -> float:
    """What mteb's `evaluate` says, unrounded."""
    import mteb

    result = mteb.evaluate(model, task, cache=None, overwrite_strategy="always", show_progress_bar=False)
    return float(result.task_results[0].scores["test"][0][THEIR_METRIC])


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--task", "name", default="RealPages-text", show_default=True)
@click.option("--model", required=True, help="NAME or NAME:VALUE.")
@click.option("--model-arg", "arguments", multiple=True, help="KEY=VALUE")
@click.option("--its-own", is_flag=True, help="Also the model as mteb loads it.")
def main(data: Path, name: str, model: str, arguments: tuple[str, ...], its_own: bool) -> int:
    (registered,), _ = choose_tasks(None, [name])
    task = registered.task
    samples = task.load(data, Frames())
    embedder = load_model(model, dict(argument.split("=", 1) for argument in arguments), {})
    queries, candidates = (
        encode_all(embedder, items, role)
        for items, role in ((samples.queries, "query"), (samples.candidates, "candidate"))
    )
    scored = score_queries(task, samples, queries, candidates)
    ours = float(np.mean([query.metrics[METRIC] for query in scored]))
    ties = sum(query.tied_decisions for query in scored)
    theirs = {"mteb, the same vectors": KnownVectors(queries, candidates, samples, embedder.info.name)}
    if its_own:
        from mteb.models import SentenceTransformerEncoderWrapper

        theirs["mteb, its own loading"] = SentenceTransformerEncoderWrapper(model.split(":", 1)[1])
    click.echo(f"{name}, {model}: nDCG@5 {ours:.9f} ours, {ties} ties in the first 5 places")
    apart = 0.0
    for what, encoder in theirs.items():
        score = their_score(mteb_task(task, samples), encoder)
        apart = max(apart, abs(score - ours))
        click.echo(f"{what}: {score:.9f}, {score - ours:+.1e}")
    return int(apart > CLOSE and not ties)


if __name__ == "__main__":
    run_command(main)
