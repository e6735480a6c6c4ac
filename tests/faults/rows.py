"""Rows of annotation tables whose cells are something else than their readers take them for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.fault import Command, Fault, World

IMAGES = "annotations/ziyjiang/MMEB_Test_Instruct"
ARXIVQA = "annotations/vidore/arxivqa_test_subsampled_beir"
#: Task → the folder of its tables, and that of its media.
PARTS = {
    "DocVQA": (f"{IMAGES}/DocVQA", "image-tasks/DocVQA"),
    "EDIS": (f"{IMAGES}/EDIS", "image-tasks/EDIS"),
    "K700": ("annotations/VLM2Vec/Kinetics-700", "video-tasks/frames/video_cls/K700"),
    "SmthSmthV2": ("annotations/VLM2Vec/SmthSmthV2", "video-tasks/frames/video_cls/SSv2"),
    "NExTQA": ("annotations/VLM2Vec/NExTQA", "video-tasks/frames/video_qa/NExTQA"),
    "EgoSchema": ("annotations/VLM2Vec/EgoSchema", "video-tasks/frames/video_qa/EgoSchema"),
    "Video-MME": ("annotations/VLM2Vec/Video-MME", "video-tasks/frames/video_qa/Video-MME"),
    "ActivityNetQA": ("annotations/VLM2Vec/ActivityNetQA", "video-tasks/frames/video_qa/ActivityNetQA"),
    "MSVD": ("annotations/VLM2Vec/MSVD", "video-tasks/frames/video_ret/MSVD"),
    "MomentSeeker": ("annotations/VLM2Vec/MomentSeeker", "video-tasks/frames/video_mret/MomentSeeker"),
    "ViDoRe_arxivqa": (ARXIVQA,),
}
Change = Callable[[pa.Table], pa.Table]


def run_of(task: str, data: str, output: str) -> Command:
    """A run of one task on a data folder."""
    return ("mmeb-eval", "run", "--data", data, "--tasks", task, "--model", "random", "--output", output)


def tables(data: Path, config: str = "") -> Iterator[Path]:
    """The tables of a data folder, or those of one configuration."""
    return (path for path in sorted(data.glob("annotations/**/*.parquet")) if config in path.parts or not config)


def _changed(data: Path, config: str, change: Change) -> None:
    for path in tables(data, config):
        pq.write_table(change(pq.read_table(path)), path)


def _put(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def all_cells(name: str, value: Any) -> Change:
    """Every cell of a column is this value, and the column of its type."""
    return lambda table: _put(table, name, pa.array([value] * table.num_rows))


def one_cell(name: str, value: Any, row: int = 1) -> Change:
    """One cell of a column is another one."""

    def change(table: pa.Table) -> pa.Table:
        cells = table[name].to_pylist()
        cells[row] = value
        return _put(table, name, pa.array(cells))

    return change


def _null_entry(name: str) -> Change:
    def change(table: pa.Table) -> pa.Table:
        cells = table[name].to_pylist()
        cells[2][3] = None
        return _put(table, name, pa.array(cells))

    return change


def _stored_as(name: str, kind: pa.DataType) -> Change:
    return lambda table: _put(table, name, table[name].combine_chunks().cast(kind))


def _not_utf8(table: pa.Table) -> pa.Table:
    texts = pa.array([b"caf\xe9"] * table.num_rows, pa.binary())
    return _put(table, "qry_text", pa.Array.from_buffers(pa.string(), len(texts), texts.buffers()))


def _copied(world: World, task: str) -> Path:
    return world.copied("manifest.json", *PARTS[task])


def _refused(name: str, task: str, change: Change, *says: str, config: str = "") -> Fault:
    """A run on the changed rows says in one line the task, the file, what is wrong there, and the way out."""

    def make(world: World) -> Sequence[Command]:
        _changed(_copied(world, task), config, change)
        return [run_of(task, "data", "out")]

    file = rf"{task}: .*{config or 'annotations'}.*\.parquet"
    return Fault("rows", name, make, says=(file, *says, f"Look closer: mmeb-eval data check .* --tasks {task}"))


def _cell(name: str, task: str, change: Change, column: str, holds: str, config: str = "") -> Fault:
    return _refused(name, task, change, rf"row \d+, column '{column}' holds {holds}", config=config)


def equal_scores(task: str) -> Callable[[World], None]:
    """What two runs, `before` and `after`, measured is the same."""

    def holds(world: World) -> None:
        before, after = (_measured(world.folder / output, task) for output in ("before", "after"))
        assert before == after

    return holds


def _measured(output: Path, task: str) -> list[Any]:
    result = json.loads((output / "tasks" / f"{task}.json").read_text())
    return [result[field] for field in ("score", "metrics", "num_queries", "num_candidates", "notes")]


def _same(name: str, task: str, change: Change, config: str = "") -> Fault:
    """Rows stored in another way are the same rows."""

    def make(world: World) -> Sequence[Command]:
        _copied(world, task).rename(world.folder / "intact")
        _changed(_copied(world, task), config, change)
        return [run_of(task, "intact", "before"), run_of(task, "data", "after")]

    return Fault("rows", name, make, says=(task,), code=0, holds=equal_scores(task))


def _counted(name: str, task: str, change: Change, note: str, count: int) -> Fault:
    def make(world: World) -> Sequence[Command]:
        _changed(_copied(world, task), "", change)
        return [run_of(task, "data", "out")]

    def holds(world: World) -> None:
        assert json.loads((world.folder / "out/tasks" / f"{task}.json").read_text())["notes"][note] == count

    return Fault("rows", name, make, says=(task,), code=0, holds=holds)


def _file(name: str, change: Callable[[Path], object], *says: str) -> Fault:
    """Something else where DocVQA's table was."""

    def make(world: World) -> Sequence[Command]:
        (path,) = tables(_copied(world, "DocVQA"))
        path.unlink()
        change(path)
        return [run_of("DocVQA", "data", "out")]

    return Fault("rows", name, make, says)


