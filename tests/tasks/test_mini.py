"""The mini suite: complete, repeatable, readable by the real readers, disjoint from its training split, no leaks."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import TASKS
from mmeb_tasks.mini import SUITE, make_split, make_suite
from mmeb_tasks.mini.questions import chain_target, distractors, text_chain
from mmeb_tasks.mini.world import (
    COLOURS,
    HARD_STEPS,
    SHAPES,
    Scene,
    Thing,
    draw_scene,
    random_chain,
    random_scene,
    random_thing,
)

from mmeb_harness import DataError, Profile, Samples
from mmeb_harness.data.folder import DataInfo, describe, load_samples


@pytest.fixture(scope="module")
def suite(cache: Path) -> DataInfo:
    return describe(cache / "mini-v1-seed0")


@pytest.fixture(scope="module")
def samples(suite: DataInfo) -> dict[str, Samples]:
    return {task.name: load_samples(task, suite, Profile()) for task in TASKS}


@pytest.fixture(scope="module")
def labels(suite: DataInfo) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in pq.read_table(suite.root / "query_labels.parquet").to_pylist():
        found.setdefault(row["task"], {})[row["query_id"]] = row
    return found


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_says_what_it_is(suite: DataInfo) -> None:
    assert suite.synthetic
    assert suite.name == SUITE.name
    assert set(suite.num_queries) == {task.name for task in TASKS}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_is_read_with_labels_of_both_kinds(
    task: object, samples: dict[str, Samples], labels: dict[str, dict[str, dict[str, str]]]
) -> None:
    name = task.name  # type: ignore[attr-defined]
    of_task = samples[name]
    assert len(of_task.queries) >= 16
    assert {query.id for query in of_task.queries} == set(labels[name])
    kinds = Counter(label["difficulty"] for label in labels[name].values())
    assert abs(kinds["easy"] - kinds["hard"]) <= 1
    for item in (*of_task.queries, *of_task.candidates):
        assert all(path.is_file() for path in item.media)
    assert all(label["rationale"] and label["answer"] for label in labels[name].values())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    tasks = ["OK-VQA", "MSCOCO_t2i", "QVHighlight", "MVBench", "ViDoSeek-doc"]
    for name in ("first", "second"):
        make_split(tmp_path / name, 3, "test", 6, tasks)
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    make_split(tmp_path / "other", 4, "test", 6, tasks)
    assert digest(tmp_path / "other") != digest(tmp_path / "first")


def test_no_picture_and_no_rules_of_the_test_split_occur_in_training(
    suite: DataInfo, samples: dict[str, Samples], tmp_path: Path
) -> None:
    tasks = ["OK-VQA", "ImageNet-1K", "MSCOCO_t2i", "K700", "ViDoRe_docvqa"]
    make_split(tmp_path / "train", 0, "train", 60, tasks)
    train = describe(tmp_path / "train")
    media = {"train": set[str](), "test": set[str]()}
    rules = {"train": set[str](), "test": set[str]()}
    for task in TASKS:
        if task.name in tasks:
            for split, read in (("train", load_samples(task, train, Profile())), ("test", samples[task.name])):
                for item in (*read.queries, *read.candidates):
                    media[split] |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in item.media}
                    rules[split] |= {item.text} if ">" in item.text else set()
    assert media["train"]
    assert not media["train"] & media["test"]
    assert rules["train"]
    assert not rules["train"] & rules["test"]


def test_a_finished_suite_is_left_alone_and_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    make_split(tmp_path / "suite", 0, "test", 4, ["OK-VQA"])
    before = digest(tmp_path / "suite")
    make_split(tmp_path / "suite", 0, "test", 4, ["OK-VQA"])  # as a second process would that came later
    assert digest(tmp_path / "suite") == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="exists and is not a finished suite"):
        make_split(foreign, 0, "test", 4, ["OK-VQA"])
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "suite"]  # no leftovers


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't make a suite in .*name another folder, by MMEB_CACHE"):
        make_suite(tmp_path / "file" / "mini", 0)


def test_answers_are_what_the_picture_shows(
    samples: dict[str, Samples], labels: dict[str, dict[str, dict[str, str]]]
) -> None:
    """The colour of the answer, found again in the pixels: the most frequent of the eight colours."""
    from mmeb_tasks.mini.world import RGB
    from PIL import Image

    checked = 0
    for query in samples["VOC2007"].queries:
        pixels = np.asarray(Image.open(query.images[0]), np.float32).reshape(-1, 1, 3)
        distance = ((pixels - RGB) ** 2).sum(2)
        counts = np.bincount(distance.argmin(1)[distance.min(1) < 3000], minlength=8)
        counts[COLOURS.index("white")] //= 2  # noise on grey is nearest to white now and then
        checked += COLOURS[int(counts.argmax())] == labels["VOC2007"][query.id]["answer"].split()[0]
    assert checked >= len(samples["VOC2007"].queries) - 2


def test_hard_answers_follow_from_the_rules_in_the_text(
    samples: dict[str, Samples], labels: dict[str, dict[str, dict[str, str]]]
) -> None:
    """Every walk of a rationale is a path in its query's own rule table, and ends at the answer's shape."""
    checked = 0
    for name in ("OK-VQA", "MSCOCO_t2i", "CIRR", "Video-MME", "ViDoRe_docvqa", "DiDeMo"):
        for query in samples[name].queries:
            label = labels[name][query.id]
            words = query.text.replace("\n", " ").split()
            rules = dict(word.split(">") for word in words if word.count(">") == 1)
            if label["difficulty"] == "easy" or not rules:
                continue
            walk = [word for word in label["rationale"].split() if word in SHAPES]
            assert len(rules) == 8
            assert all(rules[a] == b for a, b in itertools.pairwise(walk)), (name, query.text)
            assert len(walk) - 1 in HARD_STEPS
            assert walk[-1] in label["answer"]
            checked += 1
    assert checked > 50


def test_chains_do_not_leak_their_end() -> None:
    """Neither the start nor the table's order tells the end; the end is never the start."""
    rng = np.random.default_rng(0)
    ends, first_rules = Counter[tuple[int, int]](), 0
    for _ in range(4000):
        target = random_thing(rng)
        chain = text_chain(rng, target)
        assert chain.end == target.shape != chain.shapes[0]
        assert chain_target(target.colour, chain) == target
        assert sorted(a for a, _ in chain.rules) == sorted(b for _, b in chain.rules) == list(range(8))
        ends[(chain.shapes[0], chain.end)] += 1
        first_rules += chain.rules[0][1] == chain.end
    expected = 4000 / 56
    assert max(abs(count - expected) for count in ends.values()) < 6 * expected**0.5
    assert abs(first_rules / 4000 - 1 / 8) < 0.03


