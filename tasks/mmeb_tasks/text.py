"""The 53 text tasks of MMEB-V3, as rows. Names, groups and files: the benchmark's own (see README.md here)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

from mmeb_harness import Frames, Samples, Task
from mmeb_tasks.bundle import bundle_archive, bundle_task
from mmeb_tasks.hub import by_name, place_paths

Family = Literal["BRIGHT", "FollowIR", "InfoSearch", "LongEmbed", "MultiConIR", "NanoBEIR", "R2MED"]

ROOT = "text-tasks"
#: Of families whose folder is not called like them.
FOLDERS = {"MultiConIR": "MultiConIR_v2"}
#: The column whose instruction comes before a query, of families that have one.
INSTRUCTIONS = {"FollowIR": "instruction_og", "InfoSearch": "instruction_changed"}


class TextRow(NamedTuple):
    """One text task. The counts are those of the same public data set: the benchmark's own copy states none."""

    family: Family
    subset: str
    group: str
    num_queries: int | None
    num_candidates: int | None

    @property
    def name(self) -> str:
        """As in the official configuration."""
        return f"text/{self.family}/{self.subset}"


# fmt: off
ROWS = (
    TextRow("BRIGHT", "aops", "T-REASON", 111, 188002),
    TextRow("BRIGHT", "biology", "T-REASON", 103, 57359),
    TextRow("BRIGHT", "earth_science", "T-REASON", 116, 121249),
    TextRow("BRIGHT", "economics", "T-REASON", 103, 50220),
    TextRow("BRIGHT", "leetcode", "T-REASON", 142, 413932),
    TextRow("BRIGHT", "pony", "T-REASON", 112, 7894),
    TextRow("BRIGHT", "psychology", "T-REASON", 101, 52835),
    TextRow("BRIGHT", "robotics", "T-REASON", 101, 61961),
    TextRow("BRIGHT", "stackoverflow", "T-REASON", 117, 107081),
    TextRow("BRIGHT", "sustainable_living", "T-REASON", 108, 60792),
    TextRow("BRIGHT", "theoremqa_questions", "T-REASON", 204, 188003),
    TextRow("BRIGHT", "theoremqa_theorems", "T-REASON", 65, 23839),
    TextRow("FollowIR", "core17-instructions", "T-INST", 20, 19899),
    TextRow("FollowIR", "news21-instructions", "T-INST", 32, 30921),
    TextRow("FollowIR", "robust04-instructions", "T-INST", 52, 47492),
    TextRow("InfoSearch", "Audience-v1", "T-INST", None, None),
    TextRow("InfoSearch", "Clarity-v1", "T-INST", None, None),
    TextRow("InfoSearch", "Format-v1", "T-INST", None, None),
    TextRow("InfoSearch", "Language-v1", "T-INST", None, None),
    TextRow("InfoSearch", "Length-v1", "T-INST", None, None),
    TextRow("InfoSearch", "Source-v1", "T-INST", None, None),
    TextRow("LongEmbed", "2wikimqa", "T-LONG", 300, 300),
    TextRow("LongEmbed", "narrativeqa", "T-LONG", 10449, 355),
    TextRow("LongEmbed", "needle", "T-LONG", None, None),
    TextRow("LongEmbed", "passkey", "T-LONG", None, None),
    TextRow("LongEmbed", "qmsum", "T-LONG", 1527, 197),
    TextRow("LongEmbed", "summ_screen_fd", "T-LONG", 336, 336),
    TextRow("MultiConIR", "Books", "T-MULTI", None, None),
    TextRow("MultiConIR", "Legal Document", "T-MULTI", None, None),
    TextRow("MultiConIR", "Medical Case", "T-MULTI", None, None),
    TextRow("MultiConIR", "Movies", "T-MULTI", None, None),
    TextRow("MultiConIR", "People", "T-MULTI", None, None),
    TextRow("NanoBEIR", "NanoArguAna", "T-GENERAL", 50, 3635),
    TextRow("NanoBEIR", "NanoClimateFEVER", "T-GENERAL", 50, 3408),
    TextRow("NanoBEIR", "NanoDBPedia", "T-GENERAL", 50, 6045),
    TextRow("NanoBEIR", "NanoFEVER", "T-GENERAL", 50, 4996),
    TextRow("NanoBEIR", "NanoFiQA2018", "T-GENERAL", 50, 4598),
    TextRow("NanoBEIR", "NanoHotpotQA", "T-GENERAL", 50, 5090),
    TextRow("NanoBEIR", "NanoMSMARCO", "T-GENERAL", 50, 5043),
    TextRow("NanoBEIR", "NanoNFCorpus", "T-GENERAL", 50, 2953),
    TextRow("NanoBEIR", "NanoNQ", "T-GENERAL", 50, 5035),
    TextRow("NanoBEIR", "NanoQuoraRetrieval", "T-GENERAL", 50, 5046),
    TextRow("NanoBEIR", "NanoSCIDOCS", "T-GENERAL", 50, 2210),
    TextRow("NanoBEIR", "NanoSciFact", "T-GENERAL", 50, 2919),
    TextRow("NanoBEIR", "NanoTouche2020", "T-GENERAL", 49, 5745),
    TextRow("R2MED", "Bioinformatics", "T-REASON", 77, 47473),
    TextRow("R2MED", "Biology", "T-REASON", 103, 57359),
    TextRow("R2MED", "IIYi-Clinical", "T-REASON", 129, 10449),
    TextRow("R2MED", "MedQA-Diag", "T-REASON", 118, 56250),
    TextRow("R2MED", "MedXpertQA-Exam", "T-REASON", 97, 61379),
    TextRow("R2MED", "Medical-Sciences", "T-REASON", 88, 34810),
    TextRow("R2MED", "PMC-Clinical", "T-REASON", 114, 60406),
    TextRow("R2MED", "PMC-Treatment", "T-REASON", 150, 28954),
)
# fmt: on


