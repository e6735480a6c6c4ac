"""Each distinct item once, in batches within the budget; vectors that can't be ranked are refused."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import (
    BudgetedEmbedder,
    DataError,
    Embedder,
    EncodeResult,
    Item,
    ModelError,
    ModelInfo,
    Role,
    Similarity,
    TokenVectors,
    Trace,
)
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.errors import HarnessError, PluginError
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS, Keyed, plan_chunks
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import VectorStore, content_keys
from tests.toy import HashEmbedder, WordsEmbedder


class BudgetedHash(HashEmbedder):
    """Costs its text's length; notes the order of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def cost(self, item: Item, role: Role) -> int:
        return len(item.text)

    def prepare(self, items: Sequence[Item], role: Role) -> Any:
        self.calls.append(f"prepare {len(items)}")
        return list(items), role

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        self.calls.append(f"encode {len(prepared[0])}")
        return self.encode(*prepared)


def encode_items(
    embedder: Embedder,
    items: Sequence[Item],
    role: Role,
    store: VectorStore,
    root: Path,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Encoded, list[str]]:
    """What the store has afterwards, and the items' keys."""
    keys = content_keys(items, role, MediaHashes(root / ".media", root))
    keyed: list[Keyed] = list(dict(zip(keys, items, strict=True)).items())
    preparation = InlinePreparation(embedder) if isinstance(embedder, BudgetedEmbedder) else None
    chunks = plan_chunks(embedder, keyed, role, batch_tokens)
    LocalEncoder(embedder, preparation, batch_tokens).encode(chunks, store, on_progress)
    return store.get(keys), keys


