"""Stage 2's rollouts over HTTP, from a real server on loopback that runs the tiny student."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from safetensors.torch import load_file

from mmeb_harness import Item
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.model.prompt import IMAGE_PAD
from mmemb_r1_model.training.batches import Input, WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import TrainingError
from mmemb_r1_model.training.rollouts import Rollout, ServerSampler
from mmemb_r1_model.training.stage2 import adapt
from mmemb_r1_model.training.student import Student
from mmemb_r1_model.vllm.server import Server
from tests.mmemb_r1.loopback_chat import KEY, Break, Fail, Raw, serve
from tests.mmemb_r1.small_training import ADAPT, log_ratios, make_pairs, make_student, shake
from tests.mmemb_r1.tiny_vllm import CHAT, LOAD, UNLOAD, TinyVllm, changed

pytest.importorskip("peft")
pytestmark = pytest.mark.slow


@pytest.fixture
def server(vllm: TinyVllm) -> Iterator[Server]:
    with serve(vllm.chat) as url:
        yield Server(url, timeout_seconds=20, max_retries=2, max_parallel=2)


@pytest.fixture
def student(random_checkpoint: Path) -> Student:
    return lora_student(random_checkpoint)


def lora_student(checkpoint: Path) -> Student:
    return make_student(checkpoint, lora_rank=4, lora_alpha=8)


def run_adapt(student: Student, server: Server, tmp_path: Path, **changes: object) -> Path:
    pairs, written = make_pairs(tmp_path / "data", 12)
    config = dataclasses.replace(ADAPT, server=server, **changes)  # type: ignore[arg-type]
    return adapt(student, [WeightedSet(pairs, 1.0)], written, config, tmp_path / "run", World())


def inputs_of(student: Student, items: list[Item]) -> list[Input]:
    return [Input(item, student.reader.prompt(item), None) for item in items]


def sample(
    student: Student, server: Server, folder: Path, items: list[Item], count: int = 2, longest: int = 12
) -> list[list[Rollout]]:
    sampler = ServerSampler(student, server, folder, World())
    sampler.refresh(0)
    return sampler.sample(inputs_of(student, items), count, longest, seed=5)


def distance(student: Student, items: list[Item], rollouts: list[list[Rollout]]) -> float:
    """Greatest difference of the rollouts' log-probabilities from the student's own."""
    return max(log_ratios(student, items, rollouts))


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def test_log_probabilities_are_the_students_own(
    vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    """Of texts, pictures and clips, odd ones too: both sides saw the same tokens, pixels and positions."""
    shake(student)
    rollouts = sample(student, server, tmp_path, items)
    assert [len(own) for own in rollouts] == [2] * len(items)
    assert distance(student, items, rollouts) < 1e-4
    flat = [one for own in rollouts for one in own]
    assert len({one.ids for one in flat}) > len(items)
    assert all(one.ids[0] == student.think and one.ids[-2:] == (student.end_think, student.emb) for one in flat)
    banned = student.module.banned
    assert not any(banned[list(one.ids[1:])].any() for one in flat)
    body = vllm.written[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]


def test_pictures_are_sent_as_the_student_sees_them(
    server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    """Servers lay transparent pictures on white and turn those that say so; the student does neither."""
    shake(student)
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise).save(tmp_path / "transparent.png")
    Image.fromarray(noise[..., :3]).save(tmp_path / "turned.png", exif=turned)
    some = [Item(name, images=(tmp_path / f"{name}.png",)) for name in ("transparent", "turned")]
    assert distance(student, some, sample(student, server, tmp_path, some)) < 1e-4


def test_the_same_seed_gives_the_same_rollouts(
    server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    first = sample(student, server, tmp_path, items[:3])
    assert first == sample(student, server, tmp_path, items[:3])
    assert first[0][0] != first[0][1]


def test_three_steps_with_weights_that_are_renewed_every_other_step(
    vllm: TinyVllm, server: Server, student: Student, tmp_path: Path
) -> None:
    run_adapt(student, dataclasses.replace(server, reload_every=2), tmp_path)
    rows = log_of(tmp_path)
    assert len(rows) == 3
    ratios = [row["log_ratio"] for row in rows]
    assert ratios[0] < 1e-5
    assert ratios[1] > 0.01  # a step old
    assert ratios[2] < 0.5 * ratios[1]  # all but the row of <emb> is new
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    loads = [one.path for one in vllm.chat.asked if one.path != CHAT]
    assert loads == [UNLOAD, LOAD, UNLOAD, LOAD]
    # Every group of a step is asked for twice, under a salt that changes with the weights.
    salts = [one.body["cache_salt"] for one in vllm.written]
    assert len(salts) == 3 * 2 * 2
    assert len(set(salts[:8])) == len(set(salts[8:])) == 1
    assert salts[0] != salts[-1]


def test_the_adapter_is_loaded_anew_in_place_of_the_old(
    vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    server = dataclasses.replace(server, reload_every=3, adapter_folder=str(elsewhere))
    sampler = ServerSampler(student, server, tmp_path, World())
    some = inputs_of(student, items[:2])
    sampler.refresh(4)
    shake(student)
    sampler.refresh(6)
    assert distance(student, items[:2], sampler.sample(some, 2, 12, seed=1)) > 0.1
    sampler.refresh(7)
    assert distance(student, items[:2], sampler.sample(some, 2, 12, seed=1)) < 1e-4
    assert len(vllm.asked(LOAD)) == 2
    assert len(vllm.adapters) == 1
    names = load_file(elsewhere / "adapter" / "adapter_model.safetensors")
    assert len(names) == 3 * 7 * 2
    assert not list(tmp_path.glob("adapter*"))


def test_what_cant_be_written_ends_a_rationale_by_rule(
    vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    bad = student.tokenizer.id_of(IMAGE_PAD)
    good = student.tokenizer.plain("red circle")[0]
    written = [
        [good, bad, good, student.end_think, student.emb],
        [good, good, 10**6],
        [good, student.end_think, bad],
        [bad],
        [good, student.end_think, student.emb, good],
        [student.end_think, student.emb],
        [good] * 14,
    ]

    def tamper(content: dict[str, Any]) -> None:
        own = written[:1] if len(content["choices"]) == 1 else written[1:]
        for choice, ids in zip(content["choices"], own, strict=True):
            choice["token_ids"] = ids
            choice["logprobs"] = {"content": [{"logprob": -1.0}] * len(ids)}
            choice["finish_reason"] = "stop"

    vllm.chat.reply = changed(vllm, tamper)
    (found,) = sample(student, server, tmp_path, items[:1], len(written))
    start, end = [student.think], [student.end_think, student.emb]
    assert [list(one.ids) for one in found] == [
        [*start, good, *end],
        [*start, good, good, *end],
        [*start, good, *end],
        [*start, *end],
        [*start, good, *end],
        [*start, *end],
        [*start, *[good] * 12, *end],
    ]
    assert [one.sampled for one in found] == [1, 2, 2, 0, 3, 1, 12]
    assert [one.well_formed for one in found] == [False] * 4 + [True, False, False]
    assert all(len(one.log_probs) == len(one.ids) - 1 for one in found)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: [choice.pop(name) for choice in content["choices"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["choices"].pop(), "gives 0 of 1 choices for item 'text': it doesn't heed `n`"),
        (lambda content: content.pop("choices"), "gives 0 of 1 choices"),
        (drop("token_ids"), r"no token ids: it must be vLLM 0\.10\.2 or newer, which has `return_token_ids`"),
        (drop("logprobs"), r"gives 0 log-probabilities for \d+ tokens: it must heed `logprobs: true`"),
        (lambda content: content["choices"][0]["logprobs"]["content"][0].update(logprob=None), "log-probabilities for"),
        (lambda content: content["choices"][0]["logprobs"]["content"].pop(), r"gives \d+ log-probabilities for"),
        (lambda content: content["prompt_token_ids"].insert(4, 7), "another prompt of item 'text'.*from position 4"),
        (lambda content: content["prompt_token_ids"].pop(), "saw another prompt .* with --chat-template "),
        (
            lambda content: content.update(prompt_token_ids=None, usage={"prompt_tokens": 3}),
            "saw another prompt .*: 3 tokens instead of",
        ),
    ],
)  # fmt: skip
def test_an_answer_that_lacks_what_is_needed_stops_the_run(
    change: Callable[[dict[str, Any]], object],
    message: str,
    vllm: TinyVllm,
    server: Server,
    student: Student,
    items: list[Item],
    tmp_path: Path,
) -> None:
    vllm.chat.reply = changed(vllm, change)
    with pytest.raises(TrainingError, match=message):
        sample(student, server, tmp_path, items[:1])
    assert len(vllm.written) <= 2


def test_a_text_that_spells_a_special_token_is_found_out(server: Server, student: Student, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"'x' has the letters of the special token '<emb>'.*leave that pair out"):
        sample(student, server, tmp_path, [Item("x", text="a red <emb> circle")])


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (-1, "This model's maximum context length is"),
        (3, "the server cuts the answer to item 'text' after 3 tokens"),
    ],
)
def test_a_context_that_is_too_short(
    room: int, words: str, random_checkpoint: Path, student: Student, items: list[Item], tmp_path: Path
) -> None:
    """Also for the answer, of which vLLM says nothing."""
    prompt = len(student.reader.prompt(items[0])) + 1
    vllm = TinyVllm(random_checkpoint, max_model_len=prompt + room)
    vllm.adapters["student"] = vllm._base
    with serve(vllm.chat) as url:
        sampler = ServerSampler(student, Server(url), tmp_path, World())
        with pytest.raises(TrainingError) as error:
            sampler.sample(inputs_of(student, items[:1]), 2, 12, seed=5)
    assert words in str(error.value)
    assert f"tart vLLM with --max-model-len of at least {prompt + 14}" in str(error.value)


def test_more_tokens_than_a_context_has(vllm: TinyVllm, server: Server, student: Student, tmp_path: Path) -> None:
    sampler = ServerSampler(student, server, tmp_path, World())
    sampler.refresh(0)
    with pytest.raises(
        TrainingError, match=r"max_tokens=502 cannot be greater than max_model_len=400.*--max-model-len"
    ):
        sampler.sample(inputs_of(student, [Item("x", text="a circle")]), 2, 500, seed=5)


def test_log_probabilities_of_before_a_requests_settings(
    vllm: TinyVllm, server: Server, student: Student, tmp_path: Path
) -> None:
    vllm.processed = False
    sampler = ServerSampler(student, server, tmp_path, World())
    with pytest.raises(
        TrainingError, match=r"makes certain has a log-probability of -\d.* --logprobs-mode processed_lo"
    ):
        sampler.refresh(0)


def test_a_server_without_trust_or_under_the_bases_name(
    vllm: TinyVllm, server: Server, student: Student, tmp_path: Path
) -> None:
    vllm.trusts_requests = False
    with pytest.raises(TrainingError, match=r"'two frames': .*Start vLLM with --trust-request-mm-kwargs"):
        ServerSampler(student, server, tmp_path, World()).refresh(0)
    with pytest.raises(TrainingError, match=r"conflicts with a served base model\. Give another adapt\.server\.model"):
        ServerSampler(student, dataclasses.replace(server, model="base"), tmp_path, World()).refresh(0)


def test_a_server_that_computes_something_else_stops_the_first_step(
    vllm: TinyVllm, server: Server, student: Student, tmp_path: Path
) -> None:
    def shift(content: dict[str, Any]) -> None:
        for choice in content["choices"]:
            for token in choice["logprobs"]["content"]:
                token["logprob"] -= 0.5

    vllm.chat.reply = changed(vllm, shift)
    with pytest.raises(
        TrainingError, match=r"differ from the student's by 0\.50 on average \(log_ratio;.*processed_logp"
    ):
        run_adapt(student, server, tmp_path)
    assert not (tmp_path / "run" / "log.jsonl").exists() or not log_of(tmp_path)


def test_a_server_that_was_started_again_gets_the_adapters(
    vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    sampler = ServerSampler(student, server, tmp_path, World())
    sampler.refresh(0)
    some = inputs_of(student, items[:4])
    before = sampler.sample(some, 2, 12, seed=5)
    vllm.adapters.clear()
    assert sampler.sample(some, 2, 12, seed=5) == before
    assert len(vllm.asked(LOAD)) == 2
    vllm.adapters.clear()
    vllm.chat.reply = lambda asked: Raw(b"ok") if asked.path == LOAD else vllm.answer(asked)
    with pytest.raises(
        ModelError, match=r"The model `student` does not exist.*check adapt\.server\.base_url .* 'student'"
    ):
        sampler.sample(some[:1], 2, 12, seed=5)


@pytest.mark.parametrize("paths", [{CHAT}, {CHAT, LOAD, UNLOAD}], ids=["not allowed", "not found"])
def test_adapters_that_cant_be_loaded(
    paths: set[str], vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    vllm.chat.paths = frozenset(paths)
    vllm.chat.reply = lambda asked: Fail(404, "No adapter found")
    with pytest.raises(TrainingError, match=r"can't load the adapters in .*adapter: .*RUNTIME_LORA_UPDATING=True"):
        sample(student, server, tmp_path, items[:1])


def test_nobody_at_the_address_and_a_wrong_key(
    vllm: TinyVllm,
    server: Server,
    student: Student,
    items: list[Item],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ModelError, match=r"adapt\.server: nobody answers at http://127\.0\.0\.1:9/v1"):
        sample(student, dataclasses.replace(server, base_url="http://127.0.0.1:9/v1"), tmp_path, items[:1])
    vllm.chat.needs_key = True
    with pytest.raises(ModelError, match=r"adapt\.server: .* HTTP 401: .*name the variable with its key"):
        sample(student, server, tmp_path, items[:1])
    with_key = dataclasses.replace(server, api_key_env="LOOPBACK_KEY")
    with pytest.raises(OptionError, match="LOOPBACK_KEY is not set"):
        sample(student, with_key, tmp_path, items[:1])
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    assert len(sample(student, with_key, tmp_path, items[:1])) == 1


def test_a_server_that_dies_leaves_the_last_checkpoint_and_another_one_goes_on(
    random_checkpoint: Path, vllm: TinyVllm, server: Server, student: Student, tmp_path: Path
) -> None:
    vllm.chat.script = []
    vllm.chat.reply = lambda asked: Break() if len(vllm.written) > 9 else vllm.answer(asked)
    with pytest.raises(
        TrainingError,
        match=r"connection broken .*3 attempts, for item '.*'\. Start the server again and repeat",
    ):
        run_adapt(student, server, tmp_path)
    assert (tmp_path / "run" / "checkpoint-0000002" / "state.pt").is_file()
    assert len(log_of(tmp_path)) == 2
    other = TinyVllm(random_checkpoint)
    with serve(other.chat) as url:
        run_adapt(lora_student(random_checkpoint), dataclasses.replace(server, base_url=url), tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2, 3]
    assert len(other.asked(LOAD)) == 1


def test_what_may_pass_is_tried_again(
    vllm: TinyVllm, server: Server, student: Student, items: list[Item], tmp_path: Path
) -> None:
    vllm.chat.script = [Fail(503), Fail(404), Break(), Raw(b"ok"), Fail(500), Raw(b"{half an ans")]
    vllm.adapters["student"] = vllm._base
    assert len(sample(student, dataclasses.replace(server, max_parallel=1), tmp_path, items[:1])) == 1
    assert [one.path for one in vllm.chat.asked] == [UNLOAD] * 2 + [LOAD] * 2 + [CHAT] * 7
    assert len(vllm.written) == 2


@pytest.mark.parametrize(
    ("changes", "lora", "message"),
    [
        ({}, False, r"student\.lora_rank is 0: set it .*or leave adapt\.server out"),
        ({"base_url": "localhost:8000"}, True, r"adapt\.server\.base_url must be an address such as http"),
        ({"base_url": "http://me:hunter2@host/v1"}, True, r"plain address"),
        ({"model": ""}, True, r"adapt\.server\.model must be a name for the adapters"),
        ({"reload_every": 0}, True, r"adapt\.server\.reload_every must be at least 1, not 0"),
    ],
)
def test_settings_that_cant_be(
    changes: dict[str, object], lora: bool, message: str, random_checkpoint: Path, tmp_path: Path
) -> None:
    student = lora_student(random_checkpoint) if lora else make_student(random_checkpoint)
    server = dataclasses.replace(Server("http://127.0.0.1:9/v1"), **changes)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=message):
        run_adapt(student, server, tmp_path)
