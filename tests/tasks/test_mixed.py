"""The suite "mixed": what is frozen, what words don't tell, what media do, that nothing else gives an answer away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmeb_tasks.miniworld.render import DOT_LEFT, DOT_ROWS, FLASH_ROWS, FRAMES, MARK_RIGHT, STRIPS_TOP
from mmeb_tasks.miniworld.tasks import Sign, Split, World
from mmeb_tasks.miniworld.world import draw_queries, query_text
from mmeb_tasks.miniworld.write import DRAW
from mmeb_tasks.mixed import TASKS, TEST_QUERIES, WORLDS, make_split
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from mmeb_harness import Profile, Samples
from mmeb_harness.data.folder import describe, load_samples
from tests.tasks.test_yardstick import sha256_of

#: Of the test split, seed 0, and of a training split of 24 queries a task, seed 1. Like the mini suite's never changed.
FROZEN = {
    "test": "cecd15aecbcfbb1e7f5748db9429154c6b7c771e5c841b1eb702fabe9b92c993",
    "train": "51a19fa78959f5d6d588c5e95042fae3f77516a3ece5772da2bb9591d3a90201",
}
FEW = 24
WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Split, Path]:
    root = tmp_path_factory.mktemp("mixed")
    make_split(root / "train", 1, "train", FEW)
    make_split(root / "test", 0, "test", FEW)
    return {"train": root / "train", "test": root / "test"}


@pytest.mark.slow
def test_the_test_split_is_what_it_was(tmp_path: Path) -> None:
    make_split(tmp_path / "test", 0, "test", TEST_QUERIES)
    assert sha256_of(tmp_path / "test") == FROZEN["test"]


def test_the_training_split_is_what_it_was(folders: dict[Split, Path]) -> None:
    assert sha256_of(folders["train"]) == FROZEN["train"]


# --- what words don't tell ---


@WORLD
def test_the_words_say_nothing_of_what_is_asked(world: World) -> None:
    """Naive Bayes, of words and of words in their places, learns from half of the queries and guesses for the other."""
    queries = draw_queries(world, 2500, np.random.default_rng(0))
    texts = [query_text(world, queries, index).split() for index in range(len(queries))]
    assert {words[0] for words in texts} == {world.sign}
    assert {len(set(words)) for words in texts} == {9}
    pays, half = queries.hops > 0, len(queries) // 2
    for features in (
        [{part for word in words for part in (word, *word.split(">"))} for words in texts],
        [set(enumerate(words)) for words in texts],
    ):
        gains: dict[object, float] = {}  # of a word: log-odds, to first order
        for words, paid in zip(features[:half], pays[:half], strict=True):
            for word in words:
                gains[word] = gains.get(word, 0.0) + (1 / pays[:half].mean() if paid else -1 / (~pays[:half]).mean())
        guesses = np.array([sum(gains.get(word, 0.0) for word in words) for words in features[half:]])
        paid, others = guesses[pays[half:]], guesses[~pays[half:]]
        auc = mannwhitneyu(paid, others).statistic / (len(paid) * len(others))
        assert abs(auc - 0.5) < 0.05


# --- what media do ---


def _left(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, …) the mean grey of the ground at the left edge, where no glyph, strip or mark is."""
    return np.asarray(pictures[..., FLASH_ROWS[1] + 1 : 16, :MARK_RIGHT, :].mean((-3, -2, -1)))


