"""Both training stages, a dozen steps or fewer: they learn, repeat themselves, go on as if never broken off, stop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.disk.jsonl import Row
from mmemb_r1_model.disk.trackers import OpenCurves, log_alone
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS
from mmemb_r1_model.training import policy, stage1, stage2
from mmemb_r1_model.training.batches import Input, PlanConfig, StepBatch, WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.loop import LoopConfig, TrainingError, fingerprint
from mmemb_r1_model.training.losses import JointWeights
from mmemb_r1_model.training.packing import Packed
from mmemb_r1_model.training.saved import LEAST_COSINE, Distance, check_saved, distance, pair_item
from mmemb_r1_model.training.stage1 import TrainConfig, train
from mmemb_r1_model.training.stage2 import AdaptConfig, adapt
from mmemb_r1_model.training.student import Encoded, PackedModel, Student, save_checkpoint
from tests.mmemb_r1.small_pairs import Pairs
from tests.mmemb_r1.small_training import Written, make_pairs, make_student, shake

LOOP = LoopConfig(steps=12, learning_rate=1e-3, warmup=2, log_every=1, save_every=8, seed=3, cached_prompts=1000)
TRAIN = TrainConfig(
    plan=PlanConfig(batch_size=8, sub_batches=2, distractors=2),
    contrast=ContrastConfig(temperature=0.05),
    loop=LOOP,
)
ADAPT = AdaptConfig(
    plan=PlanConfig(batch_size=8),
    groups=3,
    micro_groups=2,
    negatives=4,
    rollouts=6,
    sides=("query", "positive"),
    contrast=ContrastConfig(temperature=0.05, weights=JointWeights(generation=0.0)),
    loop=dataclasses.replace(LOOP, steps=4, save_every=3, learning_rate=3e-4),
)


def log_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def run_train(
    checkpoint: Path,
    data: Path,
    folder: Path,
    config: TrainConfig = TRAIN,
    world: World | None = None,
    open_curves: OpenCurves = log_alone,
) -> Path:
    student = make_student(checkpoint)
    first, written = make_pairs(data, 24, "first")
    second, _ = make_pairs(data, 16, "second")
    sets = [WeightedSet(first, 1.0), WeightedSet(second, 2.0)]
    return train(student, sets, written, config, folder, world or World(), open_curves)


def begun_in_release_0_1(state: Path) -> None:
    """As if a run had been begun with that release's setting of event files, turned on."""
    values = torch.load(state, weights_only=True)
    described = json.loads((state.parents[1] / "config.json").read_text())
    described["train"]["loop"]["tensorboard"] = True
    del described["train"]["contrast"]["own_from"], described["student"]["max_text_tokens"]
    torch.save(values | {"fingerprint": fingerprint(described)}, state)


def run_adapt(checkpoint: Path, data: Path, folder: Path, config: AdaptConfig = ADAPT) -> Path:
    student = make_student(checkpoint)
    pairs, written = make_pairs(data, 24)
    return adapt(student, [WeightedSet(pairs, 1.0)], written, config, folder, World())


