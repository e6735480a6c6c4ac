"""Rows entering and leaving slots: the same tokens and vectors as one at a time and as the library's own `generate`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from mmeb_harness import EncodeResult, Item, Trace
from mmemb_r1_model.decoding import Decoder, Opened, Pieces, Row
from mmemb_r1_model.decoding.patches import PatchProjection
from mmemb_r1_model.decoding.reading import LARGE, UNFINISHED, Reading
from mmemb_r1_model.decoding.slots import KeyValueShape, SlotCache, grouped_attention
from mmemb_r1_model.decoding.step import Step, rounded
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.model.collate import Collated, collate

TOLERANCE = 1e-5
MODES = ("adaptive", "always", "never")


@pytest.fixture(scope="module", params=["random", "trained"])
def path(request: pytest.FixtureRequest, random_checkpoint: Path) -> str | None:
    return str(random_checkpoint) if request.param == "random" else None


def small(path: str | None, mode: str, slots: int, **options: Any) -> MMEmbR1Embedder:
    """An embedder whose rationales have few slots, and whose gate says yes to about half of the items."""
    embedder = load(path, reasoning=mode, **options)  # type: ignore[arg-type]
    engine = embedder.engine
    engine.decoder = Decoder(engine.model, engine.rule, slots=slots)
    return embedder


def threshold(path: str | None, items: Sequence[Item]) -> float:
    """Between the gates of the items."""
    traces = load(path, reasoning="never").encode(items, "query").traces or ()
    gates = sorted(trace.gate or 0.0 for trace in traces)
    middle = len(gates) // 2
    return (gates[middle - 1] + gates[middle]) / 2


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def streamed(
    embedder: MMEmbR1Embedder, items: Sequence[Item], size: int = 3, wait: float = 0.0
) -> tuple[np.ndarray[Any, Any], list[Trace], list[EncodeResult]]:
    def prepared() -> Iterator[Any]:
        for batch in batches(items, size):
            time.sleep(wait)
            yield embedder.prepare(batch, "query")

    results = list(embedder.encode_stream(prepared()))
    assert [len(result.vectors) for result in results] == [len(batch) for batch in batches(items, size)]
    traces = [trace for result in results for trace in result.traces or ()]
    return np.concatenate([result.vectors for result in results]), traces, results


def outcome(trace: Trace) -> tuple[str, str | None, int, bool]:
    return trace.path, trace.rationale, trace.reasoning_tokens, trace.truncated


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slots", [1, 2, 5, 64])
def test_a_stream_gives_what_each_item_gives_alone(path: str | None, items: list[Item], mode: str, slots: int) -> None:
    """More rows than slots, rows of later batches beside those of earlier ones, batches in which some rows reason."""
    options = {"threshold": threshold(path, items)} if mode == "adaptive" else {}
    embedder = small(path, mode, slots, **options)
    many = [*items, *items[::-1]]
    vectors, traces, _ = streamed(embedder, many)
    alone = [embedder.encode([item], "query") for item in items]
    for row, (vector, trace) in enumerate(zip(vectors, traces, strict=True)):
        expected = alone[row if row < len(items) else len(many) - 1 - row]
        assert expected.traces is not None
        assert np.abs(expected.vectors[0] - vector).max() < TOLERANCE
        assert outcome(trace) == outcome(expected.traces[0])
    assert {trace.path for trace in traces} == {
        "adaptive": {"direct", "reasoned"},
        "always": {"reasoned"},
        "never": {"direct"},
    }[mode]


@pytest.mark.parametrize("mode", MODES)
def test_the_engine_equals_generate_and_a_second_pass(path: str | None, items: list[Item], mode: str) -> None:
    options = {"threshold": threshold(path, items)} if mode == "adaptive" else {}
    for limit in (1, 3, 16):
        embedder = small(path, mode, 4, max_new_tokens=limit, **options)
        vectors, traces, _ = streamed(embedder, items)
        plain = embedder.encode_reference(items, "query")
        assert plain.traces is not None
        assert list(map(outcome, traces)) == list(map(outcome, plain.traces))
        assert np.abs(plain.vectors - vectors).max() < TOLERANCE
        assert [trace.gate for trace in plain.traces] == pytest.approx([trace.gate for trace in traces], abs=1e-6)


def test_a_stream_does_not_depend_on_time(items: list[Item]) -> None:
    embedder = small(None, "always", 3)
    vectors, traces, _ = streamed(embedder, items)
    again, same_traces, _ = streamed(embedder, items, wait=0.02)
    assert vectors.tobytes() == again.tobytes()
    assert list(map(outcome, traces)) == list(map(outcome, same_traces))


def test_a_long_prompt_after_short_ones_gets_longer_slots(random_checkpoint: Path, items: list[Item]) -> None:
    long = Item("very long", text="circle>square after three steps " * 60)
    order = [items[0], items[-1], items[2], long, items[0], items[4], long]
    embedder = small(str(random_checkpoint), "always", 2)
    vectors, _, _ = streamed(embedder, order, size=1)
    for item, vector in zip(order, vectors, strict=True):
        assert np.abs(embedder.encode([item], "query").vectors[0] - vector).max() < TOLERANCE, item.id


def test_work_adds_up(items: list[Item]) -> None:
    embedder = small(None, "always", 3)
    _, traces, results = streamed(embedder, items)
    works = [result.work for result in results if result.work is not None]
    total = works[0]
    for work in works[1:]:
        total += work
    assert total.prompt_tokens == sum(len(embedder.prompt(item)) for item in items)
    assert total.new_tokens == sum(trace.reasoning_tokens for trace in traces)
    assert set(total.seconds) == {"prefill", "gate", "generate", "readout"}
    assert min(total.seconds.values()) > 0
    engine = embedder.engine
    weights = engine.costs.text_matrices + engine.costs.vocabulary_matrix
    steps, cached = divmod(total.decode_bytes, weights * 4)
    assert steps >= total.new_tokens / 3  # three slots
    assert cached % (engine.costs.kv_bytes) == 0
    assert total.prefill_bytes >= len(works) * engine.costs.text_matrices * 4


def test_when_memory_runs_out_slots_halve_and_the_next_stream_works(items: list[Item]) -> None:
    embedder = small(None, "always", 8)
    expected, _, _ = streamed(embedder, items)
    decoder, head = embedder.engine.decoder, embedder.engine.model.lm_head
    steps = 0

    def refuse(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = head.register_forward_pre_hook(refuse)
    with pytest.raises(torch.OutOfMemoryError):
        streamed(embedder, items)
    handle.remove()
    assert decoder.groups.most_rows == 4
    vectors, _, _ = streamed(embedder, items)
    assert np.abs(vectors - expected).max() < TOLERANCE


def test_a_stream_that_was_left_does_no_harm_and_can_not_go_on_beside_another(items: list[Item]) -> None:
    embedder = small(None, "always", 3)
    expected, _, _ = streamed(embedder, items)
    left = embedder.encode_stream(embedder.prepare([item], "query") for item in items)
    next(left)
    vectors, _, _ = streamed(embedder, items)
    assert vectors.tobytes() == expected.tobytes()
    with pytest.raises(RuntimeError, match="another stream was begun"):
        list(left)


def test_nothing_is_cached_where_no_row_can_reason(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("a cache was made")

    embedder = load(reasoning="never")
    monkeypatch.setattr(DynamicCache, "__init__", made)
    assert len(embedder.encode(items, "query").vectors) == len(items)


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Notes every operation, and refuses those that would wait for a GPU or copy from the host."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh", "item", "masked_select", "unique", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"a recorded step can't have {func}"
        self.seen.append(name)
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def test_a_step_is_a_function_of_tensors_that_stay(random_checkpoint: Path) -> None:
    """What a CUDA graph needs: no look at values, no new host data, the same operations whatever the values."""
    engine = load(str(random_checkpoint)).engine
    shape = KeyValueShape.of(engine.model.model.language_model)
    step = Step(engine.model, SlotCache(shape, 4, 64), engine.rule.mark, engine.rule.never)
    places = [tensor.data_ptr() for tensor in (step.static_inputs, step.chosen_S, step.kept_SD)]
    operations = []
    for tokens, lengths in (([5, 6, 7, 8], [0, 0, 0, 0]), ([9, 9, engine.rule.mark, 1], [1, 1, 1, 0])):
        step.inputs[0], step.inputs[1], step.inputs[2] = tokens, lengths, lengths
        step.static_inputs.copy_(torch.from_numpy(step.inputs))
        with Watch() as watch:
            step.compute(4, 64)
        operations.append(watch.seen)
        once = step.chosen_S.clone(), step.kept_SD.clone()
        step.compute(4, 64)  # a recording runs it once more before it is replayed
        assert torch.equal(once[0], step.chosen_S)
        assert torch.equal(once[1], step.kept_SD)
    assert operations[0] == operations[1]
    assert places == [tensor.data_ptr() for tensor in (step.static_inputs, step.chosen_S, step.kept_SD)]
    assert [bool(row.any()) for row in step.kept_SD] == [False, False, True, False]


@torch.inference_mode()
def test_shared_keys_and_values_are_not_repeated_and_give_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, heads, 1 if heads == 6 else 9, 8, generator=generator) for heads in (6, 2, 2))
    mask = torch.zeros(3, 1, 1, 9)
    mask[1, ..., 4:] = -torch.inf
    found, _ = grouped_attention(None, query, key, value, mask, scaling=0.3)
    repeated = (tensor.repeat_interleave(3, dim=1) for tensor in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_users_choice_of_attention_is_kept(random_checkpoint: Path, items: list[Item], attention: str) -> None:
    embedder = load(str(random_checkpoint), reasoning="always", attention=attention)  # type: ignore[arg-type]
    vectors, traces, _ = streamed(embedder, items)
    assert embedder.engine.model.config.text_config._attn_implementation == attention
    plain = embedder.encode_reference(items, "query")
    assert np.abs(plain.vectors - vectors).max() < TOLERANCE
    assert list(map(outcome, traces)) == list(map(outcome, plain.traces or ()))


def test_widths_are_few_and_waste_little() -> None:
    for count in range(1, 10_000, 7):
        for parts in (4, 8):
            width = rounded(count, parts)
            assert count <= width <= max(count + 63, count * (1 + 1 / parts))
            assert width % 64 == 0
    assert len({rounded(count, 8) for count in range(1, 4097)}) < 40


def test_prepared_batches_hold_arrays_alone(items: list[Item]) -> None:
    prepared = load(reasoning="never").prepare(items, "query")
    assert (prepared.role, prepared.questions) == ("query", ())
    batch = prepared.batch
    assert isinstance(batch, Collated)
    arrays = batch.ids_BL, batch.mask_BL, batch.pixels["pixel_values"].bytes, batch.pixels["image_grid_thw"]
    assert all(isinstance(array, np.ndarray) for array in arrays)


class Echo:
    """Feeds what the model wants, and the mark at a row's own length."""

    mark, never = 3, ()

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths

    def longest(self, limit: int | None) -> int:
        return max(self._lengths) if limit is None else limit

    def choose(self, row: Row, wanted: int) -> int | None:
        if row.fed and row.fed[-1] == self.mark:
            return None
        return self.mark if len(row.fed) + 1 == self._lengths[row.index] else 5


