"""The world in miniature: its facts read back from texts and pixels, held-out pairs, workers, streams, the harness."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from mmeb_tasks.mini import make_split as make_mini_split
from mmeb_tasks.mini.workers import WRONG_SHARE, mistaken
from mmeb_tasks.mini.world import COLOURS, RGB, SHAPES
from mmeb_tasks.mini.write import QueryLabel
from mmeb_tasks.miniworld import TASKS, WORKERS, make_split
from mmeb_tasks.miniworld.render import (
    BAND_BOTTOM,
    BAND_TOP,
    DARKEST,
    DOT_LEFT,
    FLASH_ROWS,
    PAGE_STRIPS_TOP,
    RANGE,
    STRIPS_TOP,
    draw_clips,
    draw_pictures,
    draw_target_pages,
    draw_target_pictures,
)
from mmeb_tasks.miniworld.tasks import WORLDS, Split, World, find_worlds
from mmeb_tasks.miniworld.world import (
    HELD_OUT,
    LEVEL_WORDS,
    draw_pool,
    draw_queries,
)

from mmeb_harness import DataError, Frames, Profile, Samples, UnknownNameError
from mmeb_harness.cli.commands import cli
from mmeb_harness.data.folder import describe, load_samples
from mmeb_harness.results.files import load_run_result, load_task_result

Row = Mapping[str, Any]
Key = tuple[str, str]  # task, query id
N = 150
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
BY_NAME = {world.name: world for world in WORLDS}
HELD_OUT_PAIRS = {f"{COLOURS[colour]} {SHAPES[shape]}" for colour, shape in enumerate(HELD_OUT)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Split, Path]:
    root = tmp_path_factory.mktemp("miniworld")
    for split in SPLITS:
        make_split(root / split, 5, split, N)
    return {split: root / split for split in SPLITS}


@pytest.fixture(scope="module")
def samples(folders: dict[Split, Path]) -> dict[tuple[Split, str], Samples]:
    return {
        (split, task.name): load_samples(task, describe(folders[split]), Profile())
        for split in SPLITS
        for task in TASKS
        if split in BY_NAME[task.name].splits
    }


@pytest.fixture(scope="module")
def labels(folders: dict[Split, Path]) -> dict[Split, dict[Key, Row]]:
    return {split: _by_key(folder / "query_labels.parquet") for split, folder in folders.items()}


def _by_key(path: Path) -> dict[Key, Row]:
    return {(row["task"], row["query_id"]): row for row in pq.read_table(path).to_pylist()}


def _digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- the facts, from the texts ---


@pytest.mark.slow
def test_chains_follow_the_table_in_the_query_and_end_at_the_only_relevant_candidate(
    samples: dict[tuple[Split, str], Samples], labels: dict[Split, dict[Key, Row]]
) -> None:
    for (split, name), of_task in samples.items():
        world = BY_NAME[name]
        for query in of_task.queries:
            label = labels[split][name, query.id]
            task_word, *rules = query.text.split()
            table = dict(rule.split(">") for rule in rules)
            assert task_word == label["kind"]
            assert len(rules) == len(table) == label["table"]
            assert label["table"] in world.table_sizes
            assert label["difficulty"] == ("hard" if label["hops"] else "easy")
            colour, *walk = label["rationale"].split()
            if label["kind"] == "chain":
                assert label["hops"] in world.hops
                assert len(walk) == label["hops"] + 1
                assert all(table[one] == other for one, other in itertools.pairwise(walk))
                assert label["answer"] == f"ans {colour} {walk[-1]}"
            else:
                assert label["hops"] == 0
                assert label["answer"] == f"cap {label['rationale']}"
                assert all(word in words for word, words in zip(walk[1:], LEVEL_WORDS, strict=True))
            (relevant,) = of_task.gains[query.id]
            if world.candidates == "text":
                assert relevant == label["answer"]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_table_is_one_cycle(world: World) -> None:
    queries = draw_queries(world, 300, np.random.default_rng(0))
    for index in range(len(queries)):
        cycle = queries.cycles[index, : queries.table_sizes[index]]
        assert len(set(cycle)) == len(cycle)
        assert cycle[0] == queries.starts[index]
        assert sorted(queries.orders[index, : len(cycle)]) == list(range(len(cycle)))


def test_kinds_hops_and_sizes_have_their_shares() -> None:
    rng = np.random.default_rng(0)
    for world in WORLDS:
        queries = draw_queries(world, 4000, rng)
        assert abs(queries.looks.mean() - world.look_share) < 0.03
        for hops in world.hops:
            assert abs((queries.hops[~queries.looks] == hops).mean() - 1 / len(world.hops)) < 0.05
        for size in world.table_sizes:
            assert abs((queries.table_sizes == size).mean() - 1 / len(world.table_sizes)) < 0.05


def test_neither_the_start_nor_the_order_of_the_table_tells_the_end() -> None:
    queries = draw_queries(WORLDS[0], 20_000, np.random.default_rng(0))
    far = queries.hops > 0
    ends = queries.ends
    assert not (queries.starts == ends)[far].any()
    # 8 shapes, less the start, less the one held out for the colour
    counts = np.array([((ends - queries.starts) % 8 == step)[far].mean() for step in range(1, 8)])
    assert np.abs(counts - 1 / 7).max() < 0.02
    first_rule_ends = queries.cycles[np.arange(len(queries)), (queries.orders[:, 0] + 1) % 8]
    assert abs((first_rule_ends == ends)[far].mean() - 1 / 8) < 0.02


# --- held-out pairs ---


def test_no_query_but_those_of_new_pairs_has_a_held_out_pair(labels: dict[Split, dict[Key, Row]]) -> None:
    assert len(set(HELD_OUT)) == len(HELD_OUT) == 8
    for split in SPLITS:
        for (task, _), label in labels[split].items():
            colour, *words = label["rationale"].split()
            end = words[-1] if label["kind"] == "chain" else words[0]
            pairs = {f"{colour} {words[0]}", f"{colour} {end}"}
            assert bool(pairs & HELD_OUT_PAIRS) == (task == "miniworld-text-new-pairs"), (task, label)


def test_new_pairs_stand_at_the_start_as_well_as_at_the_end() -> None:
    queries = draw_queries(BY_NAME["miniworld-text-new-pairs"], 4000, np.random.default_rng(0))
    held_out, far = np.array(HELD_OUT)[queries.colours], queries.hops > 0
    assert ((queries.starts == held_out) ^ (queries.ends == held_out))[far].all()
    assert abs((queries.starts == held_out)[far].mean() - 0.5) < 0.05


def test_pools_hold_every_pair_once_as_answer_and_once_as_caption(
    samples: dict[tuple[Split, str], Samples],
) -> None:
    for (split, name), of_task in samples.items():
        if split == "train":
            continue
        assert len(of_task.candidates) == 128
        assert of_task.pools is None
        if BY_NAME[name].candidates == "text":
            assert len({tuple(candidate.text.split()[:3]) for candidate in of_task.candidates}) == 128
            assert {f"ans {pair}" for pair in HELD_OUT_PAIRS} < {one.text for one in of_task.candidates}


# --- pixels ---


def test_levels_and_dots_are_in_the_pixels_where_nothing_blurs() -> None:
    world = World("clear", look_share=0.2, hops=tuple(range(8)), blur=(0.0, 0.0))
    queries = draw_queries(world, 300, np.random.default_rng(0))
    pictures = draw_pictures(world, queries, np.random.default_rng(1)) / 255
    assert (_levels(pictures[:, STRIPS_TOP:]) == queries.levels).all()
    dark = pictures[:, :STRIPS_TOP, DOT_LEFT:].mean((2, 3)) < 0.2  # (n, rows)
    starts_of_dots = dark & ~np.pad(dark, ((0, 0), (1, 0)))[:, :-1]
    assert (starts_of_dots.sum(1) == queries.hops).all()
    assert (_colours(pictures[:, :STRIPS_TOP, :DOT_LEFT]) == queries.colours).mean() > 0.95


def test_a_clip_flashes_as_often_as_it_has_hops_and_keeps_its_greys() -> None:
    world = BY_NAME["miniworld-video"]
    queries = draw_queries(world, 200, np.random.default_rng(0))
    clips = draw_clips(world, queries, np.random.default_rng(1)) / 255
    assert clips.shape == (200, 6, 32, 32, 3)
    flashes = clips[:, :, slice(*FLASH_ROWS), DOT_LEFT:].mean((2, 3, 4)) < 0.2  # (n, frames)
    assert (flashes.sum(1) == queries.hops).all()
    assert flashes[queries.hops == 3].mean(0).min() > 0.2  # any frame
    greys = clips[:, :, STRIPS_TOP:, :16].mean((2, 3, 4))
    assert greys.std(1).max() < 0.02
    assert np.abs(np.diff(clips[:, :, :STRIPS_TOP], axis=1)).max((2, 3, 4)).min() > 0.1  # the glyph trembles


def _levels(strips: np.ndarray) -> np.ndarray:
    """(n, 2) from strips (n, height, 32, 3)."""
    greys = np.stack([strips[:, :, :16].mean((1, 2, 3)), strips[:, :, 16:].mean((1, 2, 3))], 1)
    return np.rint((greys - DARKEST) / RANGE * 7)


def _colours(pictures: np.ndarray) -> np.ndarray:
    """(n,) the colour that most pixels are near."""
    distances = ((pictures[..., None, :] - RGB / 255) ** 2).sum(-1)
    near = np.where(distances.min(-1) < 0.05, distances.argmin(-1), -1).reshape(len(pictures), -1)
    return np.array([np.bincount(row[row >= 0], minlength=8).argmax() for row in near])


def test_pictured_targets_show_captions_sharply_and_answers_without_strips() -> None:
    pool = draw_pool(np.random.default_rng(0))
    pictures = draw_target_pictures(pool, np.random.default_rng(1)) / 255
    pages = draw_target_pages(pool, np.random.default_rng(1)) / 255
    assert pages.shape == (128, 48, 32, 3)
    for drawn, top in ((pictures, STRIPS_TOP), (pages, PAGE_STRIPS_TOP)):
        levels, captions = _levels(drawn[:, top:]), pool.captions
        assert (levels == pool.levels)[captions].mean() > 0.95
        assert np.ptp(levels[~captions]) <= 1  # the ground
    assert (_colours(pages[:, BAND_TOP + 1 : BAND_BOTTOM - 1]) == pool.colours).all()
    title = pages[:, :BAND_TOP]
    assert ((title.max(-1) < 0.3).sum((1, 2)) > 30).all()


def test_blur_hides_levels_and_the_graded_grain_shows_how_much() -> None:
    plain = draw_queries(WORLDS[0], 1000, np.random.default_rng(0))
    seen = _levels(draw_pictures(WORLDS[0], plain, np.random.default_rng(1))[:, STRIPS_TOP:] / 255).clip(0, 7)
    assert (seen == plain.levels).all(1).mean() < 0.15
    world = BY_NAME["miniworld-graded"]
    graded = draw_queries(world, 1000, np.random.default_rng(0))
    assert graded.blurs.min() < 0.02
    assert graded.blurs.max() > 0.43
    pictures = draw_pictures(world, graded, np.random.default_rng(1)) / 255
    grains = (pictures[:, STRIPS_TOP:, :16].std((1, 2, 3)) + pictures[:, STRIPS_TOP:, 16:].std((1, 2, 3))) / 2
    assert np.corrcoef(grains, graded.blurs)[0, 1] > 0.75
    readable = graded.blurs < 0.03
    sharp = _levels(pictures[readable, STRIPS_TOP:])
    assert (sharp == graded.levels[readable]).mean() > 0.6


# --- streams and files ---


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        make_split(tmp_path / name, seed, "train", 5)
    first = _digest(tmp_path / "first")
    assert first == _digest(tmp_path / "second")
    other = _digest(tmp_path / "other")
    drawn = [name for name in first if name.endswith((".png", "queries.parquet", "labels.parquet"))]
    assert all(first[name] != other[name] for name in drawn)


def test_splits_and_tasks_draw_from_streams_of_their_own(samples: dict[tuple[Split, str], Samples]) -> None:
    media: dict[str, tuple[Split, str]] = {}
    texts: dict[str, tuple[Split, str]] = {}
    for where, of_task in samples.items():
        for item in (*of_task.queries, *of_task.candidates):
            for path in item.media:
                assert media.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), where) == where
        for query in of_task.queries:
            if query.text.count(">") == 8:
                assert texts.setdefault(query.text, where) == where
    assert media
    assert texts


def test_training_has_a_candidate_for_each_query_and_equal_texts_once(
    samples: dict[tuple[Split, str], Samples],
) -> None:
    assert len(samples["train", "miniworld-image"].candidates) == N
    texts = [candidate.text for candidate in samples["train", "miniworld-text"].candidates]
    assert len(set(texts)) == len(texts) < N


def test_items_are_of_their_task(samples: dict[tuple[Split, str], Samples]) -> None:
    for (_, name), of_task in samples.items():
        world = BY_NAME[name]
        for query in of_task.queries:
            assert (len(query.images), len(query.frames)) == ((0, 6) if world.queries == "clip" else (1, 0))
            assert query.instruction == "find"
        for candidate in of_task.candidates:
            assert bool(candidate.text) == (world.candidates == "text") == (not candidate.images)
            assert not candidate.instruction


def test_what_is_missing_is_named_with_the_way_out(folders: dict[Split, Path]) -> None:
    with pytest.raises(DataError, match=r"^miniworld-text-new-pairs: .* are missing .*python -m mmeb_tasks.miniworld"):
        next(task for task in TASKS if task.name.endswith("new-pairs")).load(folders["train"], Frames())
    with pytest.raises(UnknownNameError, match="split 'train' named 'miniworld-text-more-hops'"):
        find_worlds(WORLDS, "train", ["miniworld-text-more-hops"])


# --- workers ---


def _rationales(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "worker_rationales.parquet").to_pylist()
    return rows


def test_workers_write_two_samples_a_side_of_training_and_validation(folders: dict[Split, Path]) -> None:
    assert not (folders["test"] / "worker_rationales.parquet").exists()
    for split in ("train", "valid"):
        rows = _rationales(folders[split])
        keys = {(r["task"], r["query_id"], r["side"], r["worker"], r["sample"]) for r in rows}
        assert len(keys) == len(rows) == (5 + 2) * N * 3 * 2
        assert {r["task"] for r in rows if r["side"] == "positive"} == {"miniworld-image", "miniworld-page"}


def test_precise_and_verbose_are_right_and_wrong_is_wrong_as_often_as_it_should(
    folders: dict[Split, Path], labels: dict[Split, dict[Key, Row]]
) -> None:
    judged = []
    for row in _rationales(folders["train"]):
        label = labels["train"][row["task"], row["query_id"]]
        right = _leads_to(row["text"], row["side"], label) == _answer(label)
        assert right == row["right"], row
        assert row["right"] or row["worker"] == "wrong"
        judged.append((row["worker"], label["kind"], row["side"], row["task"], row["right"], row["details"]))
        if row["worker"] == "precise" and row["side"] == "query":
            assert label["rationale"].startswith(row["text"])
            assert (row["text"] == label["rationale"]) == (row["details"] or label["kind"] == "chain")
        if row["worker"] == "verbose":
            assert row["details"] == (label["kind"] == "look")
    d_wrong = [one for one in judged if one[0] == "wrong" and one[3] != "miniworld-graded"]
    assert abs(np.mean([not one[4] for one in d_wrong]) - WRONG_SHARE) < 0.05
    looks = [one for one in judged if one[0] == "precise" and one[1] == "look"]
    assert abs(np.mean([one[5] for one in looks]) - WORLDS[0].details_share) < 0.06


def _answer(label: Row) -> tuple[str, str]:
    colour, shape = label["answer"].split()[1:3]
    return colour, shape


def _leads_to(text: str, side: str, label: Row) -> tuple[str, str]:
    words = text.split()
    colour = next(word for word in words if word in COLOURS)
    return colour, [word for word in words if word in SHAPES][-1]


def test_a_wrong_chain_reads_the_table_backwards(
    folders: dict[Split, Path], labels: dict[Split, dict[Key, Row]], samples: dict[tuple[Split, str], Samples]
) -> None:
    texts = {query.id: query.text for query in samples["train", "miniworld-graded"].queries}
    accidents = 0
    for row in _rationales(folders["train"]):
        label = labels["train"][row["task"], row["query_id"]]
        if row["task"] != "miniworld-graded" or row["worker"] != "wrong" or not label["hops"]:
            continue
        table = dict(rule.split(">") for rule in texts[row["query_id"]].split()[1:])
        walk = row["text"].split()[1:]
        backwards = all(table[other] == one for one, other in itertools.pairwise(walk))
        forwards = all(table[one] == other for one, other in itertools.pairwise(walk))
        assert backwards or forwards
        assert row["right"] == (walk[-1] == label["rationale"].split()[-1])
        accidents += row["right"] and backwards and not forwards
    assert accidents  # e.g. 2 hops of 4: right, though the way is not


def test_fallible_workers_err_alike_and_of_hopeless_sides_all_do(folders: dict[Split, Path], tmp_path: Path) -> None:
    names = ["miniworld-graded", "miniworld-image"]  # one has accidents, one two sides
    make_split(tmp_path / "careful", 5, "train", N, names)
    make_split(tmp_path / "fallible", 5, "train", N, names, "fallible")
    careful, fallible = (_digest(tmp_path / kind) for kind in ("careful", "fallible"))
    changed = {path for path, digest in fallible.items() if digest != careful[path]}
    assert changed == {"worker_rationales.parquet", "manifest.json"}
    labels = _by_key(tmp_path / "fallible" / "query_labels.parquet")
    right: dict[str, list[bool]] = {}
    of_side: dict[tuple[str, str, str], list[bool]] = {}
    for row in _rationales(tmp_path / "fallible"):
        label = labels[row["task"], row["query_id"]]
        leads_to = _leads_to(row["text"], row["side"], label)
        assert row["right"] == (leads_to == _answer(label)), row
        of_side.setdefault((row["task"], row["query_id"], row["side"]), []).append(row["right"])
        right.setdefault(row["worker"], []).append(row["right"])
    is_hopeless = np.array([not any(side) for side in of_side.values()])
    careful_share = (1 - WORKERS["fallible"]["hopeless_share"]) * (1 - WORKERS["fallible"]["err_share"])
    assert abs(is_hopeless.mean() - WORKERS["fallible"]["hopeless_share"]) < 0.06
    for worker in ("precise", "verbose"):
        assert abs(np.mean(right[worker]) - careful_share) < 0.05
    assert np.mean(right["wrong"]) < np.mean(right["precise"]) - 0.1


def test_chains_have_the_hops_that_are_asked_for(folders: dict[Split, Path], tmp_path: Path) -> None:
    make_split(tmp_path / "split", 5, "test", N, ["miniworld-text"], hops=(1, 4))
    labels = _by_key(tmp_path / "split" / "query_labels.parquet")
    assert {label["hops"] for label in labels.values() if label["kind"] == "chain"} == {1, 4}
    assert describe(tmp_path / "split").revision == "miniworld-1-hops-1-4-test-5-150"
    assert describe(folders["test"]).revision == "miniworld-1-test-5-150"


# --- through the harness ---


@pytest.mark.slow
def test_a_run_over_the_group_is_at_chance(folders: dict[Split, Path], tmp_path: Path) -> None:
    arguments = ["run", "--model", "random", "--data", str(folders["test"]), "--groups", "miniworld"]
    done = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    run = load_run_result(tmp_path / "out" / "run.json")
    assert run.data_synthetic
    assert run.tasks == tuple(world.name for world in WORLDS)
    means = {aggregate.name: aggregate.tasks for aggregate in run.aggregates}
    assert means["overall"] == means["miniworld"] == len(WORLDS)  # of these tasks, none of the benchmark's
    assert (run.data, run.edition) == ("miniworld", "")
    for name in run.tasks:
        result = load_task_result(tmp_path / "out" / "tasks" / f"{name}.json")
        assert (result.num_queries, result.num_candidates) == (N, 128)
        assert result.chance == pytest.approx(1 / 128 if result.metric == "hit@1" else 0.023, abs=1e-3)
        assert result.score < result.chance + 5 * (result.chance / N) ** 0.5
    assert CliRunner().invoke(cli, ["verify", str(tmp_path / "out")]).exit_code == 0


# --- the workers of the mini suite ---

MINI_TASKS = ["OK-VQA", "MSCOCO_i2t", "ImageNet-1K", "Breakfast", "ActivityNetQA", "DiDeMo", "ViDoRe_docvqa"]


def test_the_mini_suite_has_workers_in_training_only(tmp_path: Path) -> None:
    make_mini_split(tmp_path / "train", 0, "train", 60, MINI_TASKS, workers="naming")
    make_mini_split(tmp_path / "test", 0, "test", 4, ["OK-VQA"])
    assert not (tmp_path / "test" / "worker_rationales.parquet").exists()
    labels, rows = _by_key(tmp_path / "train" / "query_labels.parquet"), _rationales(tmp_path / "train")
    assert len(rows) == len(labels) * 3 * 2
    answers = {
        "ImageNet-1K": {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES},
        "Breakfast": {label["answer"] for (task, _), label in labels.items() if task == "Breakfast"},
    }
    for row in rows:
        label = labels[row["task"], row["query_id"]]
        is_class = row["task"] in ("ImageNet-1K", "Breakfast")
        precise = f"{label['rationale']} {label['answer']}" if is_class else label["rationale"]
        if row["worker"] == "precise":
            assert row["text"] == precise
        if row["worker"] == "verbose":
            rest = iter(row["text"].split())
            assert all(word in rest for word in precise.split())
            assert row["text"] != precise
            assert row["text"].endswith(label["answer"]) or not is_class
        assert row["right"] == (row["worker"] != "wrong" or row["text"] == precise)
        if is_class and not row["right"]:
            assert not row["text"].endswith(label["answer"])
            assert row["text"].endswith(tuple(answers[row["task"]]))
        assert row["details"] == (row["task"] == "MSCOCO_i2t")
    wrong = [row for row in rows if row["worker"] == "wrong"]
    assert abs(np.mean([not row["right"] for row in wrong]) - WRONG_SHARE) < 0.06


@pytest.mark.parametrize(
    ("rationale", "answer", "wrong"),
    [
        ("red circle", "red circle", "green square"),
        ("red circle opposite bar", "red bar", "green circle opposite cross"),
        ("red circle opposite circle", "red circle", "green square opposite square"),
        ("red circle bar ring", "red ring", "red circle cross circle"),
        ("circle bar ring blue ring", "blue ring", "circle cross circle blue circle"),
        ("red circle bar ring yes", "yes", "red circle cross circle no"),
        ("red circle moving left", "left", "red circle moving right"),
        ("red circle moving left", "tea", "green square moving right"),
        ("three", "three", "four"),
        ("red three", "three", "red four"),
        ("red circle top left", "top left", "red circle bottom right"),
    ],
)
def test_the_wrong_worker_is_wrong_where_it_matters(rationale: str, answer: str, wrong: str) -> None:
    assert mistaken(QueryLabel("0", "easy", rationale, answer), 1) == wrong
