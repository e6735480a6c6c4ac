"""The 47 agent tasks of MMEB-V3, as rows: 35 of tools, 8 of screens, 4 of memory. Names and files are official."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from mmeb_harness import Frames, Samples, Task
from mmeb_tasks.bundle import bundle_archive, bundle_files, bundle_task
from mmeb_tasks.hub import Place, by_name, place_below, place_paths, place_screens

TOOL_ROOT, SCREEN_ROOT, MEMORY_ROOT = "tool-tasks", "gui-tasks", "memory-tasks"
#: What is said before the queries of memory tasks.
INSTRUCTIONS = f"{MEMORY_ROOT}/task_instructions.json"
#: Files that memory tasks are made of, wherever they lie; lists of candidates, which some have, are not read.
MEMORY_FILES = r"(queries|query|qrels|corpus|documents|test)\.(jsonl|tsv|parquet)"

ToolCategory = Literal["web", "code", "customized"]
#: How many tools each has in the public data set that they come from.
NUM_TOOLS: Mapping[ToolCategory, int] = {"web": 36978, "code": 3794, "customized": 2443}
ScreenSet = Literal["GUIAct", "Mind2Web"]
ScreenSplit = Literal["q2t", "q2s", "s2s", "t2s"]


class ToolRow(NamedTuple):
    """One tool task: its queries, and the tools of its category."""

    category: ToolCategory
    subset: str

    @property
    def name(self) -> str:
        """As in the official configuration."""
        return f"toolde/{self.category}/{self.subset}"

    @property
    def queries(self) -> str:
        """The table of queries, below the data folder."""
        return f"{TOOL_ROOT}/ToolDe-Queries/{self.category}/{self.subset}/queries-00000-of-00001.parquet"

    @property
    def tools(self) -> str:
        """The table of all tools of the category, below the data folder."""
        return f"{TOOL_ROOT}/ToolDe-Candidates/{self.category}/tools-00000-of-00001.parquet"


class ScreenRow(NamedTuple):
    """One GUI task: goals, screens and trajectories of one set, in one direction."""

    screens: ScreenSet
    split: ScreenSplit

    @property
    def name(self) -> str:
        """As in the official configuration."""
        return f"GAE-{self.screens}_{self.split}"

    def table(self, part: Literal["queries", "corpus"]) -> str:
        """Glob pattern of a table's shards, below the data folder."""
        return f"{self.tables}/{part}/{self.split}-*.parquet"

    @property
    def tables(self) -> str:
        """Folder of the set's tables, below the data folder."""
        return f"{SCREEN_ROOT}/GAE-{self.screens}"

    @property
    def image_root(self) -> str:
        """Folder of the screenshots, below the data folder."""
        return f"{SCREEN_ROOT}/{self.screens}"


class MemoryRow(NamedTuple):
    """One memory task: all sub-tasks in one folder, over the union of their corpora. Counts: as of text tasks."""

    kind: Literal["Episodic", "Dialogue", "Semantic", "Procedural"]
    data_set: str
    num_queries: int
    num_candidates: int

    @property
    def name(self) -> str:
        """As in the official configuration."""
        return f"memory/{self.data_set}"

    @property
    def folder(self) -> str:
        """Of its files, below the data folder."""
        return f"{MEMORY_ROOT}/{self.kind}/{self.data_set}"


TOOL_ROWS = (
    ToolRow("web", "apibank"),
    ToolRow("web", "apigen"),
    ToolRow("web", "mnms"),
    ToolRow("web", "reversechain"),
    ToolRow("web", "rotbench"),
    ToolRow("web", "t-eval-dialog"),
    ToolRow("web", "t-eval-step"),
    ToolRow("web", "taskbench-daily"),
    ToolRow("web", "toolace"),
    ToolRow("web", "toolbench"),
    ToolRow("web", "toolemu"),
    ToolRow("web", "tooleyes"),
    ToolRow("web", "toollens"),
    ToolRow("web", "ultratool"),
    ToolRow("web", "autotools-food"),
    ToolRow("web", "autotools-music"),
    ToolRow("web", "autotools-weather"),
    ToolRow("web", "restgpt-spotify"),
    ToolRow("web", "restgpt-tmdb"),
    ToolRow("code", "craft-math-algebra"),
    ToolRow("code", "craft-tabmwp"),
    ToolRow("code", "craft-vqa"),
    ToolRow("code", "gorilla-huggingface"),
    ToolRow("code", "gorilla-pytorch"),
    ToolRow("code", "gorilla-tensor"),
    ToolRow("code", "toolink"),
    ToolRow("customized", "appbench"),
    ToolRow("customized", "gpt4tools"),
    ToolRow("customized", "gta"),
    ToolRow("customized", "taskbench-huggingface"),
    ToolRow("customized", "taskbench-multimedia"),
    ToolRow("customized", "metatool"),
    ToolRow("customized", "tool-be-honest"),
    ToolRow("customized", "toolalpaca"),
    ToolRow("customized", "toolbench-sam"),
)
SCREEN_ROWS = tuple(
    ScreenRow(screens, split) for screens in ("GUIAct", "Mind2Web") for split in ("q2t", "q2s", "s2s", "t2s")
)
MEMORY_ROWS = (
    MemoryRow("Episodic", "KnowMeBench", 2162, 27062),
    MemoryRow("Dialogue", "REALTALK", 679, 8944),
    MemoryRow("Semantic", "PeerQA", 136, 18593),
    MemoryRow("Procedural", "DeepPlanning", 120, 19839),
)


