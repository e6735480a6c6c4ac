"""`kind: pairs`: pairs of one's own, each a line of JSON or a row of parquet. How: docs/training.md.

    {"query": "a cat on a mat", "positive": {"image": "pictures/cat.jpg"}}
    {"query": {"text": "What is it made of?", "image": "bridge.png", "instruction": "Answer the question."},
     "positive": "steel", "negatives": ["stone"], "rationales": {"query": "The bridge has rivets …"}, "id": "q17"}

The whole file is read when it is opened, and every picture: what is wrong shows before any work.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmeb_harness import ITEM_FIELDS, PICTURE_SUFFIXES, opened_picture, stated_item
from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.media import MediaFolder, answer_key, spread
from mmemb_r1_model.data.pairs import SIDES, Item, Pair, PairSet, Side, content_key
from mmemb_r1_model.data.rows import open_parquet, row_at_place, scan_json
from mmemb_r1_model.disk.errors import DataError, HarnessError, UnknownNameError
from mmemb_r1_model.disk.files import PlacedBytes
from mmemb_r1_model.disk.hashing import hash64
from mmemb_r1_model.disk.jsonl import Row, row_at, shown_value, text_at

FORMATS = (".jsonl", ".ndjson", ".json", ".parquet")
REQUIRED = ("query", "positive")
FIELDS = (*REQUIRED, "negatives", "rationales", "id")
#: Of so many bytes of pictures the pixels are read as well when a file is opened; of further ones in training alone.
DECODED_BYTES = 1 << 30
WAY_OUT = "mend it, or leave it out"
_EXAMPLE = '{"query": "a cat on a mat", "positive": {"image": "cat.jpg"}}'


@dataclass(frozen=True)
class OwnPairs:
    """Pairs of a file, each read and made when it is asked for.

    Attributes:
        row_of, pair_of: a number → a row of the file; a row and its number → its pair. Can be pickled: loader
            processes may be spawned.
        queries: a hash of each row's query.
        repeated: those of several rows. Their positives are right for each other's queries.
        reasoned: how many have rationales of their own.
        content: a hash of the rows, and of the size of each picture.
    """

    name: str
    row_of: Callable[[int], Row]
    pair_of: Callable[[Row, int], Pair]
    queries: NDArray[np.uint64]
    repeated: frozenset[int]
    reasoned: int
    content: str
    distractors: Sequence[Item] = ()
    _right: dict[int, frozenset[str]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Pair:
        pair, query = self.pair_of(self.row_of(index), index), int(self.queries[index])
        if query not in self.repeated:
            return pair
        if query not in self._right:
            places = np.flatnonzero(self.queries == self.queries[index]).tolist()
            same = (self.pair_of(self.row_of(place), place) for place in places)
            self._right[query] = frozenset(content_key(other.positive) for other in same)
        return dataclasses.replace(pair, relevant=self._right[query])


def open_pairs(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    """The pairs of a file.

    Raises:
        DataError: anything in it that can't be trained on, by line or row.
    """
    path = root / config.path
    if path.suffix not in FORMATS or not path.is_file():
        why = "is no file" if path.suffix in FORMATS else f"ends in none of {', '.join(FORMATS)}"
        raise DataError(f"{path} {why}; name a file of pairs, each line like {_EXAMPLE}")
    media = root / config.media if config.media else path.parent
    way_out = f"put it there, or name the folder that paths start from: media (now {media})"
    pair_of = partial(_pair, config.name or path.stem, MediaFolder(media, way_out), config.frames)
    row_of, rows = (_parquet if path.suffix == ".parquet" else _json)(path, config.limit)
    queries, reasoned, content = _checked(rows, pair_of)
    if not queries:
        raise DataError(f"{path} holds no pairs; write a line for each, like {_EXAMPLE}")
    hashes, counts = np.unique(np.array(queries, np.uint64), return_counts=True)
    repeated = frozenset(hashes[counts > 1].tolist())
    hashed = np.array(queries, np.uint64)
    return [OwnPairs(config.name or path.stem, row_of, pair_of, hashed, repeated, reasoned, content)]


PAIRS = PairKind(open_pairs, ("media",))

#: What a row is called in messages, and the row.
_Rows = Iterator[tuple[Callable[[], str], Row]]


def _json(path: Path, limit: int | None) -> tuple[Callable[[int], Row], _Rows]:
    file, places = PlacedBytes(path), list[tuple[int, int]]()

    def rows() -> _Rows:
        for number, (start, length, row) in enumerate(islice(scan_json(path, WAY_OUT), limit)):
            places.append((start, length))
            yield partial(_named, path, start, number), row

    return partial(_row_at, file, places), rows()


def _row_at(file: PlacedBytes, places: Sequence[tuple[int, int]], number: int) -> Row:
    return row_at_place(file, *places[number], number)


def _named(path: Path, start: int, number: int) -> str:
    """A row by its line, as an editor counts them; one of an array by its number."""
    with path.open("rb") as file:
        before = file.read(start)
    is_array = before.lstrip()[:1] == b"["
    return f"{path}, row {number}" if is_array else f"{path}, line {before.count(bytes([10])) + 1}"


def _parquet(path: Path, limit: int | None) -> tuple[Callable[[int], Row], _Rows]:
    with open_parquet(path, REQUIRED, WAY_OUT) as file:
        table = file.read(use_threads=False).slice(0, limit)
    row_of = partial(_table_row, table)
    return row_of, ((partial(str.format, "{}, row {}", path, place), row_of(place)) for place in range(len(table)))


def _table_row(table: pa.Table, number: int) -> Row:
    try:
        row: Row = table.slice(number, 1).to_pylist()[0]
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"row {number} can't be read: {error}") from error
    return row


def _checked(rows: _Rows, pair_of: Callable[[Row, int], Pair]) -> tuple[list[int], int, str]:
    """A hash of each row's query, how many rows have rationales, and a hash of everything.

    Raises:
        DataError: a row that is no pair, an id that is there twice, a picture that can't be opened; named.
    """
    queries, ids, reasoned, pictures = list[int](), dict[str, Callable[[], str]](), 0, _Pictures()
    content = hashlib.sha256()
    for number, (named, row) in enumerate(rows):
        try:
            pair = pair_of(row, number)
            if pair.id in ids:
                raise DataError(f"the id {pair.id!r} is there twice, first in {ids[pair.id]()}")
            for item in (pair.query, pair.positive, *pair.negatives):
                content.update(str(pictures.check(item.media)).encode())
        except UnknownNameError as error:
            raise DataError(f"{named()}: {error}") from error
        except HarnessError as error:
            raise DataError(f"{named()}: {error}; {WAY_OUT}") from error
        ids[pair.id] = named
        content.update(json.dumps(row, sort_keys=True, default=str).encode())
        queries.append(hash64(content_key(pair.query)))
        reasoned += bool(pair.rationales)
    return queries, reasoned, content.hexdigest()[:16]


class _Pictures:
    """Opens each picture once."""

    def __init__(self) -> None:
        self._seen = set[int]()
        self._bytes = 0

    def check(self, paths: Sequence[Path]) -> list[int]:
        """Open those that weren't yet; their sizes in bytes."""
        sizes = []
        for path in paths:
            if (key := hash64(str(path))) not in self._seen:
                self._seen.add(key)
                sizes.append(path.stat().st_size)
                self._bytes += sizes[-1]
                with opened_picture(path) as picture:
                    if self._bytes <= DECODED_BYTES:
                        picture.load()
        return sizes


