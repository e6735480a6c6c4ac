"""One cache, two readouts: equal to the plain forward pass, whatever the batch; bad generations are counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmeb_harness import Item, OptionError, Trace
from mmemb_r1_model.decoding.step import likeliest, suppressed
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.model.collate import Batch, collate
from mmemb_r1_model.model.prompt import Prompt, extended
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK

TOLERANCE = 1e-5


def embed(embedder: MMEmbR1Embedder, items: Sequence[Item]) -> tuple[np.ndarray, list[Trace]]:
    result = embedder.encode(items, "query")
    assert result.traces is not None
    return result.vectors, list(result.traces)


def plain_state(engine: Engine, prompt: Prompt) -> np.ndarray:
    """Hidden state of the last token in one uncached pass of the whole model."""
    batch: Batch = collate([prompt], 0).tensors()
    with torch.inference_mode():
        hidden = engine.model.model(
            input_ids=batch.ids_BL,
            attention_mask=batch.mask_BL,
            mm_token_type_ids=batch.types_BL,
            **batch.pixels,  # positions are left to the library: ours must agree with its own
        ).last_hidden_state[0, -1]
    state: np.ndarray = hidden.numpy()
    return state


def plain_forward(engine: Engine, prompt: Prompt) -> np.ndarray:
    """The same, scaled to unit length."""
    state = plain_state(engine, prompt)
    return state / np.linalg.norm(state)


@pytest.mark.parametrize("mode", ["never", "always"])
@pytest.mark.parametrize("which", ["random", "trained"])
def test_cached_readout_equals_a_full_forward_pass(
    mode: str, which: str, random_checkpoint: Path, items: list[Item]
) -> None:
    embedder = load(str(random_checkpoint) if which == "random" else None, reasoning=mode)  # type: ignore[arg-type]
    vectors, traces = embed(embedder, items)
    tokens = embedder.engine.tokenizer
    for item, vector, trace in zip(items, vectors, traces, strict=True):
        prompt = embedder.prompt(item)
        assert trace.state is not None
        assert trace.state.shape == (embedder.info.state_dimensions,)
        assert trace.state == pytest.approx(plain_state(embedder.engine, prompt), abs=20 * TOLERANCE), item.id
        if mode == "always":
            assert trace.rationale is not None
            for token in generated_tokens(embedder, item):
                prompt = extended(prompt, [token])
        else:
            prompt = extended(prompt, [tokens.id_of("<emb>")])
        assert np.abs(plain_forward(embedder.engine, prompt) - vector).max() < TOLERANCE, item.id


@torch.inference_mode()
def generated_tokens(embedder: MMEmbR1Embedder, item: Item) -> list[int]:
    """What one item generates, found by calling the model without a cache, token by token."""
    engine, tokenizer = embedder.engine, embedder.engine.tokenizer
    prompt = extended(embedder.prompt(item), [tokenizer.id_of("<think>")])
    fed = [tokenizer.id_of("<think>")]
    limit = embedder._settings.max_new_tokens
    for _ in range(limit):
        batch = collate([prompt], 0).tensors()
        hidden = engine.model.model(
            input_ids=batch.ids_BL, attention_mask=batch.mask_BL, mm_token_type_ids=batch.types_BL, **batch.pixels
        ).last_hidden_state[:, -1]
        token = int(likeliest(engine.model.lm_head, hidden, never(engine))[0])
        if token in (tokenizer.id_of("</think>"), tokenizer.id_of("<emb>"), tokenizer.id_of("<|im_end|>")):
            break
        fed.append(token)
        prompt = extended(prompt, [token])
    return [*fed, tokenizer.id_of("</think>"), tokenizer.id_of("<emb>")]


@pytest.mark.parametrize("mode", ["never", "always", "adaptive"])
@pytest.mark.parametrize("which", ["random", "trained"])
def test_a_vector_does_not_depend_on_its_batch(
    mode: str, which: str, random_checkpoint: Path, items: list[Item]
) -> None:
    path = str(random_checkpoint) if which == "random" else None
    embedder = load(path, reasoning=mode)  # type: ignore[arg-type]
    together, traces = embed(embedder, items)
    backwards, _ = embed(embedder, items[::-1])
    assert np.abs(together - backwards[::-1]).max() < TOLERANCE
    for item, vector, trace in zip(items, together, traces, strict=True):
        alone, alone_traces = embed(embedder, [item])
        assert np.abs(alone[0] - vector).max() < TOLERANCE, item.id
        assert (alone_traces[0].rationale, alone_traces[0].path) == (trace.rationale, trace.path)


def test_modes_differ_as_they_must(random_checkpoint: Path, items: list[Item]) -> None:
    path = str(random_checkpoint)
    direct, direct_traces = embed(load(path, reasoning="never"), items)
    reasoned, reasoned_traces = embed(load(path, reasoning="always"), items)
    assert {trace.path for trace in direct_traces} == {"direct"}
    assert {trace.rationale for trace in direct_traces} == {None}
    assert {trace.reasoning_tokens for trace in direct_traces} == {0}
    assert {trace.path for trace in reasoned_traces} == {"reasoned"}
    assert all(trace.reasoning_tokens >= 3 for trace in reasoned_traces)
    assert (np.abs(direct - reasoned).max(axis=1) > 1e-3).all()
    gates = [trace.gate for trace in direct_traces]
    assert gates == pytest.approx([trace.gate for trace in reasoned_traces], abs=1e-6)
    between = sorted(gate for gate in gates if gate is not None)[len(gates) // 2 - 1 : len(gates) // 2 + 1]
    adaptive, adaptive_traces = embed(load(path, reasoning="adaptive", threshold=sum(between) / 2), items)
    for row, trace in enumerate(adaptive_traces):
        assert (trace.path == "reasoned") == (gates[row] > sum(between) / 2)  # type: ignore[operator]
        expected = reasoned if trace.path == "reasoned" else direct
        assert np.abs(adaptive[row] - expected[row]).max() < TOLERANCE
    assert {trace.path for trace in adaptive_traces} == {"direct", "reasoned"}


@pytest.mark.parametrize(("threshold", "mode"), [(0.0, "always"), (1.0, "never")])
def test_extreme_thresholds_are_the_other_modes(
    threshold: float, mode: str, random_checkpoint: Path, items: list[Item]
) -> None:
    path = str(random_checkpoint)
    adaptive, _ = embed(load(path, reasoning="adaptive", threshold=threshold), items)
    fixed, _ = embed(load(path, reasoning=mode), items)  # type: ignore[arg-type]
    assert np.abs(adaptive - fixed).max() < TOLERANCE


@torch.inference_mode()
def written_log_probs(embedder: MMEmbR1Embedder, item: Item, fed: Sequence[int]) -> list[float]:
    """Of the rationale's tokens and its end, in one uncached pass over all that was written."""
    engine = embedder.engine
    states = engine.prefill(engine.batch([extended(embedder.prompt(item), list(fed))]), None)[0, -len(fed) : -2]
    logits = engine.model.lm_head(states) + suppressed(engine.model, engine.rule.never)
    log_probs: list[float] = logits.log_softmax(dim=-1)[range(len(fed) - 2), list(fed[1:-1])].tolist()
    return log_probs