def items_of(*texts: str) -> list[Item]:
    return [Item(str(i), text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("embedder", [HashEmbedder(), BudgetedHash()], ids=["plain", "budgeted"])
def test_duplicates_are_encoded_once_and_order_is_kept(embedder: HashEmbedder, tmp_path: Path) -> None:
    items = items_of("b", "a", "b", "c" * 9, "a")
    encoded, keys = encode_items(embedder, items, "query", VectorStore(tmp_path), tmp_path)
    assert sorted(embedder.texts) == ["a", "b", "c" * 9]
    assert np.array_equal(encoded.vectors, np.stack([embedder.vector(item.text) for item in items]))
    assert [trace.path for trace in encoded.traces] == [embedder.trace(item.text).path for item in items]
    assert len(set(keys)) == 3


def test_what_is_in_the_store_is_not_encoded_again(tmp_path: Path) -> None:
    encode_items(HashEmbedder(), items_of("a", "b"), "query", VectorStore(tmp_path), tmp_path)
    second = HashEmbedder()
    encode_items(second, items_of("b", "c"), "query", VectorStore(tmp_path), tmp_path)
    assert second.texts == ["c"]


def test_several_vectors_an_item_come_back_in_order(tmp_path: Path) -> None:
    embedder, items = WordsEmbedder(), items_of("b c", "a", "b c", "d e f")
    encoded, _ = encode_items(embedder, items, "query", VectorStore(tmp_path, "max_sim"), tmp_path)
    assert [item.text for _, item in embedder.keys] == ["d e f", "b c", "a"]  # neighbours in length
    assert [encoded.vectors[i].tolist() for i in range(4)] == [embedder.vectors(item).tolist() for item in items]


def test_progress_adds_up_to_all_items(tmp_path: Path) -> None:
    seen: list[int] = []
    items = items_of("a", "b", "a")
    encode_items(HashEmbedder(), items, "query", VectorStore(tmp_path), tmp_path, on_progress=seen.append)
    assert sum(seen) == 2  # distinct ones


def test_the_next_batch_is_prepared_ahead(tmp_path: Path) -> None:
    embedder = BudgetedHash()
    items = items_of(*["x" * n for n in range(90, 100)])
    encode_items(embedder, items, "query", VectorStore(tmp_path), tmp_path, batch_tokens=100)
    assert embedder.calls.count("prepare 1") == embedder.calls.count("encode 1") == 10


class Returning:
    """Returns whatever it is given."""

    def __init__(
        self,
        vectors: np.ndarray | TokenVectors,
        traces: tuple[Trace, ...] | None = None,
        similarity: Similarity = "dot",
    ) -> None:
        self.info = ModelInfo("broken", "1", 4, similarity=similarity)
        self._result = EncodeResult(vectors, traces)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self._result


UNIT = np.eye(4, dtype=np.float32)[:2]
SECOND_NAN = np.array([[1, 0, 0, 0], [np.nan, 0, 0, 0]], np.float16)


def several(*items: np.ndarray, similarity: Similarity = "max_sim") -> Returning:
    return Returning(TokenVectors.of_items(items), similarity=similarity)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        (Returning(UNIT[:1]), r"shape \(1, 4\) for 2 queries, the first '0' \('a'\)"),
        (Returning(UNIT[:, :3]), "width 3, but declares 4"),
        (Returning(UNIT * np.nan), r"NaN or infinity for query '0' \('a'\)"),
        (Returning(UNIT * 2), r"length 2\.0000 for query '0' \('a'\); vectors must be of unit length"),
        (Returning(UNIT, (Trace(),)), "1 trace for 2 queries"),
        (Returning(UNIT, similarity="max_sim"), "one vector an item, but declares similarity 'max_sim'"),
        (several(UNIT, UNIT, similarity="dot"), "several vectors an item, but declares similarity 'dot'"),
        (several(UNIT), "token vectors of 1 item for 2 queries"),
        (several(UNIT, UNIT[:0]), r"no vector for query '1' \('b'\)"),
        (several(UNIT[:, :3], UNIT[:, :3]), "width 3, but declares 4"),
        (
            several(UNIT, SECOND_NAN),
            r"NaN or infinity for query '1' \('b'\)",
        ),
        (
            several(UNIT, UNIT[[0, 1, 0]] * np.float32(1.1)),
            r"length 1\.1000 for query '1' \('b'\); vectors must be of unit length",
        ),
    ],
)
def test_vectors_that_cannot_be_ranked_are_refused_and_not_stored(
    embedder: Returning, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        encode_items(embedder, items_of("a", "b"), "query", VectorStore(tmp_path), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_error_while_preparing_reaches_the_caller(tmp_path: Path) -> None:
    class Failing(BudgetedHash):
        def prepare(self, items: Sequence[Item], role: Role) -> Any:
            raise DataError("image x.png is truncated")

    with pytest.raises(DataError, match=r"x\.png is truncated"):
        encode_items(Failing(), items_of("a"), "query", VectorStore(tmp_path), tmp_path)


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


class Small(BudgetedHash):
    """Has memory for so many items."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        if len(prepared[0]) > self._room:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …")
        return super().encode_prepared(prepared)


def test_out_of_memory_halves_the_budget_for_the_rest(tmp_path: Path) -> None:
    embedder, notes = Small(room=3), list[str]()
    keyed = [(f"key {n}", Item(str(n), text="x" * 10)) for n in range(40)]
    chunks = plan_chunks(embedder, keyed, "query", 160)
    store, encoder = VectorStore(tmp_path), LocalEncoder(embedder, InlinePreparation(embedder), 160, notes.append)
    encoder.encode(chunks, store)
    assert encoder.batch_tokens == 20
    assert notes[0] == "out of memory (CUDA out of memory); going on with batches of at most 80 tokens"
    assert len(notes) == 3
    assert np.array_equal(store.get(["key 7"]).vectors[0], embedder.vector("x" * 10))
    embedder.calls.clear()
    encoder.encode(plan_chunks(embedder, [("new", Item("a", text="y" * 10))] * 1, "query", 160), store)
    assert "encode 1" in embedder.calls  # later chunks come in the small batches, too
    assert len(notes) == 3


def test_an_item_that_does_not_fit_by_itself_is_named(tmp_path: Path) -> None:
    items = [Item("long", text="z" * 300), Item("b", text="b")]
    message = r"out of memory even with one item at a time, 'long' \(about 300 tokens\): CUDA out of memory\. A smaller"
    with pytest.raises(ModelError, match=message):
        encode_items(Small(room=0), items, "query", VectorStore(tmp_path), tmp_path)


class Uploading(BudgetedHash):
    """Marks what it moves."""

    def upload(self, prepared: Any) -> Any:
        self.calls.append("upload")
        return (*prepared, "moved")

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        items, role, mark = prepared
        assert mark == "moved"
        return super().encode_prepared((items, role))


def test_batches_are_moved_ahead(tmp_path: Path) -> None:
    embedder, items = Uploading(), items_of(*["x" * n for n in range(90, 100)])
    encoded, _ = encode_items(embedder, items, "query", VectorStore(tmp_path), tmp_path, batch_tokens=100)
    assert np.array_equal(encoded.vectors, np.stack([embedder.vector(item.text) for item in items]))
    assert embedder.calls.count("upload") == 10


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OutOfMemoryError("out of memory"), ModelError, "even with one item at a time"),
        (KeyError("pixels"), PluginError, r"KeyError: 'pixels' \(test_local\.py:\d+, in upload\) while it uploaded"),
    ],
)
def test_an_error_while_moving_reaches_the_caller(
    error: Exception, kind: type[HarnessError], message: str, tmp_path: Path
) -> None:
    class Full(Uploading):
        def upload(self, prepared: Any) -> Any:
            raise error

    with pytest.raises(kind, match=message):
        encode_items(Full(), items_of("a"), "query", VectorStore(tmp_path), tmp_path)


class Streaming(BudgetedHash):
    """Takes all batches of a chunk before it gives the first result."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self._room = room

    def encode_stream(self, prepared: Iterator[Any]) -> Iterator[EncodeResult]:
        batches = list(prepared)
        for place, batch in enumerate(batches):
            if place and len(batch[0]) > self._room:
                raise OutOfMemoryError("out of memory")
            yield self.encode(*batch)


def test_a_stream_gets_a_chunk_at_once_and_all_or_nothing_of_it_is_kept(tmp_path: Path) -> None:
    embedder, seen = Streaming(room=4), list[int]()
    keyed = [(f"key {n}", Item(str(n), text="x" * 10 + str(n))) for n in range(40)]
    chunks = plan_chunks(embedder, keyed, "query", 100)
    assert len(chunks) == 1
    store = VectorStore(tmp_path)
    LocalEncoder(embedder, InlinePreparation(embedder), 100).encode(chunks, store, seen.append)
    assert sum(seen) == 40  # the first attempt's batch is counted back
    assert min(seen) < 0
    wanted = np.stack([embedder.vector(item.text) for _, item in keyed])
    assert np.array_equal(store.get([key for key, _ in keyed]).vectors, wanted)


def test_a_stream_of_several_vectors_an_item_reaches_the_store_in_one_piece(tmp_path: Path) -> None:
    class Words(Streaming):
        def __init__(self) -> None:
            super().__init__()
            self.words = WordsEmbedder()
            self.info = self.words.info

        def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
            return self.words.encode(items, role)

    embedder = Words()
    keyed = [(f"key {n}", Item(str(n), text="word " * n)) for n in range(1, 9)]
    store = VectorStore(tmp_path, "max_sim")
    additions: list[Sequence[str]] = []
    add = store.add
    store.add = lambda keys, encoded, role: (additions.append(keys), add(keys, encoded, role))[1]  # type: ignore[method-assign]
    chunks = plan_chunks(embedder, keyed, "query", 50)
    assert len(chunks[0].batches) > 1
    LocalEncoder(embedder, InlinePreparation(embedder), 50).encode(chunks, store)
    assert len(additions) == 1
    kept = store.get([key for key, _ in keyed]).vectors
    assert all(np.array_equal(kept[n], embedder.words.vectors(item)) for n, (_, item) in enumerate(keyed))


def test_a_buffer_that_a_model_uses_again_costs_no_result(tmp_path: Path) -> None:
    buffer = np.zeros((64, 16), np.float32)

    class Streams(Streaming):
        def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
            buffer[: len(items)] = super().encode(items, role).vectors
            return EncodeResult(buffer[: len(items)])

    class Plain(HashEmbedder):
        def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
            buffer[: len(items)] = super().encode(items, role).vectors
            return EncodeResult(buffer[: len(items)])

    items = items_of(*[f"{n:10}" for n in range(100)])
    for embedder in (Streams(), Plain()):
        folder = tmp_path / type(embedder).__name__
        encoded, _ = encode_items(embedder, items, "query", VectorStore(folder), tmp_path, batch_tokens=40)
        assert np.array_equal(encoded.vectors, np.stack([embedder.vector(item.text) for item in items]))


def test_an_error_is_about_the_items_of_its_batch(tmp_path: Path) -> None:
    class Failing(BudgetedHash):
        def encode_prepared(self, prepared: Any) -> EncodeResult:
            if prepared[0][0].text == "x" * 95:
                raise ZeroDivisionError
            return super().encode_prepared(prepared)

    store = VectorStore(tmp_path)
    keyed = [(f"key {n}", Item(str(n), text="x" * n)) for n in range(90, 100)]
    chunks = plan_chunks(Failing(), keyed, "query", 100)
    with pytest.raises(
        PluginError, match=r"'hash': ZeroDivisionError \(.*, in encode_prepared\) over query '95'"
    ) as raised:
        LocalEncoder(Failing(), InlinePreparation(Failing()), 100).encode(chunks, store)
    assert raised.value.keys == ("key 95",)
    assert {key for key, _ in keyed if key in store} == {"key 96", "key 97", "key 98", "key 99"}


def test_results_that_are_missing_are_said(tmp_path: Path) -> None:
    class Silent(Streaming):
        def encode_stream(self, prepared: Iterator[Any]) -> Iterator[EncodeResult]:
            yield self.encode(*next(prepared))

    items = items_of(*["x" * n for n in range(90, 93)])
    with pytest.raises(ModelError, match="1 results for 3 batches"):
        encode_items(Silent(), items, "query", VectorStore(tmp_path), tmp_path, batch_tokens=100)


def test_ctrl_c_finishes_the_batch_and_keeps_it(tmp_path: Path) -> None:
    class Interrupted(BudgetedHash):
        def encode_prepared(self, prepared: Any) -> EncodeResult:
            if len(self.calls) > 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().encode_prepared(prepared)

    embedder, store, notes = Interrupted(), VectorStore(tmp_path), list[str]()
    keyed = [(f"key {n}", Item(str(n), text="x" * 90)) for n in range(10)]
    chunks = plan_chunks(embedder, keyed, "query", 100)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        LocalEncoder(embedder, InlinePreparation(embedder), 100, notes.append).encode(chunks, store)
    encoded = [call for call in embedder.calls if call.startswith("encode")]
    assert 1 < len(encoded) == len(store) < 10
    assert "finishing what is under way" in notes[0]
    assert signal.getsignal(signal.SIGINT) is handler