def _marked(pictures: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(pictures[..., slice(*FLASH_ROWS), :MARK_RIGHT, :].mean((-3, -2, -1)) < 60)


def _saturation(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(pictures.max(-1) - pictures.min(-1))


def _drifts_right(clips: NDArray[np.float64]) -> NDArray[np.bool_]:
    change = np.abs(clips[:, -1, :STRIPS_TOP, :DOT_LEFT] - clips[:, 0, :STRIPS_TOP, :DOT_LEFT])
    away = np.abs(clips[:, -1, :STRIPS_TOP, :DOT_LEFT] - 115) - np.abs(clips[:, 0, :STRIPS_TOP, :DOT_LEFT] - 115)
    return np.asarray(((away * (change > 60)) * np.linspace(-1, 1, DOT_LEFT)[:, None]).sum((1, 2, 3)) > 0)


#: By sign: whether media (n, height, width, 3), clips (n, frames, …), show a query that is LOOK.
RULES: dict[Sign, Callable[[NDArray[np.float64]], NDArray[np.bool_]]] = {
    "dots": lambda pictures: pictures[:, slice(*DOT_ROWS[0]), DOT_LEFT:].mean((1, 2, 3)) > 60,
    "frame": lambda pictures: pictures[:, 2:STRIPS_TOP, :2].mean((1, 2, 3)) > 180,
    "ground": lambda pictures: _left(pictures) > np.where(pictures.shape[1] > pictures.shape[2], 220, 115),
    "mark": _marked,
    "layout": lambda pages: _saturation(pages[:, 4:12]).mean((1, 2)) > _saturation(pages[:, 23:31]).mean((1, 2)),
    "drift": _drifts_right,
    "moment": lambda clips: _marked(clips)[:, 0],
    "fade": lambda clips: _left(clips)[:, -1] > _left(clips)[:, 0],
}


@WORLD
def test_a_simple_rule_on_pixels_tells_what_is_asked(world: World) -> None:
    queries = draw_queries(world, 300, np.random.default_rng(0))
    pictures = DRAW[world.queries](world, queries, np.random.default_rng(1)).astype(float)
    assert (RULES[world.sign](pictures) == queries.looks).mean() >= 0.99


@WORLD
def test_nothing_else_differs_between_the_kinds(world: World) -> None:
    queries = draw_queries(world, 8000, np.random.default_rng(0))
    looks, seen = queries.looks, [queries.colours, queries.starts]
    seen += [queries.dots] if world.sign != "dots" else []
    for values in seen:
        shares = [np.bincount(values[rows], minlength=8) / rows.sum() for rows in (looks, ~looks)]
        assert np.abs(shares[0] - shares[1]).max() < 0.04


# --- shares and chance ---


def test_some_of_every_task_gain_and_some_lose_and_not_everywhere_the_same_share() -> None:
    paying, hurt = [], []
    for world in WORLDS:
        assert 4 not in world.hops  # of 8: forwards and backwards meet there
        assert (world.table_sizes, world.blur) == ((8,), (0.3, 0.3))
        queries = draw_queries(world, 4000, np.random.default_rng(0))
        paying.append((queries.hops > 0).mean())
        hurt.append(queries.looks.mean())
    assert min(paying) > 0.15
    assert min(hurt) > 0.3
    assert [paid > lost for paid, lost in zip(paying, hurt, strict=True)].count(True) in range(3, 7)


@WORLD
def test_who_reads_a_chain_directly_is_at_chance(world: World) -> None:
    """The best guess that knows colour and start, and the start's own rule."""
    queries = draw_queries(world, 20_000, np.random.default_rng(0))
    far = queries.hops > 0
    ends, after = queries.ends[far], queries.cycles[far, 1]
    guesses = np.bincount((queries.colours[far] * 8 + queries.starts[far]) * 8 + ends, minlength=512).reshape(-1, 8)
    assert guesses.max(1).sum() / far.sum() < 0.24  # 1 in 6; the most frequent of a few hundred is a bit more
    assert (ends == after).mean() < 0.01
    assert np.bincount(queries.colours[far] * 8 + ends).max() / far.sum() < 0.03  # of 56 answers


# --- files ---


@pytest.fixture(scope="module")
def samples(folders: dict[Split, Path]) -> dict[tuple[Split, str], Samples]:
    return {
        (split, task.name): load_samples(task, describe(folder), Profile())
        for split, folder in folders.items()
        for task in TASKS
    }


def test_a_query_ranks_one_answer_and_one_caption_of_each_colour_and_shape(
    samples: dict[tuple[Split, str], Samples],
) -> None:
    for world in WORLDS:
        of_task = samples["test", world.name]
        assert len(of_task.queries) == FEW
        assert len(of_task.candidates) == 128
        assert of_task.pools is None
        if world.candidates == "text":
            assert len({tuple(candidate.text.split()[:3]) for candidate in of_task.candidates}) == 128
        for query in of_task.queries:
            assert len(of_task.gains[query.id]) == 1
            assert (len(query.images), len(query.frames)) == ((0, FRAMES) if world.queries == "clip" else (1, 0))


def test_splits_share_no_query(samples: dict[tuple[Split, str], Samples]) -> None:
    texts = [query.text for of_task in samples.values() for query in of_task.queries]
    assert len(set(texts)) == len(texts)


def test_every_rationale_of_a_caption_names_its_details(folders: dict[Split, Path]) -> None:
    kinds = {
        (row["task"], row["query_id"]): row["kind"]
        for row in pq.read_table(folders["train"] / "query_labels.parquet").to_pylist()
    }
    rows = pq.read_table(folders["train"] / "worker_rationales.parquet").to_pylist()
    of_queries = [row for row in rows if row["side"] == "query"]
    assert len(of_queries) == len(kinds) * 3 * 2
    assert all(row["details"] == (kinds[row["task"], row["query_id"]] == "look") for row in of_queries)