def test_rows_leave_when_they_are_done_and_others_move_up(random_checkpoint: Path, items: list[Item]) -> None:
    """Rows of lengths 9, 1, 5, 2, 2, 1, 3 in two slots need exactly as many steps as a greedy filling does."""
    engine = load(str(random_checkpoint)).engine
    lengths = [9, 1, 5, 2, 2, 1, 3]
    embedder = load(str(random_checkpoint))
    prompts = [embedder.prompt(item) for item in items[: len(lengths)]]
    decoder = Decoder(engine.model, Echo(lengths), slots=2)

    def opened(batch: Collated) -> Pieces[Opened[None]]:
        tensors, past = batch.tensors(), DynamicCache(config=engine.model.config.get_text_config())
        yield from engine.read(tensors, past)
        width, rows = batch.ids_BL.shape[1], range(len(batch.ids_BL))
        starts = [width - length for length in batch.lengths]
        return Opened(None, rows, starts, batch.lengths, batch.next_position_B.tolist(), [5] * len(rows), past)

    (answered,) = decoder.stream(iter([collate(prompts, 0)]), opened, lambda batch: batch.positions)
    assert [len(answer.fed) for answer in sorted(answered.answers, key=lambda one: one.index)] == lengths
    assert answered.usage.tokens == sum(lengths)
    assert answered.usage.steps == 13  # 9, 1, 3 in one slot beside 1, 5, 2, 2 in the other


