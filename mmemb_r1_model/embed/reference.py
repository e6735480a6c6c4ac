"""The same embeddings the plain way, to compare with: a pass for the gate, `generate`, a pass for the vectors; in mode
never one pass.

No cache outlives `generate`, and a batch waits for its longest rationale. Same rules, same tokens, same vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig

from mmeb_harness import Mode, OptionError, Trace
from mmemb_r1_model.decoding import as_the_library_has_it, likeliest, suppressed
from mmemb_r1_model.embed.engine import Engine, Gates, direct_trace, unit_vectors
from mmemb_r1_model.model.prompt import Prompt, extended

#: Of continuous batching's cache; by default it takes nearly all that is free, on a CPU as well.
SHARE_OF_MEMORY = 0.2

#: Writes after each prompt, at most as much as the rule allows: tokens between <think> and what ends them.
Write = Callable[[Engine, Sequence[Prompt]], list[list[int]]]


@torch.inference_mode()
def embed_plainly(
    engine: Engine, prompts: Sequence[Prompt], mode: Mode, threshold: float, write: Write | None = None
) -> tuple[Tensor, list[Trace]]:
    """One padded batch.

    Args:
        write: `None`: by `generate`.

    Returns:
        Unit vectors (B, D) in float32 on the CPU, and how each came about.
    """
    started, rule = time.perf_counter(), engine.rule
    with as_the_library_has_it(engine.model):
        gates: Gates | None = None
        limits: dict[int, int | None] = {}
        if mode != "never":
            gates = engine.gates(engine.prefill(engine.batch(prompts), None)[:, -1])
            limits = engine.limits(gates, mode, threshold)
        rows = list(limits)
        texts = (write or _write)(engine, [prompts[row] for row in rows]) if rows else []
        written = {row: text[: limits[row]] for row, text in zip(rows, texts, strict=True)}
        tails = [
            [rule.think, *written[row], rule.end_think, rule.emb] if row in written else [rule.emb]
            for row in range(len(prompts))
        ]
        whole = [extended(prompt, tail) for prompt, tail in zip(prompts, tails, strict=True)]
        states_BLD = engine.prefill(engine.batch(whole), None)
    gates = gates or engine.gates(states_BLD[:, -2])
    vectors_BD = unit_vectors(states_BLD[:, -1])
    # What the model would have written where </think> stands, and behind it: anything else was put right by rule.
    never_V = suppressed(engine.model, rule.never)
    wanted_B2 = likeliest(engine.model.lm_head, states_BLD[:, -3:-1], never_V).tolist() if rows else []
    seconds = time.perf_counter() - started
    traces = []
    for row, gate in enumerate(gates.reason):
        if row not in written:
            traces.append(direct_trace(gate, seconds))
            continue
        as_written = wanted_B2[row] == [rule.end_think, rule.emb] and len(written[row]) > 0
        as_written |= len(written[row]) == limits[row]  # closed as was asked for
        traces.append(engine.reasoned(gate, tails[row], not as_written, seconds))
    return vectors_BD, traces


def _write(engine: Engine, prompts: Sequence[Prompt]) -> list[list[int]]:
    batch = engine.batch([extended(prompt, [engine.rule.think]) for prompt in prompts])
    with _settings(engine) as settings:
        ids_BL = engine.model.generate(**batch.inputs, attention_mask=batch.mask_BL, generation_config=settings)
    return [_until_the_end(engine, row) for row in ids_BL[:, batch.ids_BL.shape[1] :].tolist()]


def write_continuously(engine: Engine, prompts: Sequence[Prompt]) -> list[list[int]]:
    """By transformers' continuous batching.

    Raises:
        OptionError: a prompt with pictures, which it doesn't take.
    """
    if any(prompt.patches for prompt in prompts):
        raise OptionError(
            "--beside generate_batch: transformers' continuous batching takes texts alone, and pictures are to be "
            "reasoned about here; choose tasks whose queries are texts"
        )
    inputs = [extended(prompt, [engine.rule.think]).ids.tolist() for prompt in prompts]
    with _settings(engine) as settings:
        outputs = engine.model.generate_batch(
            inputs=inputs,
            generation_config=settings,
            continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=SHARE_OF_MEMORY),
        )
    # Requests are named by their number, and end in any order.
    ended = [outputs[name] for name in sorted(outputs, key=lambda name: int(name.rsplit("_", 1)[1]))]
    return [_until_the_end(engine, output.generated_tokens) for output in ended]


@contextmanager
def _settings(engine: Engine) -> Iterator[GenerationConfig]:
    rule, model = engine.rule, engine.model
    of_checkpoint = model.generation_config
    model.generation_config = GenerationConfig()  # whatever isn't set below would come from there: penalties, too
    try:
        yield GenerationConfig(
            do_sample=False,
            use_cache=True,
            max_new_tokens=rule.limit,
            eos_token_id=_ends(engine),
            pad_token_id=rule.turn_end,
            suppress_tokens=list(rule.never),
        )
    finally:
        model.generation_config = of_checkpoint


def _ends(engine: Engine) -> list[int]:
    return [engine.rule.end_think, engine.rule.emb, engine.rule.turn_end]


def _until_the_end(engine: Engine, written: Sequence[int]) -> list[int]:
    return list(takewhile(lambda token: token not in _ends(engine), written))
