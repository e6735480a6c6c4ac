"""What the mini suite of MMEB-V3 adds: complete, repeatable, read by the real readers, solvable by thinking only."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmeb_baselines.bag_of_features import BagOfFeaturesEmbedder
from mmeb_tasks import EDITIONS, TASKS
from mmeb_tasks.mini import SUITE, SUITE_V3, make_suite_v3
from mmeb_tasks.mini.thoughts import by_code, by_gap, by_row, by_rules
from mmeb_tasks.mini.tones import BEATS, EVERY_TONE, HERTZ, RATE, Tone, play
from mmeb_tasks.mini.world import COLOURS, NUMBERS, SHAPES, random_thing

from mmeb_harness import Profile, Samples, Task
from mmeb_harness.core.registry import suite_of_edition
from mmeb_harness.data.folder import DataInfo, describe, load_samples
from tests.tasks.test_mini import digest

ADDED = EDITIONS["v3"][len(TASKS) :]
Labels = dict[str, dict[str, dict[str, str]]]


@pytest.fixture(scope="module")
def suite(mini_additions: Path, tmp_path_factory: pytest.TempPathFactory) -> DataInfo:
    """A copy: readers write sounds and pictures that stand in tables into it."""
    folder = tmp_path_factory.mktemp("v3") / "mini-v3"
    shutil.copytree(mini_additions, folder, copy_function=shutil.copyfile)
    return describe(folder)


@pytest.fixture(scope="module")
def samples(suite: DataInfo) -> dict[str, Samples]:
    return {task.name: load_samples(task, suite, Profile()) for task in ADDED}


@pytest.fixture(scope="module")
def labels(suite: DataInfo) -> Labels:
    found: Labels = {}
    for row in pq.read_table(suite.root / "query_labels.parquet").to_pylist():
        found.setdefault(row["task"], {})[row["query_id"]] = row
    return found


def test_it_is_the_suite_of_its_editions() -> None:
    assert [suite_of_edition(edition) for edition in ("v3", "v3-unfixed")] == [SUITE_V3, SUITE_V3]
    assert [suite_of_edition(edition) for edition in ("page-fixed", "v2.0.0")] == [SUITE, SUITE]
    assert suite_of_edition("") is None


def test_all_tasks_are_there(suite: DataInfo) -> None:
    assert len(ADDED) == 112
    assert suite.num_queries == dict.fromkeys([task.name for task in ADDED], 24)


@pytest.mark.parametrize("task", ADDED, ids=lambda task: task.name)
def test_every_task_is_read_with_labels_of_both_kinds(task: Task, samples: dict[str, Samples], labels: Labels) -> None:
    of_task, kinds = samples[task.name], Counter(label["difficulty"] for label in labels[task.name].values())
    assert {query.id for query in of_task.queries} == set(labels[task.name])
    assert kinds == {"easy": 12, "hard": 12}
    assert not of_task.incomplete
    assert all(path.is_file() for item in (*of_task.queries, *of_task.candidates) for path in item.media)
    assert all(label["rationale"] and label["answer"] for label in labels[task.name].values())


def test_the_same_seed_gives_the_same_bytes_and_other_seeds_others(tmp_path: Path) -> None:
    tasks = ("SoundDescs", "TUTSound", "text/BRIGHT/aops", "toolde/code/toolink", "GAE-GUIAct_q2t", "memory/REALTALK")
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        make_suite_v3(tmp_path / name, seed, tasks)
    first, second, other = (digest(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    same = {name for name in first if first[name] == other.get(name)}
    assert same <= {"memory-tasks/task_instructions.json", "audio-tasks/sounddescs-1k/eval/qrels-00000.parquet"}


def test_the_78_tasks_are_those_of_the_other_suite(mini: Path, tmp_path: Path) -> None:
    make_suite_v3(tmp_path / "v3", 0, ["OK-VQA", "text/BRIGHT/aops", "DiDeMo", "ViDoSeek-doc"])
    made = {name: sha256 for name, sha256 in digest(tmp_path / "v3").items() if name.count("/") > 1}
    shared = {name for name in made if not name.startswith("text-tasks")}
    assert len(shared) > 100
    assert all((mini / name).read_bytes() == (tmp_path / "v3" / name).read_bytes() for name in shared)


def test_the_pages_of_the_unfixed_edition_have_late_labels(tmp_path: Path) -> None:
    make_suite_v3(tmp_path / "v3", 0, ["ViDoSeek-page"])
    fixed, unfixed = (
        load_samples(task, describe(tmp_path / "v3"), Profile())
        for edition in ("v3", "v3-unfixed")
        for task in EDITIONS[edition]
        if task.name == "ViDoSeek-page"
    )
    assert fixed.queries == unfixed.queries
    for query, gains in fixed.gains.items():
        assert set(unfixed.gains[query]) == {str((int(page) + 1) % 64) for page in gains}


# --- thoughts: whoever reads them finds the thing ---


def read_rules(text: str) -> str:
    words = text.split()
    rules, shape = dict(word.split(">") for word in words if ">" in word), words[1]
    for _ in range(NUMBERS.index(words[3])):
        shape = rules[shape]
    return f"{words[0]} {shape}"


def read_row(text: str) -> str:
    words = text.split()
    table = dict(word.split("=") for word in words if "=" in word)
    row = NUMBERS.index(words[7]) + NUMBERS.index(words[9].rstrip(":"))
    return f"{words[0]} {table[NUMBERS[row]]}"


def read_code(text: str) -> str:
    words = text.split()
    table = dict(word.split("=") for word in words if "=" in word)
    return f"{table[words[5]]} {words[0]}"


def read_gap(text: str) -> str:
    named = text.partition(": ")[2].split()
    return f"{next(colour for colour in COLOURS if colour not in named)} {text.split()[0]}"


THOUGHTS = {by_rules: read_rules, by_row: read_row, by_code: read_code, by_gap: read_gap}


@pytest.mark.parametrize(("thought", "read"), THOUGHTS.items(), ids=lambda function: function.__name__)
def test_a_thought_leads_to_the_thing(
    thought: Callable[[np.random.Generator, object], tuple[str, str]], read: Callable[[str], str]
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        target = random_thing(rng)
        text, rationale = thought(rng, target)
        assert read(text) == target.words, text
        assert rationale.split()[-1] == SHAPES[target.shape]
        assert COLOURS[target.colour] in rationale


# --- what a bag of words can and can't do ---


def test_a_bag_of_words_finds_easy_answers_and_hard_ones_seldom(samples: dict[str, Samples], labels: Labels) -> None:
    embedder, found = BagOfFeaturesEmbedder(), {"easy": Counter[bool](), "hard": Counter[bool]()}
    for task in ADDED:
        if task.modality not in ("text", "tool", "memory") or task.group == "T-LONG":
            continue
        of_task = samples[task.name]
        candidates = embedder.encode(of_task.candidates, "candidate").vectors
        best = (embedder.encode(of_task.queries, "query").vectors @ candidates.T).argmax(axis=1)
        for query, place in zip(of_task.queries, best, strict=True):
            is_right = of_task.candidates[place].id in of_task.gains[query.id]
            found[labels[task.name][query.id]["difficulty"]][is_right] += 1
    assert found["easy"][True] > 0.8 * found["easy"].total()
    assert found["hard"][True] < 0.2 * found["hard"].total()


# --- screens and sounds ---


def test_trajectories_show_a_screen_a_step_and_end_where_they_lead(samples: dict[str, Samples]) -> None:
    for item in samples["GAE-Mind2Web_q2t"].candidates:
        clicks = len(re.findall("Action", item.text))
        assert len(item.images) == len(item.places) == clicks + 1
    for name in ("GAE-GUIAct_t2s", "GAE-GUIAct_s2s"):
        assert all(len(item.images) == 1 for item in samples[name].candidates)
    steps = Counter(len(query.images) for query in samples["GAE-GUIAct_t2s"].queries)
    assert steps == {1: 12, 2: 12}
    assert not any(query.images for query in samples["GAE-Mind2Web_q2s"].queries)


@pytest.mark.parametrize("tone", EVERY_TONE, ids=lambda tone: tone.words)
def test_a_tone_sounds_as_it_is_called(tone: Tone) -> None:
    sound = play(tone, np.random.default_rng(0))
    hertz = np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound)
    assert abs(hertz / HERTZ[tone.pitch] - 1) < 0.06
    moments = np.abs(sound).reshape(-1, 80).mean(axis=1) > 0.1
    beats = sum(later and not earlier for earlier, later in itertools.pairwise([False, *moments]))
    assert beats == max(1, BEATS[tone.rhythm])


def test_recordings_have_parts_to_find_and_others(samples: dict[str, Samples]) -> None:
    hard, plain = samples["TUTSound(hard)"], samples["TUTSound"]
    assert hard.pools is not None
    assert min(len(pool) for pool in hard.pools.values()) > 4
    assert {len(gains) for gains in hard.gains.values()} == {1}
    assert {len(gains) for gains in plain.gains.values()} == {1, 2}