def test_batches_are_read_side_by_side_in_order_and_never_during_a_pause() -> None:
    begun, ended = list[int](), list[int]()

    def read(batch: int) -> Pieces[int]:
        begun.append(batch)
        time.sleep(0.02 * (3 - batch % 3))
        for _ in range(2 if batch == 2 else 0):  # a piece while the batch before it is read
            yield
        ended.append(batch)
        return 10 * batch

    reading = Reading(iter(range(5)), read, lambda _: 1, readers=2)
    threads = torch.get_num_threads()
    found = [reading.next()]
    reading.pause()
    assert sorted(begun) == sorted(ended)
    assert torch.get_num_threads() == threads
    while found[-1] is not None:
        found.append(reading.next())
    reading.close()
    assert [read if read is UNFINISHED else read[0] for read in found if read] == [0, 10, UNFINISHED, 20, 30, 40]


def test_two_batches_are_always_read_at_once() -> None:
    meet = threading.Barrier(2, timeout=60)

    def read(batch: int) -> Pieces[int]:
        meet.wait()  # broken where one waits for the other to end
        return batch
        yield

    reading = Reading(iter(range(6)), read, lambda _: 1, readers=2)
    assert [read[0] for read in iter(reading.next, None) if read is not UNFINISHED] == list(range(6))
    reading.close()


