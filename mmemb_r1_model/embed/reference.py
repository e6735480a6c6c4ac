"""The same embeddings the plain way, to compare with: a pass for the gate, `generate`, a pass for the vectors; in mode
never one pass.

No cache outlives `generate`, and a batch waits for its longest rationale. Same rules, same tokens, same vectors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import GenerationConfig

from mmeb_harness import Trace
from mmemb_r1_model.decoding import as_the_library_has_it, likeliest, suppressed
from mmemb_r1_model.embed.engine import Engine, direct_trace, rows_that_reason, unit_vectors
from mmemb_r1_model.model.prompt import Prompt, extended
from mmemb_r1_model.model.settings import Reasoning


@torch.inference_mode()
def embed_plainly(
    engine: Engine, prompts: Sequence[Prompt], mode: Reasoning, threshold: float
) -> tuple[Tensor, list[Trace]]:
    """One padded batch.

    Returns:
        Unit vectors (B, D) in float32 on the CPU, and how each came about.
    """
    started, rule = time.perf_counter(), engine.rule
    with as_the_library_has_it(engine.model):
        gates: list[float] = []
        if mode != "never":
            gates = engine.gate(engine.prefill(engine.batch(prompts), None)[:, -1]).tolist()
        rows = rows_that_reason(gates, mode, threshold)
        written = dict(zip(rows, _write(engine, [prompts[row] for row in rows]), strict=True)) if rows else {}
        tails = [
            [rule.think, *written[row], rule.end_think, rule.emb] if row in written else [rule.emb]
            for row in range(len(prompts))
        ]
        whole = [extended(prompt, tail) for prompt, tail in zip(prompts, tails, strict=True)]
        states_BLD = engine.prefill(engine.batch(whole), None)
    gates = gates or engine.gate(states_BLD[:, -2]).tolist()
    vectors_BD = unit_vectors(states_BLD[:, -1])
    # What the model would have written where </think> stands, and behind it: anything else was put right by rule.
    never_V = suppressed(engine.model, rule.never)
    wanted_B2 = likeliest(engine.model.lm_head, states_BLD[:, -3:-1], never_V).tolist() if rows else []
    seconds = time.perf_counter() - started
    traces = []
    for row, gate in enumerate(gates):
        if row not in written:
            traces.append(direct_trace(gate, seconds))
            continue
        as_written = wanted_B2[row] == [rule.end_think, rule.emb] and len(written[row]) > 0
        traces.append(engine.reasoned(gate, tails[row], not as_written, seconds))
    return vectors_BD, traces


def _write(engine: Engine, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Tokens between <think> and what ends them, at most as many as the rule allows."""
    rule, model = engine.rule, engine.model
    ends = [rule.end_think, rule.emb, rule.turn_end]
    settings = GenerationConfig(
        do_sample=False,
        use_cache=True,
        max_new_tokens=rule.limit,
        eos_token_id=ends,
        pad_token_id=rule.turn_end,
        suppress_tokens=list(rule.never),
    )
    batch = engine.batch([extended(prompt, [rule.think]) for prompt in prompts])
    of_checkpoint = model.generation_config
    model.generation_config = GenerationConfig()  # whatever isn't set above would come from there: penalties, too
    try:
        ids_BL = model.generate(**batch.inputs, attention_mask=batch.mask_BL, generation_config=settings)
    finally:
        model.generation_config = of_checkpoint
    written = ids_BL[:, batch.ids_BL.shape[1] :].tolist()
    return [list(takewhile(lambda token: token not in ends, row)) for row in written]
