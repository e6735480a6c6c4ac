"""Batches within a budget, chunks of batches, windows of tasks: the same plan whatever is done already."""

from functools import partial
from pathlib import Path

from mmeb_harness import Item, Samples, Task
from mmeb_harness.encode.chunks import CHUNK_ITEMS, Chunk, plan_batches, plan_chunks, smaller_batches
from mmeb_harness.encode.windows import WINDOW_ITEMS, ReadTask, windows
from tests.harness.encode.test_local import BudgetedHash
from tests.toy import HashEmbedder


def test_batches_keep_to_the_budget_and_start_with_the_costliest(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    texts = ["x" * n for n in (1, 50, 3, 40, 2, 45, 200)]
    keyed = [(text, Item(text, text=text)) for text in texts] + [("image", Item("i", text="y", images=(picture,)))]
    batches = plan_batches(BudgetedHash(), keyed, "query", batch_tokens=100)
    widths = [[len(item.text) for item in batch.items] for batch in batches]
    assert [batch.tokens for batch in batches] == [max(width) * len(width) for width in widths]
    assert widths[0] == [200]  # over the budget by itself: alone
    assert all(max(width) * len(width) <= 100 for width in widths[1:])
    assert [1] in widths  # the picture is not mixed with texts
    assert sorted(n for width in widths for n in width) == [1, 1, 2, 3, 40, 45, 50, 200]


def keyed(count: int) -> list[tuple[str, Item]]:
    return [(f"key {n}", Item(str(n), text="x" * (1 + n % 90))) for n in range(count)]


def test_a_chunk_has_its_number_of_items_and_every_item_is_in_one() -> None:
    items = keyed(1000)
    chunks = plan_chunks(BudgetedHash(), items, "query", 900)
    assert all(CHUNK_ITEMS <= len(chunk) < CHUNK_ITEMS + 900 for chunk in chunks[:-1])
    assert len(chunks) > 2
    assert sorted(key for chunk in chunks for key, _ in chunk.keyed) == sorted(key for key, _ in items)
    assert [len(chunk) for chunk in plan_chunks(HashEmbedder(), items, "query", 1)] == [256, 256, 256, 232]


def test_a_batch_that_is_wanted_whole_stays_itself() -> None:
    (chunk,) = plan_chunks(BudgetedHash(), keyed(100), "query", 900)
    first = set(chunk.batches[0].keys)
    left = chunk.only(lambda key: key in first or key == chunk.batches[1].keys[0])
    assert left.batches[0] is chunk.batches[0]
    assert [len(batch) for batch in left.batches] == [len(chunk.batches[0]), 1]
    assert chunk.only(lambda key: False) == Chunk("query", ())


def test_a_smaller_budget_keeps_the_chunk_together() -> None:
    (chunk,) = plan_chunks(BudgetedHash(), keyed(100), "query", 900)
    smaller = smaller_batches(BudgetedHash(), chunk, 300)
    assert sorted(key for key, _ in smaller.keyed) == sorted(key for key, _ in chunk.keyed)
    assert max(batch.tokens for batch in smaller.batches if len(batch) > 1) <= 300


def read(name: str, texts: list[str]) -> ReadTask:
    items = tuple(Item(f"{name} {text}", text=text) for text in texts)
    gains = {item.id: {"c": 1.0} for item in items}
    samples = Samples(items, (Item("c", text="c"),), gains)
    task = Task(name, "image", "I-CLS", "hit@1", lambda root, frames: samples)
    return ReadTask(task, samples, [f"query {text}" for text in texts], ["candidate c"])


def test_small_tasks_share_a_window_and_what_an_earlier_one_has_is_planned_once() -> None:
    many = [f"{n}" for n in range(WINDOW_ITEMS)]
    tasks = [read("a", ["1", "new"]), read("b", many), read("c", ["2", "other"])]
    planned_windows = list(windows(tasks, partial(plan_chunks, BudgetedHash(), batch_tokens=500)))
    assert [[read.task.name for read in window.tasks] for window in planned_windows] == [["a", "b"], ["c"]]
    planned = [[key for chunk in window.chunks for key, _ in chunk.keyed] for window in planned_windows]
    assert len(planned[0]) == len(set(planned[0])) == WINDOW_ITEMS + 2  # "1" and the candidate once
    assert planned[1] == ["query other"]
    tokens = [chunk.tokens for chunk in planned_windows[0].chunks]
    assert tokens == sorted(tokens, reverse=True)
