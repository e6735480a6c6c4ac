"""Long prompts in pieces, rows of any length beside each other: the same numbers in memory that is bounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from mmeb_harness import Item
from mmemb_r1_model.decoding import Decoder, Opened, Pieces, Prompts, Row, at_once, groups, read_in_pieces, states_of
from mmemb_r1_model.decoding.groups import MOST_TIMES, SHORT, Group, Groups, columns_for
from mmemb_r1_model.decoding.pieces import LONGEST_PIECE, MOST_LOOKS, SHORTEST_PIECE, _Unmasked, piece_ends
from mmemb_r1_model.decoding.step import Held
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.model.checkpoint import open_checkpoint
from mmemb_r1_model.model.prompt import Prompt, continuation
from mmemb_r1_model.rehearsal.accelerator import Accelerator
from mmemb_r1_model.rehearsal.sizes import model_on, published_config

TINY = open_checkpoint(None, None)
LONG = Item("long", text="circle>square after three steps " * 60)


@pytest.mark.parametrize("columns", [1, LONGEST_PIECE, LONGEST_PIECE + 1, 8192, 32_768, 90_000, 200_000])
def test_pieces_are_a_prompt_and_look_at_a_bounded_number_of_columns(columns: int) -> None:
    ends = list(piece_ends(columns))
    assert (len(ends) == 1) == (columns <= LONGEST_PIECE)
    assert ends[-1] == columns
    for start, end in zip([0, *ends], ends, strict=False):
        assert 0 < end - start <= LONGEST_PIECE
        assert (end - start) * end <= MOST_LOOKS or end - start == SHORTEST_PIECE


@torch.inference_mode()
def test_a_batch_in_pieces_has_the_states_and_keys_of_one_pass(random_checkpoint: Path, items: list[Item]) -> None:
    """Pictures, clips, several pictures among text, cut anywhere; rows that begin behind the first pieces."""
    engine = load(str(random_checkpoint)).engine
    batch = engine.batch([load(str(random_checkpoint)).prompt(item) for item in items])
    prompts = Prompts(batch.mask_BL, batch.positions_3BL, batch.inputs)
    config = engine.model.config.get_text_config()
    whole, in_pieces = DynamicCache(config=config), DynamicCache(config=config)
    expected = states_of(engine.model, batch.mask_BL, batch.positions_3BL, whole, **batch.inputs)
    states = at_once(read_in_pieces(engine.model, prompts, in_pieces, longest=23))
    seen = batch.mask_BL.bool()
    cosines = torch.nn.functional.cosine_similarity(states[seen], expected[seen], dim=-1)
    assert float(cosines.min()) > 0.999999
    for layer, other in zip(in_pieces.layers, whole.layers, strict=True):
        for own, theirs in ((layer.keys, other.keys), (layer.values, other.values)):
            torch.testing.assert_close(own.transpose(1, 2)[seen], theirs.transpose(1, 2)[seen], rtol=1e-4, atol=1e-5)
    assert torch.equal(at_once(read_in_pieces(engine.model, prompts, None)), expected)  # one piece: the same arithmetic


@torch.inference_mode()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prompt_alone_in_pieces_has_the_same_states_without_a_mask(
    random_checkpoint: Path, items: list[Item], attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined, right = list[object](), _Unmasked.__torch_function__
    monkeypatch.setattr(_Unmasked, "__torch_function__", lambda *given: joined.append(given[1]) or right(*given))
    embedder = load(str(random_checkpoint), attention=attention)  # type: ignore[arg-type]
    for item in (LONG, items[2], items[-1]):
        batch = embedder.engine.batch([embedder.prompt(item)])
        expected = embedder.engine.prefill(batch, None)
        prompts = Prompts(batch.mask_BL, batch.positions_3BL, batch.inputs)
        states = at_once(read_in_pieces(embedder.engine.model, prompts, None, longest=19))
        assert float(torch.nn.functional.cosine_similarity(states, expected, dim=-1).min()) > 0.999999
    assert (torch.nn.functional.scaled_dot_product_attention in joined) == (attention == "sdpa")


@pytest.mark.parametrize("mode", ["adaptive", "always", "never"])
def test_an_engine_that_reads_in_pieces_gives_what_the_plain_way_gives(
    mode: str, random_checkpoint: Path, items: list[Item]
) -> None:
    embedder = load(str(random_checkpoint), reasoning=mode, threshold=0.0, max_new_tokens=5)  # type: ignore[arg-type]
    embedder.engine.piece = 37
    many = [*items, LONG]
    batches = (embedder.prepare(many[start : start + 4], "query") for start in range(0, len(many), 4))
    vectors = np.concatenate([result.vectors for result in embedder.encode_stream(batches)])
    plain = embedder.encode_reference(many, "query").vectors
    assert np.sum(vectors * plain, axis=1).min() > 0.999999


@dataclasses.dataclass
class Counting:
    """A rule by which each row is fed as many tokens as its limit says, and what happened when."""

    happened: list[str] = dataclasses.field(default_factory=list)

    mark, never = 3, ()

    def longest(self, limit: int | None) -> int:
        return 40

    def choose(self, row: Row, wanted: int) -> int | None:
        if row.fed and row.fed[-1] == self.mark:
            return None
        self.happened += ["token"] * bool(row.fed)
        return self.mark if len(row.fed) + 1 == row.limit else 5


def opened_in(pieces: int, engine: Engine, prompt: Prompt, rule: Counting, tokens: int) -> Pieces[Opened[None]]:
    for _ in range(pieces - 1):
        rule.happened.append("piece")
        yield
    batch, past = engine.batch([prompt]), DynamicCache(config=engine.model.config.get_text_config())
    engine.prefill(batch, past)
    return Opened(None, [0], [0], [len(prompt)], batch.next_position_B.tolist(), [5], past, [tokens])


@pytest.mark.parametrize("readers", [1, 2])
def test_others_get_a_token_between_the_pieces_of_a_long_prompt(readers: int, random_checkpoint: Path) -> None:
    embedder = load(str(random_checkpoint))
    rule = Counting()
    decoder = Decoder(embedder.engine.model, rule, slots=4)
    decoder.readers = readers
    prompt = embedder.prompt(Item("short", text="a red circle"))
    batches = iter([(1, 30), (6, 2)])

    def opened(batch: tuple[int, int]) -> Pieces[Opened[None]]:
        return opened_in(batch[0], embedder.engine, prompt, rule, batch[1])

    list(decoder.stream(batches, opened, lambda batch: batch[0]))
    # A second reader has read the first piece beside the other batch, before that one's row had its first token.
    begun = rule.happened.index("piece") + readers - 1
    assert rule.happened[begun : begun + 2 * (6 - readers)] == ["piece", "token"] * (6 - readers)


def filled(decoder: Decoder, needed: Sequence[int]) -> list[Group[int] | None]:
    """The group of each of some rows, which come one after another."""
    held: Groups[int] = decoder.groups
    places = []
    for number, columns in enumerate(needed):
        group = held.place([columns])
        if group is not None:
            group.active.append(number)
        places.append(group)
    return places


def test_memory_is_what_rows_may_come_to_and_not_the_longest_of_all(random_checkpoint: Path) -> None:
    model = load(str(random_checkpoint)).engine.model
    needed = [8000, *[200] * 30, 3000, *[500] * 20]
    decoder = Decoder(model, Counting(), slots=64)
    filled(decoder, needed)
    token = decoder.groups._token_bytes
    reserved = sum(max(columns, SHORT) for columns in needed) * token
    assert sum(needed) * token <= decoder.groups.bytes <= MOST_TIMES * 1.5 * reserved < len(needed) * 8000 * token / 4
    # Short ones in slots of their own again when the long one has left, whose memory is given up for others.
    for group in decoder.groups.busy:
        group.active.clear()
    decoder._bytes = decoder.groups.bytes
    (place,) = filled(decoder, [12_000])
    assert place is not None
    assert decoder.groups.bytes == columns_for(12_000) * token * place.step.cache.slots


def test_rows_wait_where_memory_is_bounded_and_one_always_goes_on(random_checkpoint: Path) -> None:
    decoder = Decoder(load(str(random_checkpoint)).engine.model, Counting(), slots=64)
    token = decoder.groups._token_bytes
    decoder._bytes = 3 * columns_for(1000) * token
    places = filled(decoder, [1000] * 5)
    assert [place is None for place in places] == [False] * 3 + [True] * 2
    assert decoder.groups.bytes <= decoder._bytes
    decoder.groups.clear()
    (alone,) = filled(decoder, [50_000])  # more than there is room for
    assert alone is not None
    assert alone.step.cache.slots == 1


@pytest.mark.parametrize("room", [1, 3, None])
def test_rows_move_to_longer_slots_and_wait_for_them_and_write_the_same(
    random_checkpoint: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch, room: int | None
) -> None:
    """Groups that grow and that are given up; a long row among short ones; memory for a few rows, or for all."""
    monkeypatch.setattr(groups, "AHEAD", 2)
    monkeypatch.setattr(groups, "SHORT", 0)
    embedder = load(str(random_checkpoint), reasoning="always", max_new_tokens=70)
    decoder, waited = embedder.engine.decoder, list[Held]()
    on_host = Held.on_host
    monkeypatch.setattr(Held, "on_host", lambda held: waited.append(held) or on_host(held))
    decoder._bytes = room and room * columns_for(200) * decoder.groups._token_bytes
    order = [items[0], LONG, *items[1:], LONG, items[0]]
    prepared: Iterator[Any] = (embedder.prepare(order[start : start + 3], "query") for start in range(0, 12, 3))
    results = list(embedder.encode_stream(prepared))
    plain = embedder.encode_reference(order, "query")
    assert np.abs(np.concatenate([result.vectors for result in results]) - plain.vectors).max() < 1e-5
    written = [trace.rationale for result in results for trace in result.traces or ()]
    assert written == [trace.rationale for trace in plain.traces or ()]
    assert bool(waited) == (room is not None)


def test_a_document_of_32_000_tokens_takes_no_more_than_its_keys_and_a_piece() -> None:
    """Counted on a GPU that isn't there, at the width of the 2B model: what grows with a prompt is linear in it."""
    config = published_config("2B")
    config.text_config.num_hidden_layers = 1
    config.vision_config.depth, config.vision_config.deepstack_visual_indexes = 1, [0]
    accelerator = Accelerator(memory=1 << 50)
    peaks = {}
    with accelerator.there() as ledger:
        engine = Engine(model_on(accelerator.device, config, TINY.tokenizer, torch.bfloat16), TINY.tokenizer, 8)
        for tokens in (8192, 32_000):
            batch = engine.batch([continuation([5] * tokens)])
            since, held = ledger.mark(), ledger.held()
            with torch.inference_mode():
                at_once(engine.read(batch, None))
            peaks[tokens] = ledger.peak(since).bytes - held
            del batch
    # Keys and values of the layer, and once more for every head; what goes in, what comes out, and that joined.
    token = 2 * (8 + 16) * 128 * 2 + 3 * 2048 * 2
    grown = peaks[32_000] - peaks[8192]
    assert grown < (32_000 - 8192) * (token + 3 * LONGEST_PIECE)  # a piece's mask, as truth values and as numbers
