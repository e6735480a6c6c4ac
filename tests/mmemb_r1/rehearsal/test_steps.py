"""All that will run on a GPU: no tensor in the wrong place, and no wait but those that are named here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from transformers import Qwen3VLConfig

from mmeb_harness.adapter.pixels import PatchShape
from mmeb_harness.adapter.uploads import Uploads
from mmemb_r1_model.decoding.pieces import piece_ends
from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.model.checkpoint import open_checkpoint
from mmemb_r1_model.model.collate import Uploaded, collate
from mmemb_r1_model.model.prompt import END_OF_TEXT, extended
from mmemb_r1_model.model.settings import EMB, Settings
from mmemb_r1_model.model.vision import levels_of
from mmemb_r1_model.rehearsal.accelerator import Accelerator
from mmemb_r1_model.rehearsal.counted import Subject, decode_peak, prefill_peak, train_peak, weight_bytes
from mmemb_r1_model.rehearsal.sizes import model_on, published_config, published_size
from mmemb_r1_model.rehearsal.steps import Load, Training, adapt_step, joint_step, judge_pass, rollouts, student_on
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.stage2 import AdaptConfig
from mmemb_r1_model.training.student import StudentConfig

TINY = open_checkpoint(None, None)
CHECKPOINT = dataclasses.replace(
    TINY,
    settings=Settings(min_pixels=1024, max_pixels=4096, video_min_pixels=1024, video_max_pixels=32768),
    vision=PatchShape(16, 2, 2, levels_of((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
)
PICTURE = Load(CHECKPOINT, "picture", 6)
LORA = StudentConfig(lora_rank=8, lora_alpha=8, gradient_checkpointing=True, dtype="bfloat16")
CACHING = ContrastConfig(micro_batch=1, gradient_caching=True)

#: Where the host may wait, and why that costs nothing that counts. All in one pass over a batch with pictures.
PICTURES = {
    "transformers.vision_utils:get_vision_interpolation_indices_and_weights": "transformers: sizes of the grids",
    "transformers.vision_utils:get_vision_position_ids": "transformers: sizes of the grids",
    "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLModel.get_image_features": "transformers: sizes of pictures",
    "transformers.utils.import_utils:torch_compilable_check": "transformers: whether all pictures have their tokens",
    "transformers.models.qwen3_vl.modeling_qwen3_vl:Qwen3VLTextModel._deepstack_process": "transformers: by a mask",
    "mmemb_r1_model.decoding.pictures:find_ends_once.<locals>.with_ends": "once, instead of three times a layer",
}
ENGINE = {
    "mmemb_r1_model.embed.engine:Engine.__init__": "once",
    "mmemb_r1_model.embed.engine:Engine.gates": "who reasons has to be known before the next batch is read",
    "mmemb_r1_model.embed.engine:unit_vectors": "the result",
    "mmemb_r1_model.embed.engine:states_of_gates": "a part of the result",
    "mmemb_r1_model.embed.engine:Engine._result_of": "places of rows, once a batch",
    "mmemb_r1_model.decoding.step:Step.__init__": "once a size of slots",
    "mmemb_r1_model.decoding.step:suppressed": "once a size of slots",
    "mmemb_r1_model.decoding.slots:SlotCache.admit.<locals>.<genexpr>": "places of rows, when some enter",
    "mmemb_r1_model.decoding.stream:_Run._advance_group": "the tokens of a step, all at once",
    "mmemb_r1_model.decoding.stream:_Run._answer": "places of rows, when some leave",
    "mmemb_r1_model.decoding.clock:StageClock.take": "times, when a batch is answered",
}
PIECES = {
    "mmemb_r1_model.decoding.pieces:read_in_pieces": "visual tokens of a piece, where prompts have several",
    "mmemb_r1_model.decoding.pieces:read_in_pieces.<locals>.<listcomp>": "the same",
}
PASS = {
    "mmemb_r1_model.training.packing:pack": "the parts of the rows, a number a token",
    "mmemb_r1_model.training.student:PackedModel.forward": "ends of branches",
    "mmemb_r1_model.training.student:PackedModel._log_probs": "places of scored tokens",
}
STAGE_1 = {
    "mmemb_r1_model.training.joint:joint_backward": "gradients of rows that were picked by a list",
    "mmemb_r1_model.training.joint:_run": "which items reason, a number each",
    "mmemb_r1_model.training.joint:_loss": "which pairs reason, and who is right for whom",
    "mmemb_r1_model.training.joint:_loss.<locals>.<dictcomp>": "the terms, for the log",
    "mmemb_r1_model.training.loop:Loop.take": "the norm of the gradient, which has to be a number",
}
STAGE_2 = {
    "mmemb_r1_model.training.bank:Bank.excluded": "who is right for whom",
    "mmemb_r1_model.training.stage2:AdaptStep._rewards": "lengths and forms of rollouts, places in the bank",
    "mmemb_r1_model.training.stage2:AdaptStep._backward": "advantages and divergence of a micro-batch",
    "mmemb_r1_model.training.stage2:AdaptStep._token_losses": "of each rollout its log-probabilities",
    "mmemb_r1_model.training.stage2:_seen.<locals>.<dictcomp>": "what a micro-batch showed, for the log",
}
ROLLOUTS = {
    "mmemb_r1_model.training.rollouts:Marks.of": "what can't be written, once a micro-batch",
    "mmemb_r1_model.training.rollouts:_Sampling.run": "the tokens of a step and what they were worth",
}


def small(layers: int = 1, blocks: int = 1) -> Qwen3VLConfig:
    """Of the published width; the number of layers changes no place and no shape."""
    config = published_config("2B")
    config.text_config.num_hidden_layers, config.vision_config.depth = layers, blocks
    config.vision_config.deepstack_visual_indexes = [0]
    return config


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    accelerator = Accelerator()
    with accelerator.there():
        yield accelerator


def assert_waits_only_at(accelerator: Accelerator, *allowed: dict[str, str]) -> None:
    seen, names = {place.where for place in accelerator.waits}, {name for places in allowed for name in places}
    assert seen <= names, seen - names
    assert len(seen) > 2


def train(accelerator: Accelerator, config: StudentConfig) -> Training:
    return Training(student_on(World(device=accelerator.device), CHECKPOINT, small(), config))


@pytest.mark.parametrize(("mode", "piece"), [("adaptive", 1024), ("always", 1024), ("adaptive", 30)])
def test_the_engine_reads_writes_and_answers(accelerator: Accelerator, mode: str, piece: int) -> None:
    model = model_on(accelerator.device, small(), TINY.tokenizer, torch.bfloat16)
    engine = Engine(model, TINY.tokenizer, 2, piece=piece)
    ends = [] if mode == "always" else [TINY.tokenizer.id_of(EMB)]
    uploads = Uploads(torch, str(accelerator.device), "bfloat16")
    batches = []
    for _ in range(2):
        batch = collate([extended(PICTURE.prompt, ends)] * 3, TINY.tokenizer.id_of(END_OF_TEXT))
        batches.append(Uploaded(batch, uploads.start(batch.named)))
    threshold = -1.0 if mode == "adaptive" else 0.5  # an unknown gate reads as 0: all reason
    results = list(engine.stream(iter(batches), [mode], threshold))  # type: ignore[arg-type]
    assert [result.vectors.shape for result in results] == [(3, 2048)] * 2
    assert all(trace.path == "reasoned" for result in results for trace in result.traces or ())
    assert_waits_only_at(accelerator, PICTURES, ENGINE, PIECES if piece < len(PICTURE.prompt) else {})
    steps = sum(place.where.endswith("_Run._advance_group") for place in accelerator.waits)
    # Of both batches together: <think>, two tokens, </think>, <emb>; and one between two pieces of the second.
    assert steps == 5 + len(list(piece_ends(len(PICTURE.prompt) + len(ends), piece))) - 1


@pytest.mark.parametrize(
    "config", [LORA, StudentConfig(dtype="bfloat16", train_vision=True), StudentConfig(gradient_checkpointing=True)]
)
def test_stage_1_waits_once_a_pass(accelerator: Accelerator, config: StudentConfig) -> None:
    training = train(accelerator, config)
    accelerator.waits.clear()
    values = joint_step(training, PICTURE, CACHING if config.lora_rank else ContrastConfig(), 1)
    assert "grad_norm" in values
    assert_waits_only_at(accelerator, PICTURES, PASS, STAGE_1)


def test_stage_2_and_its_rollouts(accelerator: Accelerator) -> None:
    training = train(accelerator, LORA)
    accelerator.waits.clear()
    adapt_step(training, PICTURE, AdaptConfig(negatives=4, contrast=CACHING), 1, 1)
    assert_waits_only_at(accelerator, PICTURES, PASS, STAGE_1, STAGE_2)
    accelerator.waits.clear()
    rollouts(training.student, PICTURE, 1, 2)
    assert_waits_only_at(accelerator, PICTURES, ROLLOUTS)


def test_an_evaluator_reads_clips(accelerator: Accelerator) -> None:
    model = model_on(accelerator.device, small(), TINY.tokenizer, torch.bfloat16)
    judge_pass(accelerator.device, model, Load(CHECKPOINT, "clip", 3), 1, 2, True)
    ends = {"mmemb_r1_model.selection.judge:JudgeModel.forward": "ends of branches"}
    ends[f"{__name__}:test_an_evaluator_reads_clips"] = "the result"
    assert_waits_only_at(accelerator, PICTURES, PASS, ends)


def test_published_sizes_are_those_that_their_names_say() -> None:
    assert published_size("./students/Qwen3-VL-2B") == published_size("Qwen/Qwen3-VL-2B-Instruct") == "2B"
    assert published_size("Qwen/Qwen3-VL-30B-A3B-Instruct") is None
    billions = {size: weight_bytes(published_config(size), torch.bfloat16) / 2e9 for size in ("2B", "4B", "8B", "32B")}
    assert {size: round(number, 2) for size, number in billions.items()} == {
        "2B": 2.13, "4B": 4.44, "8B": 8.77, "32B": 33.36,
    }  # fmt: skip


def test_weights_optimiser_and_kept_keys_are_what_arithmetic_says() -> None:
    subject = Subject(CHECKPOINT, small(2), "text", 16)
    peak = train_peak(subject, StudentConfig(train_vision=True), ContrastConfig(), 1)
    weights = weight_bytes(small(2), torch.float32)
    assert peak.by_kind["optimiser"] == pytest.approx(2 * weights, rel=1e-3)
    assert peak.by_kind["weights"] == pytest.approx(weights, rel=1e-3)
    rows, tokens = 3, len(subject.load.prompt)
    read = prefill_peak(subject, rows)
    assert read.by_kind["weights"] == pytest.approx(weights / 2, rel=1e-3)
    step = decode_peak(subject, 8)
    columns = -(-(tokens + 16 // 4 + 3) // 64) * 64
    token = 2 * 2 * 8 * 128 * 2
    # The slots, and the one prompt that was read for them.
    assert step.by_kind["kv"] == pytest.approx((8 * columns + tokens) * token, rel=1e-3)


@pytest.mark.slow
def test_what_a_layer_adds_is_the_same_for_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(6)
    subject = Subject(CHECKPOINT, config, "text", 16)
    reckoned = train_peak(subject, LORA, CACHING, 1)
    monkeypatch.setattr("mmemb_r1_model.rehearsal.counted._LAYERS", 6)
    assert reckoned.bytes == pytest.approx(train_peak(subject, LORA, CACHING, 1).bytes, rel=1e-6)