def test_a_large_batch_is_read_alone() -> None:
    now, together = set[int](), list[set[int]]()

    def read(batch: int) -> Pieces[int]:
        now.add(batch)
        together.append(set(now))
        yield
        together.append(set(now))
        now.remove(batch)
        return batch

    sizes = [1, LARGE, LARGE, 1, 1, LARGE]
    reading = Reading(iter(range(6)), read, sizes.__getitem__, readers=2)
    threads = torch.get_num_threads()
    assert [read[0] for read in iter(reading.next, None) if read is not UNFINISHED] == list(range(6))
    assert torch.get_num_threads() == threads
    reading.close()
    assert [beside for beside in together if beside & {1, 2, 5}] == [{1}, {1}, {2}, {2}, {5}, {5}]


def test_an_error_of_a_reader_comes_when_its_batch_would() -> None:
    def read(batch: int) -> Pieces[int]:
        if batch == 1:
            raise ValueError("no such batch")
        return batch
        yield

    reading = Reading(iter(range(3)), read, lambda _: 1, readers=2)
    assert reading.next() is not None
    with pytest.raises(ValueError, match="no such batch"):
        reading.next()
    reading.close()


def test_patches_times_a_matrix_are_what_the_convolution_gives() -> None:
    convolution = torch.nn.Conv3d(3, 16, kernel_size=(2, 4, 4), stride=(2, 4, 4))
    patches = torch.randn(7, 3, 2, 4, 4)
    assert torch.allclose(PatchProjection(convolution)(patches), convolution(patches).flatten(1), atol=1e-6)
