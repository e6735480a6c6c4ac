"""Vectors on disk, named by what went into them, so that a killed run goes on in the middle of a task.

A store is a folder of chunks (see `chunk_files`), each written whole and mapped into memory to be read. A key hashes an
item's words, the bytes of its media and its role; the folder itself is named by the model's fingerprint. Whatever is
embedded twice, in one task or in two, in one run or in two, is found here the second time. Where settings bear on
queries alone, candidates have a folder of their own, named by the others: models that agree in these have it in common.

Several processes may add to one folder: a chunk is whole or absent, and its name is nobody else's. What two of them
encoded alike is there twice; of equal keys the latest chunk's counts. A process holds the folder while it uses it, so
that nothing is pruned under its hands.

The store mends itself: what is read back is verified, each chunk once, by threads beside other work; what is broken is
said, set aside, and as if it had never been there.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import (
    SHARED,
    STATE,
    AnyVectors,
    Encoded,
    ModelInfo,
    TokenVectors,
    Trace,
    shared_column,
    state_column,
    trace_columns,
)
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import check_writable, fingerprint
from mmeb_harness.core.items import Item, Role, Samples, Similarity, Vectors
from mmeb_harness.core.sealed import BrokenFileError, listed, set_aside
from mmeb_harness.core.threads import in_background
from mmeb_harness.store.chunk_files import (
    LEFT_OUT,
    chunk_files,
    chunk_name,
    flat_vectors,
    keys_of,
    map_chunk,
    share,
    states_of,
    sweep,
    vector_offsets,
    verify_chunk,
    write_chunk,
    written_ns,
)
from mmeb_harness.store.description import DESCRIPTION, check_description, description_problem, write_description
from mmeb_harness.store.media import MediaHashes

if TYPE_CHECKING:
    import pyarrow as pa

#: A killed run loses at most this much encoding, whichever comes first.
FLUSH_SECONDS = 10.0
FLUSH_ITEMS = 256
#: Bounds what waits in memory, several times over while it is written: the tokens of one page may take a megabyte.
FLUSH_BYTES = 128 << 20
#: Chunks verified at a time: a disk, or a file system of a network, reads several at once faster.
VERIFIERS = 4
_AGAIN = "what it held is encoded again"
_DELETED = "was deleted"

#: A place is a chunk's number and a row in one integer: a million take 100 MB less than as pairs.
_ROW_BITS = 32
#: Of a stored `Trace`, in the order of its fields.
_TRACE_COLUMNS = ("path", "gate", "rationale", "reasoning_tokens", "truncated", "latency_seconds")


def content_keys(items: Sequence[Item], role: Role, hashes: MediaHashes) -> list[str]:
    """What each item's vector depends on, besides the model: words, the bytes of its media, role. Ids don't count.

    Raises:
        DataError: if a media file is missing.
    """
    media = hashes.of([path for item in items for path in item.media])
    return [_content_key(item, role, [media[path] for path in item.media]) for item in items]


def _content_key(item: Item, role: Role, media: Sequence[str]) -> str:
    kind = "frames" if item.frames else "images"
    # What few items have is only named where it is there: so keys of vectors from before it existed still hold.
    part = None if item.sound is None else (item.sound.start, item.sound.end, item.sound.window)
    rare = [value for value in (item.places, part) if value]
    return fingerprint(
        role, item.text, item.instruction, item.source.layout, item.source.instruction, kind, media, *rare
    )


@dataclass(frozen=True)
class KeyedSamples:
    """The content keys of a task's items, in order.

    Attributes:
        content: names all of them: a task of equal content has equal items.
    """

    queries: list[str]
    candidates: list[str]
    content: str

    @classmethod
    def of(cls, samples: Samples, hashes: MediaHashes) -> Self:
        """Look at all media of a task.

        Raises:
            DataError: if a media file is missing.
        """
        keys = content_keys(samples.queries, "query", hashes), content_keys(samples.candidates, "candidate", hashes)
        return cls(*keys, fingerprint(*keys))


class _Row(NamedTuple):
    """What waits to be written of one item; seconds as in `Encoded`."""

    vectors: NDArray[np.floating[Any]]
    trace: Trace
    latency_seconds: float
    share_seconds: float


@dataclass(frozen=True)
class StoredTokens:
    """Token vectors in chunks that are mapped into memory: an item's are read when it is asked for.

    Attributes:
        chunks: those that hold the items, by number.
        places: (n, 2): for each item, the number of its chunk and its row there.
    """

    chunks: Mapping[int, TokenVectors]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int, /) -> NDArray[np.floating[Any]]:
        chunk, row = self.places[item].tolist()
        return self.chunks[chunk][row]


class VectorStore:
    """Append-only store of one model's vectors. Call `flush` when what was added must survive.

    Nothing is written before the first `flush`: a complete store may be read-only.

    Args:
        since: what was written before is ignored (nanoseconds since the epoch).
        model: whose vectors they are, for those who look at the folder later.
        ignored: names of chunks that don't count.
        note: told of what is broken.
        candidates: a second folder, for what is added of candidates; what lies in either counts.
        with_states: keep the states that the gate reads, and give them; in the folder of queries a chunk without them
            doesn't count.

    Raises:
        ResultError: the vectors are of the other similarity or of another store version.
    """

    def __init__(
        self,
        folder: Path,
        similarity: Similarity = "dot",
        since: int = 0,
        model: ModelInfo | None = None,
        ignored: Collection[str] = (),
        note: Callable[[str], None] = lambda _: None,
        candidates: Path | None = None,
        with_states: bool = False,
    ) -> None:
        self._of_role: dict[Role, Path] = {"query": folder, "candidate": candidates or folder}
        self._folders = tuple(dict.fromkeys(self._of_role.values()))
        self._similarity, self._since, self._model = similarity, since, model
        self._ignored, self._note, self._with_states = frozenset(ignored), note, with_states
        self._kind = (similarity == "max_sim", None if model is None else model.dimensions)  # several an item, width
        self._held: set[Path] = set()
        for each in self._folders:
            if listed(each, ""):
                sweep(each)
                self._hold(each)
            check_description(each, similarity)
            self._mend_description(each)
        self._places: dict[str, int] = {}
        self._chunks: list[Path] = []
        self._numbers: dict[str, int] = {}  # name of a chunk → its number
        self._verdicts: dict[int, Future[str | None]] = {}  # number of a chunk → what is wrong with it
        self._whole: set[int] = set()
        self._pending: dict[Path, dict[str, _Row]] = {each: {} for each in self._folders}
        self._pending_bytes = 0
        self._last_flush = time.monotonic()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places or any(key in rows for rows in self._pending.values())

    def __len__(self) -> int:
        return len({*self._places, *itertools.chain.from_iterable(self._pending.values())})

    def refresh(self) -> None:
        """Take in what other processes have written since, and forget what is gone."""
        every = (path for folder in self._folders for path in chunk_files(folder))
        there = {path.name: path for path in every if path.name not in self._ignored}
        self._forget(self._numbers.keys() - there.keys())
        oldest, broken = chunk_name(self._since), dict[Path, str]()
        for name, path in there.items():
            if name not in self._numbers and (not self._since or name >= oldest):
                try:
                    self._index(path)
                except FileNotFoundError:
                    continue  # pruned since it was listed
                except BrokenFileError as error:
                    broken[path] = str(error)
        if broken:
            self._note(set_aside(broken, _AGAIN))

    def look_through(self, keys: Iterable[str]) -> None:
        """Begin to verify the chunks that hold these keys, beside other work; `settle` waits for it."""
        self._begin_to_verify(self._chunks_of(keys) - self._whole)

    def settle(self, keys: Sequence[str]) -> None:
        """See to it that of these keys only what is stored whole is there; the rest is set aside and said."""
        while self._judge(self._chunks_of(keys) - self._whole):
            pass  # what is broken uncovers earlier chunks

    def check_writable(self) -> None:
        """Find out before the first item is encoded whether it can be kept.

        Raises:
            ResultError: it can't.
        """
        try:
            for folder in self._folders:
                check_writable(folder)
        except ResultError as error:
            raise ResultError(f"{error} (--vectors says where vectors are kept)") from error

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role = "query") -> None:
        """Add one batch; on disk at the latest after `FLUSH_SECONDS` of further batches, or on `flush`."""
        pending = self._pending[self._of_role[role]]
        seconds = zip(encoded.latency_seconds.tolist(), encoded.share_seconds.tolist(), strict=True)
        for item, (key, trace, times) in enumerate(zip(keys, encoded.traces, seconds, strict=True)):
            pending[key] = _Row(encoded.vectors[item], trace, *times)
            self._pending_bytes += pending[key].vectors.nbytes
        overdue = time.monotonic() - self._last_flush > FLUSH_SECONDS
        if overdue or sum(map(len, self._pending.values())) >= FLUSH_ITEMS or self._pending_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, as one chunk a folder. If that fails it stays pending.

        Raises:
            ResultError: the folder can't be written, or is full.
        """
        self._last_flush = time.monotonic()
        for folder, rows in self._pending.items():
            if not rows:
                continue
            try:
                self._describe(folder)
                path = write_chunk(folder, _to_table(rows, self._kind[0], self._with_states))
            except ResultError as error:
                raise ResultError(f"{error} (--vectors); what was encoded before is kept: run again") from error
            self._place(self._numbered(path), list(rows))
            self._pending[folder] = {}
        self._pending_bytes = 0

    def get(self, keys: Sequence[str]) -> Encoded:
        """Vectors and traces of `keys`, in that order; every key must be in the store.

        One vector an item is read into one array, chunk by chunk; several stay on disk, as `StoredTokens`.

        Raises:
            ResultError: a chunk is broken, or was deleted meanwhile.
        """
        self.flush()
        places = np.fromiter((self._places[key] for key in keys), dtype=np.int64, count=len(keys))
        chunks, rows = places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
        if broken := self._judge(set(np.unique(chunks).tolist()) - self._whole):
            path, why = next(iter(broken.items()))
            became = why if why == _DELETED else f"broke ({why})"
            raise ResultError(f"{path} {became} while it was in use; run again: {_AGAIN}")
        vectors: Vectors | None = None
        tokens: dict[int, TokenVectors] = {}
        traces = np.empty(len(keys), dtype=object)
        latency, share_of_time = np.empty(len(keys)), np.empty(len(keys))
        for chunk, positions in _groups(chunks):
            table, taken = self._mapped(chunk), rows[positions]
            if self._kind[0]:
                tokens[chunk] = _token_vectors(table)
            else:
                block = flat_vectors(table)
                vectors = np.empty((len(keys), block.shape[1]), dtype=np.float32) if vectors is None else vectors
                vectors[positions] = block[taken]
            stored_columns = [name for name in (*_TRACE_COLUMNS, LEFT_OUT) if name in table.schema.names]
            rare = [STATE] if self._with_states and STATE in table.schema.names else []
            rare += [SHARED] if SHARED in table.schema.names else []
            columns = table.select([*stored_columns, "share_seconds", *rare]).take(taken)
            fields = [columns.column(name).to_pylist() for name in stored_columns]
            fields += [] if LEFT_OUT in stored_columns else [[""] * len(taken)]
            shared = columns.column(SHARED).to_pylist() if SHARED in rare else [False] * len(taken)
            traces[positions] = [Trace(*values) for values in zip(*fields, states_of(columns), shared, strict=True)]
            latency[positions] = columns.column("latency_seconds").to_numpy()
            share_of_time[positions] = columns.column("share_seconds").to_numpy()
        stored: AnyVectors | None = StoredTokens(tokens, np.stack([chunks, rows], 1)) if self._kind[0] else vectors
        if stored is None:
            raise KeyError("vectors of no items were asked for")
        return Encoded(stored, tuple(traces), latency, share_of_time)

    def _hold(self, folder: Path) -> None:
        held = share(folder)
        if held is not None:
            weakref.finalize(self, held.close)
            self._held.add(folder)

    def _describe(self, folder: Path) -> None:
        """Before the first chunk: a folder with chunks and without a description is one of an old release."""
        if folder not in self._held:
            self._hold(folder)
        if not (folder / DESCRIPTION).is_file():
            self._write_description(folder)

    def _write_description(self, folder: Path) -> None:
        model = self._model
        if model is not None and folder != self._of_role["query"]:
            model = model.of_candidates
        write_description(folder, self._similarity, model)

    def _mend_description(self, folder: Path) -> None:
        path = folder / DESCRIPTION
        if (problem := description_problem(folder)) is None:
            return
        if path.exists():
            self._note(set_aside({path: problem}, "it is written anew, and no vector is lost by it"))
        with contextlib.suppress(ResultError):  # of a folder that may only be read
            self._write_description(folder)

    def _index(self, path: Path) -> None:
        table = map_chunk(path, *self._kind)
        self._place(self._numbered(path), keys_of(table), self._counts(path, table))

    def _counts(self, path: Path, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a chunk count."""
        has_states = not self._with_states or path.parent != self._of_role["query"] or STATE in table.schema.names
        counts: NDArray[np.bool_] = (written_ns(table) >= self._since) & has_states
        return counts

    def _numbered(self, path: Path) -> int:
        self._chunks.append(path)
        self._numbers[path.name] = len(self._chunks) - 1
        return self._numbers[path.name]

    def _place(self, number: int, keys: Sequence[str], counts: NDArray[np.bool_] | None = None) -> None:
        """Note where a chunk's keys are, unless a later chunk has them."""
        name = self._chunks[number].name
        for row, key in enumerate(keys):
            earlier = self._places.get(key)
            is_latest = earlier is None or self._chunks[earlier >> _ROW_BITS].name < name
            if is_latest and (counts is None or counts[row]):
                self._places[key] = number << _ROW_BITS | row

    def _mapped(self, number: int) -> pa.Table:
        path = self._chunks[number]
        try:
            return map_chunk(path, *self._kind)
        except FileNotFoundError as error:
            raise ResultError(f"{path} {_DELETED} while it was in use; run again: {_AGAIN}") from error
        except BrokenFileError as error:
            raise ResultError(f"{path} broke while it was in use ({error}); run again: {_AGAIN}") from error

    def _chunks_of(self, keys: Iterable[str]) -> set[int]:
        return {place >> _ROW_BITS for key in keys if (place := self._places.get(key)) is not None}

    def _begin_to_verify(self, numbers: Iterable[int]) -> None:
        begun = []
        for number in sorted(numbers):
            verdict: Future[str | None] = Future()
            if self._verdicts.setdefault(number, verdict) is verdict:  # no other thread has begun
                begun.append((self._chunks[number], verdict))
        for start in range(min(VERIFIERS, len(begun))):
            part = begun[start::VERIFIERS]
            in_background(partial(_verify, part))

    def _judge(self, numbers: set[int]) -> dict[Path, str]:
        """Wait until chunks are verified; those that are broken are set aside, and returned with what is wrong."""
        self._begin_to_verify(numbers)
        broken = {self._chunks[number]: why for number in sorted(numbers) if (why := self._verdicts[number].result())}
        self._whole |= {number for number in numbers if self._chunks[number] not in broken}
        self._forget({path.name for path in broken})
        if damaged := {path: why for path, why in broken.items() if why != _DELETED}:
            self._note(set_aside(damaged, _AGAIN))
        return broken

    def _forget(self, names: Collection[str]) -> None:
        """What chunks hold is no longer there, but for what earlier chunks hold as well."""
        gone = {self._numbers.pop(name) for name in names}
        if not gone:
            return
        self._places = {key: place for key, place in self._places.items() if place >> _ROW_BITS not in gone}
        for name in sorted(self._numbers):
            number = self._numbers[name]
            with contextlib.suppress(FileNotFoundError, BrokenFileError):  # is seen when it is read
                table = map_chunk(self._chunks[number], *self._kind)
                self._place(number, keys_of(table), self._counts(self._chunks[number], table))


def _verify(chunks: Sequence[tuple[Path, Future[str | None]]]) -> None:
    for path, verdict in chunks:
        try:
            verify_chunk(path)
            verdict.set_result(None)
        except FileNotFoundError:
            verdict.set_result(_DELETED)
        except BrokenFileError as error:
            verdict.set_result(str(error))
        except BaseException as error:  # is raised where the verdict is asked for
            verdict.set_exception(error)


def _groups(chunks: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Chunks, and the positions that are in each."""
    order = np.argsort(chunks, kind="stable")
    for positions in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1):
        if len(positions):
            yield int(chunks[positions[0]]), positions


def _to_table(rows: Mapping[str, _Row], several: bool, with_states: bool) -> pa.Table:
    import pyarrow as pa

    vectors = [row.vectors for row in rows.values()]
    columns = {
        "key": pa.array(list(rows), pa.string()),
        "vector": _token_column(vectors) if several else _vector_column(vectors),
        **trace_columns([row.trace for row in rows.values()]),
        "latency_seconds": pa.array([row.latency_seconds for row in rows.values()], pa.float64()),
        "share_seconds": pa.array([row.share_seconds for row in rows.values()], pa.float64()),
        "written_ns": pa.array(np.full(len(rows), time.time_ns(), dtype=np.int64)),
    }
    if any(left_out := [row.trace.left_out for row in rows.values()]):
        columns[LEFT_OUT] = pa.array(left_out, pa.string())
    states = [row.trace.state for row in rows.values()]
    if with_states and any(state is not None for state in states):
        columns[STATE] = state_column(states)
    return pa.table(columns | shared_column([row.trace for row in rows.values()]))


def _vector_column(vectors: Sequence[Vectors]) -> pa.Array:
    import pyarrow as pa

    flat = np.concatenate(vectors).astype(np.float32, copy=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), len(vectors[0]))


def _token_column(vectors: Sequence[NDArray[np.floating[Any]]]) -> pa.Array:
    import pyarrow as pa

    tokens = TokenVectors.of_items(vectors)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(tokens.flat.reshape(-1)), tokens.flat.shape[1])
    return pa.LargeListArray.from_arrays(pa.array(tokens.offsets), flat)


def _token_vectors(table: pa.Table) -> TokenVectors:
    """Views of the mapped file, not copies."""
    return TokenVectors(flat_vectors(table), vector_offsets(table))
