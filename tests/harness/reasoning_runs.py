"""Three runs of one model that differ only in when it reasons, made of a real run on the mini suite.

What the page is held against is computed here from plain rows, not by the page's own code.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmeb_harness.core.files import read_parquet, write_parquet
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from tests.harness.made_runs import mini_run, save_all

NAMES = ("OK-VQA", "MVBench", "ViDoSeek-doc")
MODES = ("never", "always", "adaptive")

Row = dict[str, Any]


def three_modes(cache: Path, folder: Path) -> list[Path]:
    """Reasoning helps every fourth query, from the first one on, and hurts every fourth one from the second on."""
    mini_run(cache, folder / "real", NAMES)
    return [remade(folder / "real", folder / f"toy-{mode}", mode) for mode in MODES]


def remade(real: Path, output: Path, mode: str, change: Callable[[str, list[Row]], None] | None = None) -> Path:
    """A copy of a run in another reasoning mode, as if the model had reasoned; `change` edits a task's rows."""
    run, results = read_run(real)
    shutil.copytree(real, output)
    files = RunFolder(output)
    changed = []
    for result in results:
        table = read_parquet(files.queries_file(result.name))
        rows = table.to_pylist()
        for number, row in enumerate(rows):
            reason(row, number, mode)
        if change is not None:
            change(result.name, rows)
        write_parquet(files.queries_file(result.name), pa.Table.from_pylist(rows, table.schema))
        score = float(np.mean([row["score"] for row in rows]))
        changed.append(dataclasses.replace(result, score=score, metrics={**result.metrics, result.metric: score}))
    settings = {**run.model_settings, "reasoning": mode}
    save_all(files, dataclasses.replace(run, name=output.name, model_settings=settings), changed)
    return output


def reason(row: Row, number: int, mode: str) -> None:
    """Queries 0, 4, 8 … are right only if it reasons, 1, 5, 9 … only if not; adaptive reasons on even ones."""
    reasons = mode == "always" or (mode == "adaptive" and number % 2 == 0)
    right = (reasons, not reasons, True, False)[number % 4]
    row["score"], row["first_relevant_rank"] = (1.0, 1) if right else (0.0, 7)
    row["path"], row["gate"] = ("reasoned", 0.875) if reasons else ("direct", 0.125)
    row["rationale"] = f"because of {row['query_id']}" if reasons else None
    row["reasoning_tokens"] = 5 * reasons
    row["truncated"] = reasons and number == 3
    row["tied_decisions"] = int(number == 2)