def _read_tools(row: ToolRow, data: Path, frames: Frames) -> Samples:
    """The reader is imported by the row that is read."""
    from mmeb_tasks.readers.tools import read_tool_task

    return read_tool_task(row.queries, row.tools, data)


def _read_screens(row: ScreenRow, data: Path, frames: Frames) -> Samples:
    from mmeb_tasks.readers.screens import read_screen_task

    return read_screen_task(row.table("queries"), row.table("corpus"), row.image_root, data)


def _read_memory(row: MemoryRow, data: Path, frames: Frames) -> Samples:
    from mmeb_tasks.readers.memory import read_memory_task

    return read_memory_task(row.folder, row.data_set, INSTRUCTIONS, data)


def _tool_task(row: ToolRow, edition: str) -> Task:
    tables = (row.queries, row.tools)
    names = frozenset(table.removeprefix(f"{TOOL_ROOT}/") for table in tables)
    return bundle_task(
        row.name,
        edition,
        modality="tool",
        group="A-TOOL",
        metric="hit@1",
        read=functools.partial(_read_tools, row),
        annotations=tables,
        num_candidates=NUM_TOOLS[row.category],
        sources=(bundle_archive("tool_tasks", by_name(place_paths(TOOL_ROOT, names))),),
    )


def _place_screens(row: ScreenRow, data: Path) -> Place:
    """The reader is imported by the row that is placed."""
    from mmeb_tasks.readers.screens import referenced_screens

    named = referenced_screens(row.table("queries"), row.table("corpus"), data)
    return place_screens(row.image_root, named)


def _screen_task(row: ScreenRow, edition: str) -> Task:
    return bundle_task(
        row.name,
        edition,
        modality="gui",
        group="A-GUI",
        metric="hit@1",
        read=functools.partial(_read_screens, row),
        annotations=(row.table("queries"), row.table("corpus")),
        sources=(
            bundle_files(f"gui_tasks/GAE-{row.screens}", rf"(queries|corpus)/{row.split}-.*\.parquet", row.tables),
            bundle_archive(row.screens, functools.partial(_place_screens, row), by_tables=True),
        ),
        media=("image",),
    )


def _memory_place(row: MemoryRow, member: str) -> str | None:
    """The archive has the data sets side by side; the benchmark's configuration has them by kind."""
    name = PurePosixPath(member).name
    if name == PurePosixPath(INSTRUCTIONS).name:
        return INSTRUCTIONS
    return place_below(row.folder, member) if re.fullmatch(MEMORY_FILES, name) else None


def _memory_task(row: MemoryRow, edition: str) -> Task:
    return bundle_task(
        row.name,
        edition,
        modality="memory",
        group="A-MEM",
        metric="hit@1",
        read=functools.partial(_read_memory, row),
        annotations=(
            *(f"{row.folder}/**/*.{suffix}" for suffix in ("jsonl", "tsv", "parquet")),
            INSTRUCTIONS,
        ),
        sources=(bundle_archive("memory-tasks", by_name(functools.partial(_memory_place, row)), folder=row.folder),),
        likely_queries=row.num_queries,
        num_candidates=row.num_candidates,
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The agent tasks; their rows are the same in every edition that has them."""
    return (
        *(_tool_task(row, edition) for row in TOOL_ROWS),
        *(_screen_task(row, edition) for row in SCREEN_ROWS),
        *(_memory_task(row, edition) for row in MEMORY_ROWS),
    )