@pytest.mark.parametrize("slots", [2, 64])
def test_an_unsure_rationale_is_given_up_for_the_direct_vector(items: list[Item], slots: int) -> None:
    plain, direct = load(threshold=0.0), load(reasoning="never")
    reasoned, traces = embed(plain, items)
    vectors = embed(direct, items)[0]
    tokenizer = plain.engine.tokenizer
    think, end, emb = (tokenizer.id_of(token) for token in (THINK, END_THINK, EMB))
    fed = [[think, *tokenizer.plain(" " + (trace.rationale or "")), end, emb] for trace in traces]
    sure = [written_log_probs(plain, item, own) for item, own in zip(items, fed, strict=True)]
    lowest = sorted(min(own) for own in sure)
    bound = float(np.mean(lowest[len(lowest) // 2 :][:2]))  # between two of them: rounding may move one
    embedder = load(threshold=0.0, veto=f"{bound}")
    embedder.engine.decoder.groups.most_rows = slots
    with_veto, kept = embed(embedder, items)
    assert {trace.path for trace in kept} == {"reasoned", "vetoed"}
    for place, trace in enumerate(kept):
        is_vetoed = min(sure[place]) < bound
        assert trace.path == ("vetoed" if is_vetoed else "reasoned")
        expected = vectors[place] if is_vetoed else reasoned[place]
        assert np.abs(with_veto[place] - expected).max() < TOLERANCE
        if is_vetoed:  # at the first such token, which isn't written any more
            assert trace.reasoning_tokens == 1 + next(at for at, one in enumerate(sure[place]) if one < bound)
            assert (traces[place].rationale or "").startswith(trace.rationale or "")
    early = load(threshold=0.0, veto=f"{bound}:1")
    assert [trace.path == "vetoed" for trace in embed(early, items)[1]] == [own[0] < bound for own in sure]
    assert early.info.settings["veto"] == f"{bound}:1"
    assert "veto" in early.info.query_settings
    assert "veto" not in plain.info.settings


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"veto": "low"}, "veto=low must be BOUND or BOUND:TOKENS"),
        ({"veto": "0.5"}, "at most 0"),
        ({"veto": "-1:-2"}, "number of tokens"),
        ({"veto": "-1", "reasoning": "always"}, "only --reasoning adaptive has at hand"),
        ({"veto": "-1", "rationales": "http://localhost:1/v1"}, "a server writes whole rationales"),
    ],
)
def test_a_veto_that_cannot_be(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        load(**given)


def test_queries_and_candidates_have_modes_of_their_own(random_checkpoint: Path, items: list[Item]) -> None:
    embedder = load(str(random_checkpoint), reasoning="always", candidate_reasoning="never")
    candidates = embedder.encode(items[:2], "candidate").traces
    queries = embedder.encode(items[:2], "query").traces
    assert candidates is not None
    assert queries is not None
    assert [trace.path for trace in (*candidates, *queries)] == ["direct"] * 2 + ["reasoned"] * 2


def never(engine: Engine) -> torch.Tensor:
    """-inf where a token can't be chosen."""
    head_V = torch.zeros(len(engine.model.lm_head.weight))
    head_V[list(engine.rule.never)] = -torch.inf
    return head_V


class ScriptedHead(torch.nn.Module):
    """Says what it is told, one step after the other, whatever the hidden state."""

    def __init__(self, weight: torch.Tensor, script: list[int]) -> None:
        super().__init__()
        self.weight, self._script, self.asked = weight, script, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), len(self.weight))
        logits[:, self._script[min(self.asked, len(self._script) - 1)]] = 9.0
        self.asked += 1
        return logits


