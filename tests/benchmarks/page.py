"""How large the page of large runs is, and how soon it can be used: 78 tasks of 1,000 queries each, in three modes.

python -m tests.benchmarks.page FOLDER [--queries N]

The runs are made up: rationales and queries of words drawn as rarely as English ones, a ranking of 100 places a query.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmeb_harness import Task
from mmeb_harness.core.files import write_parquet
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.files import EncodeStats
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.show.page.collect import open_runs, summary_of
from mmeb_harness.show.page.queries import collect_task
from mmeb_harness.show.page.render import packed, write_page
from mmeb_harness.show.page.values import QueryItems, TaskQueries
from tests.browser import chromium
from tests.harness.made_runs import benchmark_tasks, task_result, write_run

MODES = ("never", "always", "adaptive")
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
#: Words of a query and of a rationale, at most.
QUERY_WORDS, RATIONALE_WORDS = 40, 120

#: Follows the last task's link; calls back with the milliseconds until its first query is there.
OPEN_LAST_TASK = """
const [done] = arguments, from = performance.now();
[...document.querySelectorAll('#tasks tbody a')].at(-1).click();
const shown = () => document.querySelector('#task tbody .open-row');
const look = () => shown() ? done(performance.now() - from) : setTimeout(look, 2);
look();
"""


class Words:
    """Texts of made-up words, the n-th of which is about n times as rare as the first."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        lengths = draw.integers(2, 10, 20_000)
        self._words = np.array(["".join(draw.choice(LETTERS, length)) for length in lengths])
        shares = 1 / np.arange(10, len(lengths) + 10)
        self._shares = shares / shares.sum()

    def texts(self, number: int, most: int, seed: str) -> list[str]:
        """The same for the same seed: whatever makes a model reason, it writes the same."""
        draw = np.random.default_rng(list(seed.encode()))
        lengths = draw.integers(most // 2, most + 1, number)
        drawn = iter(draw.choice(self._words, lengths.sum(), p=self._shares))
        return [" ".join(next(drawn) for _ in range(length)) for length in lengths]


def write_large_run(folder: Path, tasks: Sequence[Task], mode: str, num_queries: int, words: Words) -> None:
    """A finished run as `mmeb-eval run` would leave it, as far as the page reads it."""
    draw = np.random.default_rng(len(mode))
    results = []
    for task in tasks:
        table = query_table(task.name, mode, num_queries, words, draw)
        write_parquet(RunFolder(folder).queries_file(task.name), table)
        score = float(np.mean(table.column("score").to_numpy()))
        metrics = dict.fromkeys(METRIC_NAMES, score)
        stats = EncodeStats(items=num_queries, encoded=num_queries)
        results.append(task_result(task, score=score, metrics=metrics, num_queries=num_queries, queries=stats))
    write_run(folder, results, model_settings={"reasoning": mode})


def query_table(name: str, mode: str, num_queries: int, words: Words, draw: np.random.Generator) -> pa.Table:
    reasoned = np.full(num_queries, mode == "always") if mode != "adaptive" else draw.random(num_queries) < 0.5
    ranks = draw.geometric(0.6, num_queries)
    places = np.argsort(draw.random((num_queries, 1000)), axis=1)[:, :100]
    texts = words.texts(num_queries, RATIONALE_WORDS, seed=name)
    return pa.table(
        {
            "query_id": [f"{name}_{i}" for i in range(num_queries)],
            "difficulty": pa.nulls(num_queries, pa.string()),
            "score": (ranks == 1).astype(np.float64),
            "first_relevant_rank": ranks.astype(np.int64),
            "num_ranked": np.full(num_queries, 1000),
            "tied_decisions": (draw.random(num_queries) < 0.02).astype(np.int64),
            "top_ids": [[f"images/{name}/{one:06}.jpg" for one in row] for row in places],
            "top_scores": list(-np.sort(-draw.random((num_queries, 100)), axis=1)),
            "relevant_ids": [
                [f"images/{name}/{row[rank - 1]:06}.jpg"] for row, rank in zip(places, ranks, strict=True)
            ],
            "path": np.where(reasoned, "reasoned", "direct"),
            "gate": draw.random(num_queries),
            "rationale": pa.array(
                [text if one else None for text, one in zip(texts, reasoned, strict=True)], pa.string()
            ),
            "reasoning_tokens": np.where(reasoned, draw.integers(80, 300, num_queries), 0),
            "truncated": reasoned & (draw.random(num_queries) < 0.01),
            "latency_seconds": draw.random(num_queries),
        }
    )


def with_texts(task: TaskQueries, words: Words) -> TaskQueries:
    """As if the data had been there."""
    number = len(task.ids)
    items = QueryItems(
        words.texts(number, QUERY_WORDS, f"{task.name} queries"), ["Find an image:"] * number, [1] * number
    )
    return dataclasses.replace(task, items=items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    folders = [options.folder / mode for mode in MODES]
    words, tasks = Words(), benchmark_tasks()
    for folder in folders:
        if not folder.exists():
            write_large_run(folder, tasks, folder.name, options.queries, words)
    started = time.perf_counter()
    source = open_runs(folders)
    collected = [collect_task(source, name, 0) for name in source.task_names]
    texts = [packed(with_texts(queries, words)) for _, queries in collected]
    summary = summary_of(source, [row for row, _ in collected], "today", [])
    page = options.folder / "page.html"
    size = write_page(page, summary, texts)
    print(f"{size / 2**20:.1f} MB, made in {time.perf_counter() - started:.0f} s: {page}")
    report_opening(page)


def report_opening(page: Path) -> None:
    with chromium() as browser:
        browser.get(page.resolve().as_uri())
        shown, loaded = browser.execute_script(
            "return [window.summaryShown, performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd]"
        )
        opened = browser.execute_async_script(OPEN_LAST_TASK)
    print(f"tables shown after {shown:.0f} ms, all loaded after {loaded:.0f} ms; a task opens in {opened:.0f} ms")


if __name__ == "__main__":
    main()
