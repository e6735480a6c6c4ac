"""Rationales that exist already: carried by the pairs, or written beside a synthetic suite's data."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

from mmemb_r1_model.data.pairs import SIDES
from mmemb_r1_model.data.suite import WORKER_RATIONALES
from mmemb_r1_model.disk.errors import DataError, UnknownNameError, one_line
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.text import clean, thoughts_in
from mmemb_r1_model.rationales.workers import Answer, Ask

_COLUMNS = ("task", "query_id", "side", "worker", "sample", "text")
_Key = tuple[str, str, str, int]  # data set, pair, side, sample


class CarriedWorker:
    """Gives what a pair itself carries, as its first and only sample."""

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """`None` for a pair side that carries nothing."""
        for ask in asks:
            yield None if ask.carried is None or ask.sample > 0 else _answer(ask.carried)


class TableWorker:
    """Gives the rows of one worker of a table."""

    def __init__(self, texts: Mapping[_Key, str]) -> None:
        self._texts = texts

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """`None` for what isn't in the table."""
        for ask in asks:
            text = self._texts.get((ask.dataset, ask.pair, ask.side, ask.sample))
            yield None if text is None else _answer(text)


def open_recorded(config: WorkerConfig, root: Path) -> CarriedWorker | TableWorker:
    """The pairs' own rationales (no `model`), or those of the folders' tables whose worker has this name.

    Raises:
        DataError: no table, or not its columns.
        UnknownNameError: the table has no such worker.
    """
    if not config.model:
        return CarriedWorker()
    texts: dict[_Key, str] = {}
    for folder in config.model.split(","):
        texts |= _read_table(root / folder.strip() / WORKER_RATIONALES, config.name)
    return TableWorker(texts)


def _read_table(path: Path, worker: str) -> dict[_Key, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"worker {worker!r}: {path} is missing; model must name a folder that has recorded rationales")
    try:
        names = pq.read_schema(path).names
        if missing := [name for name in _COLUMNS if name not in names]:
            raise DataError(f"{path} has no column {missing[0]!r}; expected {', '.join(_COLUMNS)}")
        table = pq.read_table(path, columns=list(_COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} can't be read: {one_line(error)}") from error
    texts: dict[_Key, str] = {}
    workers: set[str] = set()
    for batch in table.to_batches():
        for row in batch.to_pylist():
            workers.add(row["worker"])
            if row["worker"] == worker:
                if row["side"] not in SIDES:
                    raise DataError(f"{path}: side {row['side']!r} is neither {' nor '.join(SIDES)}")
                texts[row["task"], row["query_id"], row["side"], int(row["sample"])] = row["text"]
    if not texts:
        raise UnknownNameError(f"worker in {path}", worker, workers)
    return texts


def _answer(text: str) -> Answer:
    """Whole texts, or thoughts between their markers."""
    thoughts = thoughts_in(text)
    if thoughts is None:
        return Answer(clean(text), None, None, "stop")
    return Answer(clean(thoughts.text), None, None, "stop" if thoughts.closed else "length")