def _loses_bytes(world: World) -> Sequence[Command]:
    (path,) = tables(_copied(world, "DocVQA"))
    path.write_bytes(path.read_bytes()[:-100])
    return [run_of("DocVQA", "data", "out")]


_PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_LARGE_LIST = pa.large_list(pa.large_string())

FAULTS: tuple[Fault, ...] = (
    _cell("instruction: null", "DocVQA", one_cell("qry_inst", None), "qry_inst", "null, expected text"),
    _cell("instructions: of type null", "DocVQA", all_cells("qry_inst", None), "qry_inst", "null, expected text"),
    _cell("text: a number", "DocVQA", all_cells("qry_text", 7), "qry_text", r"7 \(int64\), expected text or null"),
    _cell("text: a list", "DocVQA", all_cells("qry_text", ["a"]), "qry_text", r"\['a'\] \(list"),
    _cell("text: not UTF-8", "DocVQA", _not_utf8, "qry_text", "text that is not UTF-8"),
    _cell("path: a picture's bytes", "DocVQA", all_cells("qry_img_path", _PICTURE), "qry_img_path", "b'.*PNG"),
    _cell("path: a struct", "DocVQA", all_cells("qry_img_path", {"path": "a"}), "qry_img_path", "{'path': 'a'}"),
    _cell("candidates: null", "DocVQA", one_cell("tgt_text", None), "tgt_text", "null, expected a list of texts"),
    _cell("candidates: one null", "DocVQA", _null_entry("tgt_text"), "tgt_text", "null as entry 3, expected"),
    _cell("candidates: none", "DocVQA", one_cell("tgt_text", []), "tgt_text", r"\[\] .* \(at least 1\)"),
    _cell("candidates: text, no list", "DocVQA", all_cells("tgt_text", "yes"), "tgt_text", r"'yes' \(string\)"),
    _cell("candidates: numbers", "DocVQA", all_cells("tgt_text", [1]), "tgt_text", r"\[1\] \(list"),
    _cell("lists not parallel", "DocVQA", one_cell("tgt_img_path", [""]), "tgt_img_path", r".*must be parallel"),
    _cell("target instruction: null", "EDIS", one_cell("tgt_inst", None), "tgt_inst", "null, expected text"),
    _cell("label: a number", "K700", all_cells("pos_text", 3), "pos_text", r"3 \(int64\), expected text"),
    _cell("video id: blank", "K700", one_cell("video_id", " "), "video_id", "' ' .*expected an id"),
    _cell("video id: a fraction", "K700", all_cells("video_id", 0.5), "video_id", r"0.5 \(double\), expected an id"),
    _cell("answer: no candidate", "SmthSmthV2", one_cell("pos_text", "nope"), "pos_text", "'nope', .*its neg_text"),
    _cell("option: null", "NExTQA", one_cell("a3", None), "a3", "null, expected text"),
    _cell("answer: out of range", "NExTQA", all_cells("answer", 9), "answer", "9, expected the place of one of 5"),
    _cell("answer: negative", "EgoSchema", all_cells("answer", "-1"), "answer", "-1, expected the place"),
    _cell("answer: superscript", "EgoSchema", all_cells("answer", "²"), "answer", "'²' .*expected a whole number"),
    _cell("answer: empty letter", "Video-MME", all_cells("answer", ""), "answer", "'', expected the letter of one of"),
    _cell("answer: two letters", "Video-MME", all_cells("answer", "AB"), "answer", "'AB', expected the letter"),
    _cell("answer: maybe", "ActivityNetQA", one_cell("answer", "maybe"), "answer", "'maybe', expected 'yes' or 'no'"),
    _cell("captions: empty list", "MSVD", one_cell("caption", []), "caption", r"\[\] .*expected text or a list"),
    _cell("captions: a date", "MSVD", all_cells("caption", pa.scalar(0, pa.date32())), "caption", "datetime.date"),
    _cell(
        "clips: no path", "MomentSeeker", all_cells("positive_frames", [{"a": 1}]), "positive_frames", r"\[{'a': 1}\]"
    ),
    _cell("clips: texts", "MomentSeeker", all_cells("negative_frames", ["x"]), "negative_frames", r"\['x'\]"),
    _cell("score: a word", "ViDoRe_arxivqa", all_cells("score", "high"), "score", "'high' .*a number", config="qrels"),
    _cell("score: null", "ViDoRe_arxivqa", one_cell("score", None), "score", "null", config="qrels"),
    _cell("score: NaN", "ViDoRe_arxivqa", all_cells("score", float("nan")), "score", "nan", config="qrels"),
    _cell("score: true", "ViDoRe_arxivqa", all_cells("score", True), "score", "True", config="qrels"),
    _cell("page id: null", "ViDoRe_arxivqa", one_cell("corpus-id", None), "corpus-id", "null", config="corpus"),
    _cell(
        "page: numbers", "ViDoRe_arxivqa", all_cells("image", 5), "image", r"5 \(int64\), .*picture", config="corpus"
    ),
    _refused(
        "query ids alike",
        "ViDoRe_arxivqa",
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
        "it stands in the annotations twice",
        config="queries",
    ),
    _refused("a column gone", "DocVQA", lambda table: table.drop_columns(["tgt_text"]), "lack the column 'tgt_text'"),
    _refused(
        "a column twice",
        "DocVQA",
        lambda table: table.append_column("qry_text", table["qry_text"]),
        "have twice the column 'qry_text'",
    ),
    _file(
        "no rows", lambda path: pq.write_table(pa.table({"a": [1]}).slice(0, 0), path), "lack the column", "data check"
    ),
    _file("a pipe", os.mkfifo, r"test\.parquet", "named pipe", "mend it, or get it again"),
    _file("a folder", Path.mkdir, r"test\.parquet", "data check|mend it"),
    _file("a link to nowhere", lambda path: path.symlink_to("gone"), "are missing|can't read", "get it again|data get"),
    Fault("rows", "cut", _loses_bytes, (r"DocVQA: .*test\.parquet can't be read", "data check")),
    _same("large text", "DocVQA", _stored_as("qry_text", pa.large_string())),
    _same("text in a dictionary", "DocVQA", _stored_as("qry_inst", pa.dictionary(pa.int32(), pa.string()))),
    _same("text as bytes", "DocVQA", _stored_as("qry_img_path", pa.binary())),
    _same("large lists", "DocVQA", _stored_as("tgt_text", _LARGE_LIST)),
    _same(
        "further columns", "DocVQA", lambda table: table.append_column("more", pa.array([{"a": 1}] * table.num_rows))
    ),
    _same("scores as text", "ViDoRe_arxivqa", _stored_as("score", pa.string()), config="qrels"),
    _same("pages as bare bytes", "ViDoRe_arxivqa", lambda table: _bare(table), config="corpus"),
    _same("answers as text", "NExTQA", _stored_as("answer", pa.string())),
    _counted("a label that is no class", "K700", one_cell("pos_text", "juggling axes"), "labels that are no class", 1),
    _counted("a row without its picture", "DocVQA", one_cell("qry_img_path", None), "rows without media", 1),
    _counted("a blank caption", "MSVD", one_cell("caption", [" "]), "queries of nothing but their instruction", 1),
)


def _bare(table: pa.Table) -> pa.Table:
    return _put(table, "image", pa.array([image["bytes"] for image in table["image"].to_pylist()], pa.binary()))
