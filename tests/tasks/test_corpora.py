"""What the readers of texts, tools, screens, memories and products make of damaged or unusual folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS

from mmeb_harness import DataError, Frames, Samples
from tests.tasks.golden_v3 import CASES, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
Spoil = Callable[[Path], object]

QMSUM, NANO = "text/LongEmbed/qmsum", "text/NanoBEIR/NanoFiQA2018"
TOOLS, KNOWME, SCREENS = "toolde/web/apibank", "memory/KnowMeBench", "GAE-GUIAct_q2t"
LONG = "text-tasks/LongEmbed/qmsum"
NANO_CORPUS = "text-tasks/NanoBEIR/NanoFiQA2018/corpus/train-00000-of-00001.parquet"
TOOL_QUERIES = "tool-tasks/ToolDe-Queries/web/apibank/queries-00000-of-00001.parquet"
SCREENSHOTS = "gui-tasks/GUIAct"
POINTER = "version https://git-lfs.github.com/spec/v1"


def load(name: str, folder: Path, *spoil: Spoil) -> Samples:
    if not any(folder.iterdir()):
        write_files(CASES[name], folder)
    for spoil_it in spoil:
        spoil_it(folder)
    return BY_NAME[name].load(folder, Frames())


def lines(relative: str, *rows: Any) -> Spoil:
    """A file of these rows; one that is text stands there as it is."""
    written = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return lambda folder: (folder / relative).write_text(written)


def added(relative: str, *rows: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        with (folder / relative).open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    return spoil


def column(relative: str, name: str, values: Callable[[int], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        table = pq.read_table(folder / relative)
        place = table.column_names.index(name)
        pq.write_table(table.set_column(place, name, pa.array(values(len(table)))), folder / relative)

    return spoil


def gone(relative: str) -> Spoil:
    return lambda folder: (
        shutil.rmtree(folder / relative) if (folder / relative).is_dir() else (folder / relative).unlink()
    )


def moved(relative: str, target: str) -> Spoil:
    return lambda folder: (folder / relative).rename(folder / target)


BAD_INPUT: dict[str, tuple[str, Spoil, str]] = {
    "no folder at all": (QMSUM, gone("text-tasks"), r"queries.jsonl is missing|qrels.jsonl is missing"),
    "no corpus": (NANO, gone(NANO_CORPUS), "corpus/train-00000-of-00001.parquet is missing"),
    "a line cut off": (
        QMSUM,
        lines(f"{LONG}/corpus.jsonl", '{"_id": "a0", "te'),
        "line 1 is not one whole JSON object",
    ),
    "a pointer of git-lfs": (
        QMSUM,
        lines(f"{LONG}/corpus.jsonl", POINTER),
        r"corpus.jsonl is a pointer of git-lfs; get",
    ),
    "a table's pointer": (NANO, lines(NANO_CORPUS, POINTER), "parquet is a pointer of git-lfs; get"),
    "ids of another kind": (
        NANO,
        column(NANO_CORPUS, "_id", lambda rows: range(700, 700 + rows)),
        r"no label is one of the 14 candidates \(labels as 'doc11', candidates as '700'\); do their ids fit\? Look",
    ),
    "a line that is a list": (QMSUM, lines(f"{LONG}/corpus.jsonl", ["a0"]), "line 1 is not one whole JSON object"),
    "no UTF-8": (
        QMSUM,
        lambda folder: (folder / LONG / "corpus.jsonl").write_bytes(b'{"_id": "\xff"}\n'),
        "corpus.jsonl is not text in UTF-8",
    ),
    "a table that is none": (NANO, lines(NANO_CORPUS, "x"), "can't be read"),
    "texts that are numbers": (
        NANO,
        column(NANO_CORPUS, "text", lambda n: list(range(1, n + 1))),
        r"row 0, field 'text' holds 1, expected text",
    ),
    "ids that are lists": (
        NANO,
        column(NANO_CORPUS, "_id", lambda n: [["a"]] * n),
        r"row 0, field '_id' holds \['a'\], expected an id",
    ),
    "no such column": (
        NANO,
        lambda folder: pq.write_table(pa.table({"x": [1]}), folder / NANO_CORPUS),
        r"has none of the columns _id, .* \(found: x\)",
    ),
    "half a character": (
        QMSUM,
        lines(f"{LONG}/corpus.jsonl", '{"_id": "a0", "text": "\\ud83d"}'),
        "expected text without half characters",
    ),
    "documents without text": (QMSUM, lines(f"{LONG}/corpus.jsonl", {"_id": "a0", "text": ""}), "has no document with"),
    "no query": (QMSUM, lines(f"{LONG}/queries.jsonl", {"qid": "Q1"}), "no queries"),
    "an infinite grade": (
        QMSUM,
        lines(f"{LONG}/qrels.jsonl", '{"qid": "Q1", "doc_id": "a0", "score": Infinity}'),
        "qrels of query 'Q1' hold a score of inf",
    ),
    "tools without a label": (
        TOOLS,
        column(TOOL_QUERIES, "labels", lambda n: [""] * n),
        "has no label for any of the 9 queries",
    ),
    "a tool without an id": (
        TOOLS,
        column("tool-tasks/ToolDe-Candidates/web/tools-00000-of-00001.parquet", "id", lambda n: [None] * n),
        "field 'id' holds null, expected an id",
    ),
    "a memory without qrels": (
        "memory/PeerQA",
        gone("memory-tasks/Semantic/PeerQA/qrels.tsv"),
        "qrels of all 1 folders of queries below .* are missing",
    ),
    "a memory without a corpus": (
        KNOWME,
        gone("memory-tasks/Episodic/KnowMeBench/event_driven/corpus.jsonl"),
        "corpus of",
    ),
    "memories not in their folder": (
        KNOWME,
        moved("memory-tasks/Episodic/KnowMeBench", "memory-tasks/KnowMeBench"),
        r"are missing; what belongs in .*/Episodic/KnowMeBench lies in .*/memory-tasks/KnowMeBench: move it there",
    ),
    "half of the screenshots": (
        SCREENS,
        lambda folder: [(folder / SCREENSHOTS / "guiact" / f"{name}.png").unlink() for name in ("falcon_7", "basil_2")],
        r"guiact/falcon_7.png is missing \(and 1 more .*\); .*GUIAct holds 0 files and the folders guiact",
    ),
    "no screenshot": (SCREENS, gone(SCREENSHOTS), "guiact/falcon_7.png is missing"),
    "no table of screens": (SCREENS, gone("gui-tasks/GAE-GUIAct/corpus"), "corpus/q2t-.*parquet are missing"),
    "a screenshot elsewhere": (
        SCREENS,
        column("gui-tasks/GAE-GUIAct/queries/q2t-00000-of-00001.parquet", "qry_image_path", lambda n: ["../a.png"] * n),
        "annotation path .* leaves the data folder",
    ),
    "a product without picture": (
        "MCMR",
        added("image-tasks/MCMR/candidates.jsonl", {"candidate_id": "x"}),
        "a picture",
    ),
    "products without labels": (
        "MCMR",
        lines("image-tasks/MCMR/query.jsonl", {"qid": 1, "query": "q", "pos_ids": []}),
        "has no label for any of the 1 queries",
    ),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_is_one_line_with_the_task_and_the_way_out(case: str, tmp_path: Path) -> None:
    name, spoil, message = BAD_INPUT[case]
    with pytest.raises(DataError, match=message) as caught:
        load(name, tmp_path, spoil)
    task = re.escape(name)
    assert re.fullmatch(
        rf"{task}: .*: mmeb-eval data (get|check) --data .* --edition v3 --tasks {task}", str(caught.value)
    )


@pytest.mark.parametrize("target", ["flat", "deeper"])
def test_screenshots_are_found_with_and_without_the_folder_of_their_archive(target: str, tmp_path: Path) -> None:
    """Tables name `guiact/a.png`: one official script takes that folder away, another keeps it."""
    expected = [query.images for query in load(SCREENS, tmp_path).queries]
    root = tmp_path / SCREENSHOTS
    inner = root / "guiact"
    if target == "flat":
        for path in inner.iterdir():
            path.rename(root / path.name)
        inner.rmdir()
    else:
        (root / "again").mkdir()
        inner.rename(root / "again" / "guiact")
    found = [query.images for query in BY_NAME[SCREENS].load(tmp_path, Frames()).queries]
    assert [[path.name for path in images] for images in found] == [
        [path.name for path in images] for images in expected
    ]
    assert all(path.is_file() for images in found for path in images)


def test_pictures_stand_where_their_tokens_stood(tmp_path: Path) -> None:
    by_id = {item.id: item for item in load(SCREENS, tmp_path).candidates}
    token = "<|image_1|>"
    assert by_id["q2t-7"].places == (0, 0)
    assert by_id["q2t-3"].places == (0,)
    assert by_id["q2t-1"].places == ()  # two pictures, one token
    assert not any(token in item.text for item in by_id.values())
    assert by_id["q2t-1"].source.instruction.startswith(token)


def test_a_trajectory_keeps_every_step(tmp_path: Path) -> None:
    table = "gui-tasks/GAE-GUIAct/queries/q2t-00000-of-00001.parquet"
    text = "Observation 1: <|image_1|> Action 1: click\nObservation 2: <|image_1|> Action 2: wait"
    steps = "['guiact/amber_0.png', 'guiact/amber_0.png']"  # nothing has changed
    spoil = (column(table, "qry_text", lambda n: [text] * n), column(table, "qry_image_path", lambda n: [steps] * n))
    query = load(SCREENS, tmp_path, *spoil).queries[0]
    assert len(query.images) == 2
    assert [query.text[place:][:9] for place in query.places] == [" Action 1", " Action 2"]


def test_a_second_row_of_a_query_counts_with_the_same_labels(tmp_path: Path) -> None:
    samples = load(QMSUM, tmp_path, added(f"{LONG}/queries.jsonl", {"qid": "Q2", "query": "again"}))
    again = samples.queries[-1]
    assert again.id.startswith("Q2 (line ")
    assert samples.gains[again.id] == samples.gains["Q2"]
    assert samples.notes["repeated query ids"] == 1


def test_a_folder_of_queries_without_qrels_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = "memory-tasks/Episodic/KnowMeBench/flashback_intensive"
    samples = load(KNOWME, tmp_path, gone(f"{folder}/temporal_reasoning/qrels.tsv"))
    assert samples.notes["folders left out: queries without qrels"] == 1
    assert len(samples.queries) == 15


def test_a_tool_file_is_read_once_for_its_tasks_and_again_when_it_changed(tmp_path: Path) -> None:
    first, second = (load(TOOLS, tmp_path).candidates for _ in range(2))
    assert all(one is other for one, other in zip(first, second, strict=True))
    tools = "tool-tasks/ToolDe-Candidates/web/tools-00000-of-00001.parquet"
    changed = load(TOOLS, tmp_path, column(tools, "documentation", lambda n: ["changed"] * n))
    assert {tool.text for tool in changed.candidates} == {"changed"}


def test_a_zero_is_an_id_of_a_screen(tmp_path: Path) -> None:
    queries = "gui-tasks/GAE-GUIAct/queries/q2t-00000-of-00001.parquet"
    samples = load(SCREENS, tmp_path, column(queries, "pos_id", range))
    assert list(samples.gains.values())[:2] == [{"0": 1.0}, {"1": 1.0}]


def test_queries_that_lack_their_familys_instruction_are_counted(tmp_path: Path) -> None:
    name = "text/FollowIR/core17-instructions"
    queries = "text-tasks/FollowIR/core17-instructions/queries.jsonl"
    assert load(name, tmp_path).notes["queries without an instruction"] == 1
    rows = [json.loads(line) for line in (tmp_path / queries).read_text().splitlines() if line.strip()]
    bare = lines(queries, *({key: row[key] for key in row if key != "instruction_og"} for row in rows))
    samples = load(name, tmp_path, bare)
    assert samples.notes["queries without an instruction"] == len(samples.queries)
