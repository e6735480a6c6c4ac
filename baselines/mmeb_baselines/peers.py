"""What others do with the weights of a model of `st:`, and torch's top-k, for `mmeb-eval bench --beside`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.sentence_transformers_bridge import SentenceTransformerEmbedder
from mmeb_harness import (
    Embedder,
    EncodeResult,
    Item,
    OptionError,
    Peer,
    Role,
    Samples,
    Task,
    import_peer,
    read_batch_size,
)

INSTALL = "pip install 'mmeb-harness[peers]'"
#: What `encode` and `mteb.evaluate` take where nobody says another.
BATCH = 32
#: Queries whose scores stand in memory at once.
QUERIES = 1024


def open_torch(_embedder: Embedder, value: str | None) -> Peer:
    """A matrix product and `topk`, on the CPU, some queries at a time."""
    size = read_batch_size("torch", value, QUERIES)
    torch = import_peer("torch", "torch", "pip install torch")

    def rank(queries: NDArray[np.float32], candidates: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        columns = torch.from_numpy(candidates).T
        parts = [
            (torch.from_numpy(queries[start : start + size]) @ columns).topk(k).indices.numpy()
            for start in range(0, len(queries), size)
        ]
        return np.concatenate(parts)

    return Peer({"queries": size, "threads": torch.get_num_threads()}, rank=rank)


def open_sentence_transformers(embedder: Embedder, value: str | None) -> Peer:
    """One call of the library's `encode` for all texts of a prompt.

    Raises:
        OptionError: a model of another kind.
    """
    model = _model_of(embedder, "sentence-transformers")
    size = read_batch_size("sentence-transformers", value, BATCH)

    def encode(items: Sequence[Item], role: Role) -> EncodeResult:
        texts = model.texts(items, role)
        vectors = model.library.encode(texts, batch_size=size, show_progress_bar=False, normalize_embeddings=True)
        return EncodeResult(np.asarray(vectors, dtype=np.float32))

    return Peer({"batch_size": size}, encode)


def open_mteb(embedder: Embedder, value: str | None) -> Peer:
    """`mteb.evaluate` with the same loaded model, on the task's texts, lists of candidates included.

    Raises:
        OptionError: mteb isn't installed, or a model of another kind.
    """
    model = _model_of(embedder, "mteb")
    size = read_batch_size("mteb", value, BATCH)
    version = import_peer("mteb", "mteb", INSTALL).__version__
    encoder = import_peer("mteb", "mteb.models", INSTALL).SentenceTransformerEncoderWrapper(model.library)

    def evaluate(task: Task, samples: Samples) -> float:
        return mteb_score(encoder, task, samples, model.texts, size)

    return Peer({"batch_size": size, "version": version}, evaluate=evaluate)


def mteb_score(
    encoder: Any, task: Task, samples: Samples, texts: Callable[[Sequence[Item], Role], list[str]], batch_size: int
) -> float:
    """What `mteb.evaluate` gives for a task's main metric, of five digits.

    Args:
        encoder: as mteb takes one.
        texts: what it is shown of items.

    Raises:
        OptionError: mteb isn't installed, or computes no such metric.
    """
    name = _metric_of_mteb(task)
    result = import_peer("mteb", "mteb", INSTALL).evaluate(
        encoder,
        _task_of_mteb(task, samples, texts),
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": batch_size},
        overwrite_strategy="always",
        show_progress_bar=False,
    )
    return float(result.task_results[0].scores["test"][0][name])


def _metric_of_mteb(task: Task) -> str:
    """What mteb calls a task's metric.

    Raises:
        OptionError: it has none that is computed alike.
    """
    kind, _, cut = task.metric.partition("@")
    names = {"ndcg_linear": f"ndcg_at_{cut}", "recall": f"recall_at_{cut}"}
    if task.metric == "hit@1":
        return "precision_at_1"
    if kind not in names:
        raise OptionError(f"--beside mteb: it computes no {task.metric}, the metric of {task.name}")
    return names[kind]


def _task_of_mteb(task: Task, samples: Samples, texts: Callable[[Sequence[Item], Role], list[str]]) -> Any:
    """Samples as a retrieval task of mteb in memory.

    Args:
        texts: what it shows of items.
    """
    from datasets import Dataset

    mteb = import_peer("mteb", "mteb", INSTALL)

    def rows(items: Sequence[Item], role: Role) -> Any:
        shown = zip(items, texts(items, role), strict=True)
        return Dataset.from_list([{"id": item.id, "text": text} for item, text in shown])

    split = {
        "queries": rows(samples.queries, "query"),
        "corpus": rows(samples.candidates, "candidate"),
        "relevant_docs": {
            query: {candidate: int(grade) for candidate, grade in gains.items()}
            for query, gains in samples.gains.items()
        },
        "top_ranked": None if samples.pools is None else {query: list(pool) for query, pool in samples.pools.items()},
    }
    unknown = (
        *("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect"),
        *("sample_creation", "bibtex_citation"),
    )
    metadata = mteb.TaskMetadata(
        name=task.name,
        description=task.name,
        dataset={"path": "in/memory", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=_metric_of_mteb(task),
        **dict.fromkeys(unknown),
    )

    def load_data(self: Any, *_: Any, **__: Any) -> None:
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    base = import_peer("mteb", "mteb.abstasks", INSTALL).AbsTaskRetrieval
    return type("InMemory", (base,), {"metadata": metadata, "load_data": load_data})()


def _model_of(embedder: Embedder, name: str) -> SentenceTransformerEmbedder:
    if not isinstance(embedder, SentenceTransformerEmbedder):
        raise OptionError(f"--beside {name} takes a model of st:, not {embedder.info.name!r}")
    return embedder
