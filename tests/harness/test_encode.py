"""Each distinct item once, in batches within the budget; vectors that can't be ranked are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import DataError, EncodeResult, Item, ModelError, ModelInfo, Role, Similarity, TokenVectors, Trace
from mmeb_harness.encode import encode_items, plan_batches
from mmeb_harness.media import MediaHashes
from mmeb_harness.store import VectorStore
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


def hashes(folder: Path) -> MediaHashes:
    return MediaHashes(folder / ".media", folder)


def items_of(*texts: str) -> list[Item]:
    return [Item(str(i), text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("embedder", [HashEmbedder(), BudgetedHash()], ids=["plain", "budgeted"])
def test_duplicates_are_encoded_once_and_order_is_kept(embedder: HashEmbedder, tmp_path: Path) -> None:
    items = items_of("b", "a", "b", "c" * 9, "a")
    encoded, keys, _ = encode_items(embedder, items, "query", VectorStore(tmp_path), hashes(tmp_path))
    assert sorted(embedder.texts) == ["a", "b", "c" * 9]
    assert np.array_equal(encoded.vectors, np.stack([embedder.vector(item.text) for item in items]))
    assert [trace.path for trace in encoded.traces] == [embedder.trace(item.text).path for item in items]
    assert len(set(keys)) == 3


def test_what_is_in_the_store_is_not_encoded_again(tmp_path: Path) -> None:
    encode_items(HashEmbedder(), items_of("a", "b"), "query", VectorStore(tmp_path), hashes(tmp_path))
    second = HashEmbedder()
    _, keys, reused = encode_items(second, items_of("b", "c", "b"), "query", VectorStore(tmp_path), hashes(tmp_path))
    assert second.texts == ["c"]
    assert reused == {keys[0]}


def test_several_vectors_an_item_come_back_in_order(tmp_path: Path) -> None:
    embedder, items = WordsEmbedder(), items_of("b c", "a", "b c", "d e f")
    encoded, _, _ = encode_items(embedder, items, "query", VectorStore(tmp_path, "max_sim"), hashes(tmp_path))
    assert [item.text for _, item in embedder.keys] == ["b c", "a", "d e f"]
    assert [encoded.vectors[i].tolist() for i in range(4)] == [embedder.vectors(item).tolist() for item in items]


def test_progress_adds_up_to_all_items(tmp_path: Path) -> None:
    seen: list[int] = []
    items = items_of("a", "b", "a")
    encode_items(HashEmbedder(), items, "query", VectorStore(tmp_path), hashes(tmp_path), on_progress=seen.append)
    assert sum(seen) == 3


def test_batches_keep_to_the_budget_and_start_with_the_costliest(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    texts = ["x" * n for n in (1, 50, 3, 40, 2, 45, 200)]
    keyed = [(text, Item(text, text=text)) for text in texts] + [("image", Item("i", text="y", images=(picture,)))]
    batches = plan_batches(BudgetedHash(), keyed, "query", batch_tokens=100)
    widths = [[len(item.text) for _, item in batch] for batch in batches]
    assert widths[0] == [200]  # over the budget by itself: alone
    assert all(max(width) * len(width) <= 100 for width in widths[1:])
    assert [1] in widths  # the picture is not mixed with texts
    assert sorted(n for width in widths for n in width) == [1, 1, 2, 3, 40, 45, 50, 200]


def test_the_next_batch_is_prepared_ahead(tmp_path: Path) -> None:
    embedder = BudgetedHash()
    items = items_of(*["x" * n for n in range(90, 100)])
    encode_items(embedder, items, "query", VectorStore(tmp_path), hashes(tmp_path), batch_tokens=100)
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


def several(*items: np.ndarray, similarity: Similarity = "max_sim") -> Returning:
    return Returning(TokenVectors.of_items(items), similarity=similarity)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        (Returning(UNIT[:1]), r"shape \(1, 4\) for 2 items"),
        (Returning(UNIT[:, :3]), "width 3, but declares 4"),
        (Returning(UNIT * np.nan), "NaN or infinity for item 0 of a batch of 2"),
        (Returning(UNIT * 2), r"length 2\.0000; vectors must be of unit length"),
        (Returning(UNIT, (Trace(),)), "1 traces for 2 items"),
        (Returning(UNIT, similarity="max_sim"), "one vector an item, but declares similarity 'max_sim'"),
        (several(UNIT, UNIT, similarity="dot"), "several vectors an item, but declares similarity 'dot'"),
        (several(UNIT), "token vectors of 1 items for 2 items"),
        (several(UNIT, UNIT[:0]), "no vector for item 1 of a batch of 2"),
        (several(UNIT[:, :3], UNIT[:, :3]), "width 3, but declares 4"),
        (several(UNIT, np.array([[1, 0, 0, 0], [np.nan, 0, 0, 0]], np.float16)), "NaN or infinity for item 1"),
        (several(UNIT, UNIT[[0, 1, 0]] * np.float32(1.1)), r"length 1\.1000; vectors must be of unit length"),
    ],
)
def test_vectors_that_cannot_be_ranked_are_refused_and_not_stored(
    embedder: Returning, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        encode_items(embedder, items_of("a", "b"), "query", VectorStore(tmp_path), hashes(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_error_while_preparing_reaches_the_caller(tmp_path: Path) -> None:
    class Failing(BudgetedHash):
        def prepare(self, items: Sequence[Item], role: Role) -> Any:
            raise DataError("image x.png is truncated")

    with pytest.raises(DataError, match=r"x\.png is truncated"):
        encode_items(Failing(), items_of("a"), "query", VectorStore(tmp_path), hashes(tmp_path))