class TextFiles(NamedTuple):
    """Where a task's rows lie, below the data folder; `qrels` is `None` where the queries hold the labels."""

    queries: str
    corpus: str
    qrels: str | None


def files_of(row: TextRow) -> TextFiles:
    """The files of a task."""
    folder = f"{ROOT}/{FOLDERS.get(row.family, row.family)}"
    match row.family:
        case "BRIGHT":
            shard = f"{row.subset}-00000-of-00001.parquet"
            return TextFiles(f"{folder}/examples/{shard}", f"{folder}/documents/{shard}", None)
        case "NanoBEIR":
            tables = (f"{folder}/{row.subset}/{part}/train-00000-of-00001.parquet" for part in TextFiles._fields)
            return TextFiles(*tables)
    inside = f"{folder}/{row.subset}"
    queries = f"{inside}/{'query' if row.family == 'R2MED' else 'queries'}.jsonl"
    qrels = f"{inside}/qrels_og/test.jsonl" if row.family in INSTRUCTIONS else f"{inside}/qrels.jsonl"
    return TextFiles(queries, f"{inside}/corpus.jsonl", qrels)


def _read(row: TextRow, data: Path, frames: Frames) -> Samples:
    """The reader is imported by the row that is read."""
    from mmeb_tasks.readers.corpus import read_text_task

    return read_text_task(row, files_of(row), data)


def _task(row: TextRow, edition: str) -> Task:
    files = tuple(file for file in files_of(row) if file is not None)
    names = frozenset(file.removeprefix(f"{ROOT}/") for file in files)
    return bundle_task(
        row.name,
        edition,
        modality="text",
        group=row.group,
        metric="ndcg_linear@5",
        read=functools.partial(_read, row),
        annotations=files,
        sources=(bundle_archive("text_tasks", by_name(place_paths(ROOT, names))),),
        likely_queries=row.num_queries,
        num_candidates=row.num_candidates,
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The text tasks; their rows are the same in every edition that has them."""
    return tuple(_task(row, edition) for row in ROWS)