@pytest.mark.parametrize(
    ("script", "rationale", "generated", "truncated"),
    [
        ([" red", "</think>", "<emb>"], "red", 4, False),
        ([" red"], "red red red red", 7, True),  # never closes: cut at four tokens
        ([" red", "<emb>"], "red", 4, True),  # no </think>
        ([" red", "<|im_end|>"], "red", 4, True),  # ends the turn instead
        (["</think>", "<emb>"], "", 3, True),  # nothing between the markers
        ([" red", "</think>", " red"], "red", 4, True),  # no <emb> after </think>
    ],
)
def test_bad_generations_are_closed_by_rule_and_counted(
    script: list[str], rationale: str, generated: int, truncated: bool, random_checkpoint: Path, items: list[Item]
) -> None:
    embedder = load(str(random_checkpoint), reasoning="always", max_new_tokens=4)
    tokenizer, model = embedder.engine.tokenizer, embedder.engine.model
    tokens = [
        tokenizer.added_tokens[word] if word in tokenizer.added_tokens else tokenizer.plain(word)[0] for word in script
    ]
    model.lm_head = ScriptedHead(model.lm_head.weight, tokens)
    _, (trace,) = embed(embedder, items[:1])
    assert (trace.rationale, trace.reasoning_tokens, trace.truncated) == (rationale, generated, truncated)


def test_special_tokens_are_never_generated(random_checkpoint: Path) -> None:
    engine = load(str(random_checkpoint)).engine
    head, ids = engine.model.lm_head, engine.tokenizer.added_tokens
    with torch.no_grad():
        head.weight[ids["<|image_pad|>"]] += 100.0
    hidden = torch.ones(1, engine.model.config.text_config.hidden_size)
    assert int(likeliest(head, hidden, never(engine))[0]) != ids["<|image_pad|>"]


def test_rows_without_a_token_are_never_generated(random_checkpoint: Path) -> None:
    loaded = load(str(random_checkpoint)).engine
    size, model = loaded.tokenizer.size, loaded.model
    model.resize_token_embeddings(size + 64)  # as many checkpoints have them, for speed
    engine = Engine(model, loaded.tokenizer, max_new_tokens=4)
    with torch.no_grad():
        model.lm_head.weight[size:] += 100.0
    hidden = torch.ones(1, model.config.text_config.hidden_size)
    assert int(likeliest(model.lm_head, hidden, never(engine))[0]) < size
    assert not any(engine.rule.can_be(token) for token in range(size, size + 64))


