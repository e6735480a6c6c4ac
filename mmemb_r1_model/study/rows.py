"""What the harness wrote for one checkpoint in three modes, beside what the world knows of each query: one row a query.

Columns: task, query_id, difficulty, kind, hops, table, blur; gate (of the adaptive run); and of each mode its name (the
task's main metric), `reasoned_MODE` (0 or 1) and `tokens_MODE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.stats.policies import MODES, Mode
from mmemb_r1_model.data.suite import QUERY_LABELS
from mmemb_r1_model.disk.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_LABELS = ["task", "query_id", "difficulty", "kind", "hops", "table", "blur"]


def read_checkpoint(results: Path, data: Path, tasks: Sequence[str]) -> pd.DataFrame:
    """All queries of all tasks.

    Args:
        results: a folder with a run in each of the three modes.

    Raises:
        DataError: a run or task is missing, or holds other queries than the split.
    """
    import pandas as pd

    labels = pd.read_parquet(data / QUERY_LABELS, columns=_LABELS)
    return pd.concat([_read_task(results, task, labels[labels.task == task]) for task in tasks], ignore_index=True)


def _read_task(results: Path, task: str, labels: pd.DataFrame) -> pd.DataFrame:
    rows = labels
    for mode in MODES:
        rows = rows.merge(_read_mode(results / mode, task, mode), on="query_id", how="outer", validate="1:1")
    if rows.isna().any(axis=None):
        raise DataError(f"{results}: the queries of {task} are not those of the split; run the study again")
    return rows


def _read_mode(run: Path, task: str, mode: Mode) -> pd.DataFrame:
    import pandas as pd

    path = run / "queries" / f"{task}.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing: `mmemb-r1 study run` hasn't come that far")
    read = pd.read_parquet(path, columns=["query_id", "score", "path", "gate", "reasoning_tokens"])
    columns = {
        "query_id": read.query_id,
        mode: read.score,
        f"reasoned_{mode}": (read.path == "reasoned").astype(float),
        f"tokens_{mode}": read.reasoning_tokens,
    }
    return pd.DataFrame(columns | ({"gate": read.gate} if mode == "adaptive" else {}))
