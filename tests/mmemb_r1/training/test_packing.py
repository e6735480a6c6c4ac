"""A packed pass against separate ones; the student's readouts against the engine's; batched vision attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmeb_harness import Item
from mmemb_r1_model.decoding import as_the_library_has_it
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.collate import collate
from mmemb_r1_model.model.prompt import Prompt, continuation
from mmemb_r1_model.training.batches import Input
from mmemb_r1_model.training.packing import pack, run_packed
from mmemb_r1_model.training.prompts import PromptCache
from mmemb_r1_model.training.rollouts import LocalSampler
from tests.mmemb_r1.small_training import make_student


def alone(model: object, pieces: list[Prompt]) -> torch.Tensor:
    """Last state of pieces one behind the other, in a pass of their own."""
    start, ids, types, positions = 0, [], [], []
    for piece in pieces:
        ids.append(piece.ids)
        types.append(piece.types)
        positions.append(piece.positions + start)
        start += piece.next_position
    joined = Prompt(np.concatenate(ids), np.concatenate(types), np.concatenate(positions, axis=1), start)
    batch = collate([joined], 0).tensors()
    pixels = collate(pieces, 0).tensors().pixels
    return model.model(  # type: ignore[attr-defined,no-any-return]
        input_ids=batch.ids_BL,
        attention_mask=batch.mask_BL,
        position_ids=batch.positions_3BL,
        mm_token_type_ids=batch.types_BL,
        use_cache=False,
        **pixels,
    ).last_hidden_state[0, -1]


@torch.no_grad()
def test_branches_equal_passes_of_their_own(random_checkpoint: Path, items: list[Item]) -> None:
    student = make_student(random_checkpoint)
    prompts = [student.reader.prompt(item) for item in items]
    picture = student.reader.prompt(items[2])
    branches = [[continuation([7, 8, 9]), picture, continuation([5])][: 1 + row % 3] for row in range(len(prompts))]
    packed = pack(prompts, branches, student.pad, student.device)
    hidden = run_packed(student.backbone, packed)
    assert len(packed.branches) == sum(map(len, branches))
    for branch, piece in zip(packed.branches, (one for own in branches for one in own), strict=True):
        expected = alone(student.backbone, [prompts[branch.row], piece])
        assert (hidden[branch.row, branch.end - 1] - expected).abs().max() < 1e-5
    for row, prompt in enumerate(prompts):
        expected = alone(student.backbone, [prompt])
        assert (hidden[row, packed.prompt_length - 1] - expected).abs().max() < 1e-5


@torch.no_grad()
def test_a_student_reads_what_the_embedder_reads(random_checkpoint: Path, items: list[Item]) -> None:
    student = make_student(random_checkpoint)
    for mode in ("never", "always"):
        result = load(str(random_checkpoint), reasoning=mode).encode(items, "query")  # type: ignore[arg-type]
        assert result.traces is not None
        for item, vector, trace in zip(items, result.vectors, result.traces, strict=True):
            completion = [student.emb] if trace.rationale is None else student.completion(trace.rationale)
            if trace.truncated and trace.rationale is not None:
                continue  # closed by rule: its text need not tokenise into the tokens that were written
            encoded = student.encode(student.pack([student.reader.prompt(item)], [[completion]]))
            assert np.abs(encoded.vectors_RD[0].numpy() - vector).max() < 1e-5
            gate = torch.sigmoid(encoded.gate_BA[0, 0] - encoded.gate_BA[0, 1])
            assert trace.gate == pytest.approx(float(gate), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"lora_rank": 4, "lora_alpha": 8}])
def test_in_bfloat16_the_gate_is_not_rounded(
    settings: dict[str, int], random_checkpoint: Path, items: list[Item]
) -> None:
    student = make_student(random_checkpoint, dtype="bfloat16", **settings)
    head = student.module.transformers_model.lm_head
    if settings:
        head.row += 0.1  # as if it had learnt
    states: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    packed = student.pack([student.reader.prompt(item) for item in items], [[[student.emb]] for _ in items])
    gate = student.encode(packed).gate_BA
    emb = head.row if settings else head.weight[student.emb]
    difference = head.weight[student.think].double() - emb.double()
    expected = states[0].double() @ difference
    assert (gate[:, 0] - gate[:, 1] - expected).abs().max() < 1e-5
    assert (gate.exp().sum(dim=1) < 1).all()


def test_rollouts_are_written_in_the_configured_type(random_checkpoint: Path, items: list[Item]) -> None:
    student = make_student(random_checkpoint, dtype="bfloat16")
    heads: list[torch.dtype] = []
    student.module.transformers_model.lm_head.register_forward_hook(lambda *given: heads.append(given[2].dtype))
    inputs = [Input(item, student.reader.prompt(item), None) for item in items]
    sampler = LocalSampler(student)
    sampler.refresh(0)
    sampler.sample(inputs, 2, 4, seed=1)
    assert set(heads) == {torch.bfloat16}


@torch.no_grad()
def test_what_is_quicker_equals_the_librarys(random_checkpoint: Path, items: list[Item]) -> None:
    embedder = load(str(random_checkpoint))
    model = embedder.engine.model
    pictures = [item for item in items if item.media]
    batch = collate([embedder.prompt(item) for item in pictures], 0).tensors()

    def states() -> torch.Tensor:
        found: torch.Tensor = model.model(
            input_ids=batch.ids_BL,
            attention_mask=batch.mask_BL,
            position_ids=batch.positions_3BL,
            mm_token_type_ids=batch.types_BL,
            **batch.pixels,
        ).last_hidden_state
        return found

    ours = states()
    with as_the_library_has_it(model):
        assert not any("forward" in vars(module) for module in model.modules())
        assert (ours - states()).abs().max() < 1e-5
    assert torch.equal(states(), ours)


def test_training_multiplies_patches_as_the_engine_does(random_checkpoint: Path, items: list[Item]) -> None:
    student = make_student(random_checkpoint)
    model = student.module.transformers_model
    pictures = [item for item in items if item.media]

    def vectors_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        student.module.zero_grad()
        packed = student.pack([student.reader.prompt(item) for item in pictures], [[[student.emb]] for _ in pictures])
        vectors = student.encode(packed).vectors_RD
        vectors[:, 0].sum().backward()
        return vectors.detach(), model.model.visual.patch_embed.proj.weight.grad.clone()

    ours = vectors_and_gradient()
    assert not isinstance(model.model.visual.patch_embed.proj, torch.nn.Conv3d)
    with as_the_library_has_it(model):
        assert isinstance(model.model.visual.patch_embed.proj, torch.nn.Conv3d)
        convolved = vectors_and_gradient()
    torch.testing.assert_close(ours, convolved, rtol=1e-4, atol=1e-5)
    assert ours[1].abs().max() > 1e-4


def test_as_many_prompts_as_asked_for_are_read_once(items: list[Item], random_checkpoint: Path) -> None:
    prompt_of, read = load(str(random_checkpoint)).prompt, []

    def reading(item: Item) -> Prompt:
        read.append(item.id)
        return prompt_of(item)

    cache = PromptCache(reading, limit=3)
    for item in items * 2:
        assert cache(item).ids.tolist() == prompt_of(item).ids.tolist()
    assert read == [item.id for item in [*items, *items[3:]]]