def test_later_finishers_take_longer(items: list[Item]) -> None:
    _, traces = embed(load(reasoning="always"), items)
    by_tokens = sorted(traces, key=lambda trace: trace.reasoning_tokens)
    seconds = [trace.seconds for trace in by_tokens]
    assert seconds == sorted(seconds)  # type: ignore[type-var]
    assert all(second and second > 0 for second in seconds)


def test_in_bfloat16_the_batch_moves_a_vector_by_rounding_only(random_checkpoint: Path, items: list[Item]) -> None:
    embedder = load(str(random_checkpoint), reasoning="never", dtype="bfloat16")
    assert embedder.info.settings["dtype"] == "bfloat16"
    together, _ = embed(embedder, items)
    alone = np.concatenate([embed(embedder, [item])[0] for item in items])
    assert np.sum(together * alone, axis=1).min() > 0.999
    full, _ = embed(load(str(random_checkpoint), reasoning="never"), items)
    assert np.sum(together * full, axis=1).min() > 0.995
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5  # scaled to unit length in float32


def test_in_bfloat16_the_gate_is_not_rounded(random_checkpoint: Path) -> None:
    engine = load(str(random_checkpoint), dtype="bfloat16").engine
    hidden = torch.randn(64, engine.model.config.text_config.hidden_size, generator=torch.manual_seed(0)).bfloat16()
    think, emb = (engine.model.lm_head.weight[engine.tokenizer.id_of(token)].double() for token in (THINK, EMB))
    expected = torch.sigmoid(hidden.double() @ (8 * think - 8 * emb))
    with torch.no_grad():
        engine.model.lm_head.weight *= 8  # exact
    assert engine.gates(hidden).reason == pytest.approx(expected.tolist(), abs=1e-5)


@torch.inference_mode()
def gap(engine: Engine, prompt: Prompt, fed: Sequence[int], tokens: Sequence[int]) -> float:
    """Between the logits of two tokens after `fed`, in units of what bfloat16 resolves there."""
    batch = collate([extended(prompt, fed)], 0).to(engine.model.device, engine.model.dtype)
    hidden = engine.model.model(
        input_ids=batch.ids_BL,
        attention_mask=batch.mask_BL,
        mm_token_type_ids=batch.types_BL,
        position_ids=batch.positions_3BL,
        **batch.pixels,
    ).last_hidden_state[:, -1]
    logits = engine.model.lm_head(hidden).float()[0, list(tokens)]
    return float(logits.diff().abs() / 2.0 ** (logits.abs().max().log2().floor() - 7))


@pytest.mark.parametrize("which", ["random", "trained"])
def test_in_bfloat16_rationales_part_at_near_ties_only(which: str, random_checkpoint: Path, items: list[Item]) -> None:
    path = str(random_checkpoint) if which == "random" else None
    embedder = load(path, reasoning="always", dtype="bfloat16")
    engine = embedder.engine
    shapes = [
        f"{colour} {shape} left of a red {other}"
        for colour in ("blue", "green")
        for shape in ("circle", "square")
        for other in ("circle", "square", "triangle")
    ]
    many = [*items, *(Item(text, text=text, instruction="find the image that matches") for text in shapes)]
    prompts = [embedder.prompt(item) for item in many]

    def answers(size: int) -> list[tuple[tuple[int, ...], np.ndarray]]:
        batches = [collate(prompts[start : start + size], 0) for start in range(0, len(prompts), size)]
        fed = []
        for answered in engine.decoder.stream(
            iter(batches), lambda batch: engine._open(batch, ["always"], 0.0), lambda batch: batch.positions
        ):
            for answer in sorted(answered.answers, key=lambda one: one.index):
                state = torch.nn.functional.normalize(answer.state.float(), dim=0).numpy()
                fed.append((answer.fed, state))
        return fed

    parted = 0
    for prompt, (ids, vector), (alone, single) in zip(prompts, answers(8), answers(1), strict=True):
        if ids == alone:
            assert vector @ single > 0.999
            continue
        parted += 1
        same = next(place for place, pair in enumerate(zip(ids, alone, strict=False)) if pair[0] != pair[1])
        assert gap(engine, prompt, ids[:same], (ids[same], alone[same])) <= 4
    assert parted <= len(many) // 4