def _pair(name: str, media: MediaFolder, most_frames: int, row: Row, number: int) -> Pair:
    _check_fields(row, FIELDS, "a pair")
    stored = row.get("id")
    own = str(number if stored is None else stored)
    if not isinstance(stored, str | int | None) or isinstance(stored, bool) or not own.strip():
        raise DataError(f"'id' holds {shown_value(stored)}, expected a text or a whole number")
    item = partial(_item, media, most_frames)
    query, positive = (item(f"{own}/{side}", side, row.get(side)) for side in SIDES)
    wrong = row.get("negatives")
    if not isinstance(wrong, list | None):
        raise DataError(f"'negatives' holds {shown_value(wrong)}, expected a list")
    told = row_at(row, "rationales")
    _check_fields(told, SIDES, "rationales")
    rationales: dict[Side, str] = {side: text for side in SIDES if (text := text_at(told, side).strip())}
    return Pair(
        id=own,
        dataset=name,
        query=query,
        positive=positive,
        negatives=tuple(item(f"{own}/negative", f"negative {place}", value) for place, value in enumerate(wrong or ())),
        answer=answer_key(positive.text, [str(path) for path in positive.media]),
        rationales=rationales,
    )


def _item(media: MediaFolder, most_frames: int, own: str, what: str, value: object) -> Item:
    stored = {"text": value} if isinstance(value, str) else value
    if not isinstance(stored, dict):
        expected = "a text, or an object of text, image (or images) or frames, instruction"
        raise DataError(
            f"it lacks the {what}" if value is None else f"the {what} is {shown_value(value)}, expected {expected}"
        )
    _check_fields(stored, ITEM_FIELDS, f"the {what}")
    try:
        said = stated_item(stored, _refuse)
        images = tuple(media.file(path) for path in said.images)
        if said.is_clip:
            shown = media.frames(said.frames[0], most_frames, PICTURE_SUFFIXES)
        else:
            shown = tuple(media.file(path) for path in spread(said.frames, most_frames))
    except DataError as error:
        raise DataError(f"the {what}: {error}") from error
    return Item(own, said.text, images, shown, said.instruction)


def _refuse(problem: str) -> None:
    raise DataError(problem)


def _check_fields(row: Mapping[str, object], known: Sequence[str], what: str) -> None:
    for name in row:
        if name not in known:
            raise UnknownNameError(f"field of {what}", str(name), known)
