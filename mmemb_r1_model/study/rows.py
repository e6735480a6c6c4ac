"""What the harness wrote for one checkpoint in three modes, beside what the world knows of each query: one row a query.

Columns: task, query_id, difficulty, kind, hops, table, blur; never, always, adaptive (the task's main metric);
reasoned (0 or 1), gate, tokens_always, tokens_adaptive, closed_always, closed_adaptive (0 or 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmemb_r1_model.data.suite import QUERY_LABELS
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.study.plan import MODES

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
    found = labels
    for mode in MODES:
        found = found.merge(_read_mode(results / mode, task, mode), on="query_id", how="outer", validate="1:1")
    if found.isna().any(axis=None):
        raise DataError(f"{results}: the queries of {task} are not those of the split; run the study again")
    return found


def _read_mode(run: Path, task: str, mode: str) -> pd.DataFrame:
    import pandas as pd

    path = run / "queries" / f"{task}.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing: `mmemb-r1 study run` hasn't come that far")
    read = pd.read_parquet(path, columns=["query_id", "score", "path", "gate", "reasoning_tokens", "truncated"])
    columns = {"query_id": read.query_id, mode: read.score}
    if mode != "never":
        columns |= {f"tokens_{mode}": read.reasoning_tokens, f"closed_{mode}": read.truncated.astype(float)}
    if mode == "adaptive":
        columns |= {"reasoned": (read.path == "reasoned").astype(float), "gate": read.gate}
    return pd.DataFrame(columns)