def test_a_walk_of_the_whole_cycle_comes_back() -> None:
    chain = random_chain(np.random.default_rng(1), 3, 8)
    assert chain.end == 3
    assert len(set(chain.shapes)) == 8


def test_option_letters_of_right_answers_are_spread(samples: dict[str, Samples], suite: DataInfo) -> None:
    letters = Counter[str]()
    for name in ("Video-MME", "EgoSchema", "MVBench"):
        for gains in samples[name].gains.values():
            letters[next(iter(gains)).lstrip("(")[0]] += 1
    total = sum(letters.values())
    assert all(letters[letter] / total > 0.12 for letter in "ABCD")


def test_distractors_share_half_of_the_answer_first() -> None:
    target = Thing(2, 5)
    near = distractors(np.random.default_rng(0), target, 14)
    assert len(set(near)) == 14
    assert all((one.colour == 2) != (one.shape == 5) for one in near)


def test_the_levels_in_captions_cannot_be_read_off_the_picture() -> None:
    """Correlated with the strip's grey, but far from one level: most guesses by the best linear rule are wrong."""
    rng = np.random.default_rng(0)
    levels, greys = [], []
    for _ in range(400):
        level = int(rng.integers(8))
        scene = random_scene(rng, 1, strips=(level, 0))
        levels.append(level)
        greys.append(draw_scene(scene, rng)[62:64, 2:26].mean())
    slope, offset = np.polyfit(greys, levels, 1)
    guesses = np.clip(np.rint(slope * np.array(greys) + offset), 0, 7)
    assert 0.1 < np.mean(guesses == levels) < 0.4


def test_a_lone_thing_is_its_own_opposite() -> None:
    scene = Scene((Thing(0, 0),), (2,))
    assert scene.opposite == scene.largest
    crowded = random_scene(np.random.default_rng(0), 4)
    assert crowded.opposite == crowded.things[1]