@pytest.fixture(scope="module")
def trained(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage1")
    run_train(random_checkpoint, folder / "data", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def adapted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage2")
    run_adapt(trained / "final", folder / "data", folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_stage_1_learns_and_writes_a_checkpoint_that_embeds(trained: Path) -> None:
    rows = log_of(trained)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["generation"] < rows[0]["generation"]
    embedder = load(str(trained / "final"))
    from mmeb_harness import Item

    assert embedder.encode([Item("a", text="red circle")], "query").vectors.shape == (1, 64)


@pytest.mark.slow
def test_a_run_that_was_broken_off_has_the_same_curve(random_checkpoint: Path, trained: Path, tmp_path: Path) -> None:
    class BreakError(Exception):
        pass

    def breaking(*arguments: object) -> dict[str, float]:
        if arguments[-1] == LOOP.seed + 10:
            raise BreakError
        return original(*arguments)  # type: ignore[arg-type]

    original = stage1.joint_backward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "joint_backward", breaking)
        with pytest.raises(BreakError):
            run_train(random_checkpoint, tmp_path / "data", tmp_path / "run")
    assert len(log_of(tmp_path / "run")) == 10
    drawn: list[Row] = []
    curves = contextlib.nullcontext(drawn.append)
    run_train(random_checkpoint, tmp_path / "data", tmp_path / "run", open_curves=lambda *_: curves)
    assert log_of(tmp_path / "run") == log_of(trained)
    assert [row["step"] for row in drawn] == list(range(1, 13))  # a tracker gets those from before the break, too
    one, other = (folder / "final" / "model.safetensors" for folder in (trained, tmp_path / "run"))
    assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(random_checkpoint: Path, tmp_path: Path) -> None:
    short = dataclasses.replace(TRAIN, loop=dataclasses.replace(LOOP, steps=2, save_every=1))
    run_train(random_checkpoint, tmp_path / "data", tmp_path / "run", short)
    (tmp_path / "run" / "final" / "config.json").unlink()
    with pytest.raises(OptionError, match="another configuration"):
        run_train(random_checkpoint, tmp_path / "data", tmp_path / "run")
    # Nor with other rationales: a file that was selected anew meanwhile.
    pairs, written = make_pairs(tmp_path / "data", 24, "first")
    others = Written({key: f"{text} again" for key, text in written.texts.items()})
    loop = dataclasses.replace(LOOP, steps=4, save_every=2, keep=9)
    config = dataclasses.replace(TRAIN, plan=PlanConfig(batch_size=8), loop=loop)
    for rationales, says in (
        (written, contextlib.nullcontext()),
        (written, contextlib.nullcontext()),
        (others, pytest.raises(OptionError, match="another")),
    ):
        (tmp_path / "one" / "final" / "config.json").unlink(missing_ok=True)
        for state in (tmp_path / "one").glob("*/state.pt"):
            begun_in_release_0_1(state)
        with says:
            train(
                make_student(random_checkpoint),
                [WeightedSet(pairs, 1.0)],
                rationales,
                config,
                tmp_path / "one",
                World(),
            )


@pytest.mark.slow
def test_both_stages_read_the_students_own_rationales_from_a_step_on(
    random_checkpoint: Path, trained: Path, tmp_path: Path
) -> None:
    contrast = dataclasses.replace(TRAIN.contrast, own_from=0.5)
    loop = dataclasses.replace(LOOP, steps=4, save_every=0)
    run_train(random_checkpoint, tmp_path / "data", tmp_path / "given", dataclasses.replace(TRAIN, loop=loop))
    config = dataclasses.replace(TRAIN, contrast=contrast, loop=loop)
    run_train(random_checkpoint, tmp_path / "data", tmp_path / "own", config)
    given, own = log_of(tmp_path / "given"), log_of(tmp_path / "own")
    assert own[:2] == given[:2]
    assert own[2]["reasoned"] != given[2]["reasoned"]
    assert own[2]["generation"] == pytest.approx(given[2]["generation"], rel=1e-5)
    adapting = dataclasses.replace(ADAPT, loop=dataclasses.replace(loop, steps=2))
    run_adapt(trained / "final", tmp_path / "data", tmp_path / "stage 2, given", adapting)
    contrast = dataclasses.replace(ADAPT.contrast, own_from=0.5)
    run_adapt(
        trained / "final", tmp_path / "data", tmp_path / "stage 2", dataclasses.replace(adapting, contrast=contrast)
    )
    given, own = log_of(tmp_path / "stage 2, given"), log_of(tmp_path / "stage 2")
    assert own[0] == given[0]
    assert own[1]["reasoned"] != given[1]["reasoned"]
    assert own[1]["gate"] == given[1]["gate"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(random_checkpoint: Path, tmp_path: Path) -> None:
    original = stage1.joint_backward

    def exploding(*arguments: object) -> dict[str, float]:
        values = original(*arguments)  # type: ignore[arg-type]
        return values | ({"loss": float("nan")} if arguments[-1] == LOOP.seed + 10 else {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "joint_backward", exploding)
        with pytest.raises(TrainingError, match=r"step 11: loss is nan.*checkpoint-0000008.*Batch: (first|second)/"):
            run_train(random_checkpoint, tmp_path / "data", tmp_path / "run")
    state = tmp_path / "run" / "checkpoint-0000008" / "state.pt"
    whole = torch.load(state, weights_only=True)
    fewer = {**whole, "parameters": dict(list(whole["parameters"].items())[1:])}
    first = next(iter(whole["parameters"]))
    no_number = {**whole["parameters"], first: torch.full_like(whole["parameters"][first], torch.nan)}
    content = state.read_bytes()
    flipped = content.replace(content[(half := len(content) // 2) : half + 64], content[half : half + 63] + b"?", 1)
    for damage, why in (
        (lambda: state.write_bytes(flipped), r".+ isn't what was written"),
        (lambda: torch.save(fewer, state), "its weights aren't those that learn here, e.g. backbone"),
        (lambda: torch.save({"step": 8}, state), "it lacks extra, fingerprint"),
        (lambda: torch.save({**whole, "step": 99}, state), "it is of step 99, and there are"),
        (lambda: torch.save({**whole, "optimiser": None}, state), "'NoneType'"),
        (lambda: torch.save({**whole, "parameters": no_number}, state), f"{first} has another shape, NaN or"),
        (lambda: torch.save({**whole, "parameters": {**whole["parameters"], first: torch.zeros(1)}}, state), "back"),
        (lambda: state.write_bytes(state.read_bytes()[:-500]), ".+"),
    ):
        damage()
        with pytest.raises(TrainingError, match=rf"state\.pt can't be gone on from \({why}.*delete the folder"):
            run_train(random_checkpoint, tmp_path / "data", tmp_path / "run")


@pytest.mark.slow
def test_stage_2_repeats_itself_and_moves_the_gate(trained: Path, adapted: Path, tmp_path: Path) -> None:
    run_adapt(trained / "final", adapted.parent / "data", tmp_path / "again")
    rows = log_of(adapted)
    assert rows == log_of(tmp_path / "again")
    assert len(rows) == 4
    assert all(0 <= row["gate"] <= 1 and row["divergence"] >= 0 for row in rows)
    assert all(row["log_ratio"] < 1e-4 for row in rows)
    assert rows[0]["gate"] != rows[-1]["gate"]
    load(str(adapted / "final"))


@pytest.mark.slow
def test_stage_2_goes_on_where_it_was(trained: Path, adapted: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "final")
    run_adapt(trained / "final", adapted.parent / "data", tmp_path / "part")
    assert log_of(tmp_path / "part") == log_of(adapted)


def test_the_gates_entropy_falls_in_equal_parts() -> None:
    config = dataclasses.replace(ADAPT, gate_entropy=0.3, loop=dataclasses.replace(ADAPT.loop, steps=4))
    assert [stage2.gate_entropy(config, step) for step in range(4)] == [0.3] * 4
    falls = dataclasses.replace(config, gate_entropy_end=0.0)
    assert [stage2.gate_entropy(falls, step) for step in range(4)] == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert stage2.gate_entropy(dataclasses.replace(falls, loop=dataclasses.replace(ADAPT.loop, steps=1)), 0) == 0.3


@pytest.mark.slow
def test_weights_are_gathered_and_the_gates_entropy_falls_once_a_step(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[Student] = []
    entropies: list[float] = []
    whole_module, gate_loss = Student.whole_module, policy.gate_loss

    def noted(logits: Tensor, given: Tensor, entropy: float) -> Tensor:
        entropies.append(entropy)
        return gate_loss(logits, given, entropy)

    def counted(student: Student) -> PackedModel:
        gathered.append(student)
        return whole_module(student)

    monkeypatch.setattr(Student, "whole_module", counted)
    monkeypatch.setattr(policy, "gate_loss", noted)
    loop = dataclasses.replace(ADAPT.loop, steps=2)
    config = dataclasses.replace(ADAPT, loop=loop, gate_entropy=0.3, gate_entropy_end=0.1)
    run_adapt(trained / "final", tmp_path / "data", tmp_path / "run", config)
    assert list(dict.fromkeys(entropies)) == [0.3, 0.1]
    # And of the trained and of the saved model, which are compared in the end.
    assert len(gathered) == 2 + 2


def test_negatives_are_embedded_as_many_at_once_as_memory_is_said_to_hold(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = stage2.Reference.encode

    def counted(reference: stage2.Reference, packed: Packed, scored: Sequence[int] = ()) -> Encoded:
        if not scored:  # vectors alone
            seen.append(len(packed.batch.ids_BL))
        return encode(reference, packed, scored)

    monkeypatch.setattr(stage2.Reference, "encode", counted)
    contrast = dataclasses.replace(ADAPT.contrast, micro_batch=3)
    config = dataclasses.replace(ADAPT, contrast=contrast, loop=dataclasses.replace(ADAPT.loop, steps=1))
    run_adapt(trained / "final", tmp_path / "data", tmp_path / "run", config)
    assert max(seen) == 3


def test_a_gate_that_is_paid_for_reasoning_learns_to_reason(trained: Path, tmp_path: Path) -> None:
    """A cost below zero pays for length: the gate must rise, and with a high cost it must fall."""
    ends = {}
    for cost in (-5.0, 5.0):
        reward = dataclasses.replace(ADAPT.reward, length_cost=cost, ada=2.0)
        config = dataclasses.replace(
            ADAPT,
            reward=reward,
            sides=("query",),
            token_weight=0.0,
            loop=dataclasses.replace(LOOP, steps=5, learning_rate=8e-3),
        )
        run_adapt(trained / "final", tmp_path / "data", tmp_path / str(cost), config)
        ends[cost] = log_of(tmp_path / str(cost))[-1]["gate"]
    print("ENDS", ends)
    assert ends[-5.0] > ends[5.0] + 0.2


@pytest.mark.slow
def test_adapters_are_merged_and_only_they_learn(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    data, written = make_pairs(tmp_path / "data", 12)
    student = make_student(trained / "final", lora_rank=4, lora_alpha=8, gradient_checkpointing=True)
    learning = [name for name, one in student.module.named_parameters() if one.requires_grad]
    assert learning
    assert all("lora" in name or name.endswith("embed_tokens.row") for name in learning)
    loop = dataclasses.replace(LOOP, steps=5, learning_rate=1e-2)
    config = dataclasses.replace(TRAIN, plan=PlanConfig(batch_size=12), loop=loop)
    folder = train(student, [WeightedSet(data, 1.0)], written, config, tmp_path / "run", World())
    merged = make_student(folder)
    pack = student.pack([student.reader.prompt(data[1].query)], [[[student.emb], student.completion("red")]])
    student.module.eval()
    merged.module.eval()
    with torch.no_grad():
        assert (student.encode(pack).vectors_RD - merged.encode(pack).vectors_RD).abs().max() < 1e-4
    rows = log_of(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_both_stages_save_in_bfloat16_what_they_trained(random_checkpoint: Path, tmp_path: Path) -> None:
    """At rates whose steps bfloat16 can't tell apart: added to weights of that type, nearly nothing would be left."""
    pytest.importorskip("peft")
    data, written = make_pairs(tmp_path / "data", 12)
    sets = [WeightedSet(data, 1.0)]
    settings = {"lora_rank": 4, "lora_alpha": 8, "gradient_checkpointing": True, "dtype": "bfloat16"}
    loop = dataclasses.replace(LOOP, steps=2, save_every=0, warmup=0)
    plan = PlanConfig(batch_size=6)
    config = dataclasses.replace(TRAIN, plan=plan, loop=dataclasses.replace(loop, learning_rate=1e-3))
    joint = train(make_student(random_checkpoint, **settings), sets, written, config, tmp_path / "joint", World())
    adapt_config = dataclasses.replace(
        ADAPT, plan=plan, groups=2, sides=("query",), loop=dataclasses.replace(loop, learning_rate=1e-5)
    )
    student = make_student(joint, **settings)
    final = adapt(student, sets, written, adapt_config, tmp_path / "adaptive", World())
    for run in (joint.parent, final.parent):
        found = json.loads((run / "saved.json").read_text())
        assert found["cosine"] > 0.999
        assert found["gate"] < 0.01
        assert 0 <= found["rationales"] <= 1
        assert found["kept"] == pytest.approx(1, abs=1e-3)
        assert 0.9 < found["served"] < 1.1
    # What stage 2 started from is near enough for a cosine, and has nothing of what was learnt.
    inputs = [Input(item, student.reader.prompt(item), None) for item in (pair_item(sets, 0), pair_item(sets, 1))]
    stale = distance(student, inputs, joint)
    assert stale is not None
    assert stale.cosine > LEAST_COSINE
    assert stale.kept == pytest.approx(0, abs=1e-3)
    assert not stale.is_near
    with pytest.raises(TrainingError, match=r"joint/final isn't the model that was trained: .* 0\.0% of what adapters"):
        check_saved(student, sets, student.reader.prompt, tmp_path, joint)


def test_rows_of_tables_that_arent_tied_are_saved(random_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    untied = make_student(random_checkpoint).module.backbone
    untied.config.tie_word_embeddings = untied.config.text_config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.detach() * 0.5)
    save_checkpoint(untied, random_checkpoint, TINY_SETTINGS, tmp_path / "untied")
    student = make_student(tmp_path / "untied", lora_rank=4, lora_alpha=8)
    rows = [parameter for name, parameter in student.trained_by_name() if name.endswith(".row")]
    assert len(rows) == 2
    shake(student)
    with torch.no_grad():
        for factor, row in zip((-2.0, 3.0), rows, strict=True):
            row.mul_(factor)
    student.save(tmp_path / "saved")
    inputs = [Input(item, student.reader.prompt(item), None) for item in (Item("a", text="red"), Item("b", text="a b"))]
    found = distance(student, inputs, tmp_path / "saved")
    assert found == Distance(
        *(pytest.approx(value, abs=1e-5) for value in (1, 0, 0)), kept=pytest.approx(1), served=pytest.approx(1)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rollouts": 5}, "must be even"),
        ({"groups": 9}, "more than the batch"),
        ({"plan": PlanConfig(batch_size=64)}, "fewer than the 64"),
    ],
)
def test_settings_that_cant_be(trained: Path, tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run_adapt(trained / "final", tmp_path / "data", tmp_path / "run", dataclasses.replace(ADAPT, **changed))  # type: ignore[arg-type]


def test_out_of_memory_says_what_fits(random_checkpoint: Path, tmp_path: Path) -> None:
    original = stage1.joint_backward

    def hungry(student: object, batch: object, config: ContrastConfig, *rest: object) -> dict[str, float]:
        if not config.micro_batch or config.micro_batch > 2:
            raise torch.OutOfMemoryError("tried to allocate 2 TiB")
        return original(student, batch, config, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "joint_backward", hungry)
        with pytest.raises(TrainingError, match=r"micro_batch .*: 8 does not fit in memory, 2 does .*2 TiB"):
            run_train(random_checkpoint, tmp_path / "data", tmp_path / "run")


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_a_long_text_loses_its_end(stage: str, random_checkpoint: Path, tmp_path: Path) -> None:
    """As in an evaluation; what is asked behind it stays."""
    student = make_student(random_checkpoint, max_text_tokens=40)
    pairs, written = make_pairs(tmp_path / "data", 24)
    lengthened = [
        dataclasses.replace(pair, query=dataclasses.replace(pair.query, images=(), text="red circle " * 500))
        for pair in (pairs[place] for place in range(len(pairs)))
    ]
    sets = [WeightedSet(Pairs(pairs.name, tuple(lengthened)), 1.0)]
    seen: list[StepBatch] = []

    def stop(student: object, batch: StepBatch, *_: object) -> dict[str, float]:
        seen.append(batch)
        raise TrainingError("seen")

    run: Callable[[], Path] = {
        "stage 1": lambda: train(student, sets, written, TRAIN, tmp_path / "run", World()),
        "stage 2": lambda: adapt(student, sets, written, ADAPT, tmp_path / "run", World()),
    }[stage]
    with pytest.MonkeyPatch.context() as patch:
        for module in (stage1, stage2):
            patch.setattr(module, "joint_backward", stop)
        with pytest.raises(TrainingError, match="seen"):
            run()
    asked = student.reader.prompt(dataclasses.replace(seen[0].queries[0].item, text="")).ids
    for query in seen[0].queries:
        assert len(query.prompt) <= 40
        assert query.prompt.ids[-8:].tolist() == asked[-8:].tolist()
