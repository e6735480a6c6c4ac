"""What is no usable checkpoint is refused in one line, before any weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmeb_harness import Item, ModelError, OptionError
from mmemb_r1_model.cli import cli
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.add_tokens import add_tokens
from mmemb_r1_model.model.chat_template import NAME, PATH
from mmemb_r1_model.model.checkpoint import EMBEDDED
from mmemb_r1_model.model.settings import read_settings
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.local import _load
from mmemb_r1_model.rationales.workers import WorkerPrompt
from mmemb_r1_model.selection.judge import JudgeConfig, open_judge
from mmemb_r1_model.training.distributed import join_world
from mmemb_r1_model.training.student import StudentConfig, open_student


def without_emb(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<emb>"]
    path.write_text(json.dumps(tokenizer))


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def of_another_type(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "qwen2_vl"}))


def newer_settings(folder: Path) -> None:
    (folder / "mmemb_r1.json").write_text('{"schema_version": 2}')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_emb, r"has no <emb> token: .*mmemb-r1 add-tokens"),
        (as_pickle, r"has no \.safetensors file; other formats can run code"),
        (of_another_type, "is of type 'qwen2_vl'; mmemb_r1 needs 'qwen3_vl'"),
        (newer_settings, r"mmemb_r1\.json has schema version 2, this release reads up to 1: upgrade mmeb-harness"),
        (lambda folder: (folder / "config.json").unlink(), r"it has no config\.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
    ],
)
def test_a_spoilt_checkpoint_is_refused(
    spoil: Callable[[Path], None], message: str, random_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        load(str(folder))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 10**22}, "max_new_tokens"),
        ({"frames_per_second": 0}, "frames_per_second"),
        ({"min_pixels": -1}, "min_pixels"),
        ({"max_pixels": None}, "max_pixels"),
        ({"calibration": {"slope": 1, "intercept": 0, "prompts": 9}}, "calibration.*threshold"),
        ({"calibration": {"slope": -1, "intercept": 0, "threshold": 0.5, "prompts": 9}}, "calibration.slope"),
        ({"min_pixels": 4096, "max_pixels": 1024}, "min_pixels is more than max_pixels"),
        ({"video_min_pixels": 10**7}, "video_min_pixels is more than video_max_pixels"),
    ],
)
def test_settings_that_nobody_can_mean(values: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "mmemb_r1.json").write_text(json.dumps({"schema_version": 1, **values}))
    with pytest.raises(ModelError, match=rf"mmemb_r1\.json.*{message}"):
        read_settings(tmp_path)


def test_missing_weights_are_named(random_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, \d+ in all: .*layers\.1\.mlp"):
        load(str(folder)).encode([Item("a", text="x")], "query")


def test_what_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"checkpoint folder \./nowhere does not exist"):
        load("./nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hf download nobody/nothing --local-dir"):
        load("nobody/nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "abacus"}, "--device 'abacus' is no device"),
        ({"dtype": "float8"}, "--dtype 'float8' is not known"),
        ({"threshold": 2.0}, "threshold must be between 0 and 1, not 2.0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be between 1 and 262144, not 0"),
    ],
)
def test_options_that_are_none(arguments: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(ModelError, match="no usable GPU; use --device cpu"):
        load(device="cuda")


def test_the_embedded_checkpoint_is_small() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.glob("*.safetensors")) <= 8 << 20


def test_settings_and_weights_enter_the_models_identity(random_checkpoint: Path, tmp_path: Path) -> None:
    first, again = load(str(random_checkpoint)).info, load(str(random_checkpoint)).info
    assert first == again
    assert load(str(random_checkpoint), threshold=0.7).info.settings != first.settings
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    assert load(str(folder)).info.revision != first.revision


def test_the_profile_is_what_the_checkpoint_says(random_checkpoint: Path) -> None:
    embedder = load(str(random_checkpoint))
    profile, settings = embedder.info.profile, embedder.info.settings
    assert (profile.min_pixels, profile.max_pixels) == (settings["min_pixels"], settings["max_pixels"])
    assert (profile.video_min_pixels, profile.video_max_pixels) == (
        settings["video_min_pixels"],
        settings["video_max_pixels"],
    )
    assert (profile.instruction, profile.candidate_instruction) == ("system turn", "the task's own")
    assert profile.frames.video == 8


def test_a_plain_qwen3_vl_gets_its_tokens(
    random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, built = tmp_path / "base", tmp_path / "built"
    shutil.copytree(random_checkpoint, base)
    without_emb(base)
    (base / "video_preprocessor_config.json").write_text("{}")
    built.mkdir()
    (base / NAME).write_text(PATH.read_text().replace("<|vision_end|>", ""))
    cli(["add-tokens", str(base), str(built), "--max-new-tokens", "2048"], standalone_mode=False)
    assert f"{NAME} is ours, not the base's: it renders a picture as " in capsys.readouterr().out
    assert (built / NAME).read_text() == PATH.read_text()
    assert (built / "video_preprocessor_config.json").is_file()
    embedder = load(str(built))
    tokenizer, weight = embedder.engine.tokenizer, embedder.engine.model.get_input_embeddings().weight
    assert torch.equal(weight[tokenizer.id_of("<emb>")], weight[tokenizer.id_of("<|im_end|>")])
    assert embedder.info.settings["max_new_tokens"] == 2048
    embedder.encode([Item("a", text="x")], "query")
    (built / NAME).unlink()  # as earlier versions left it
    open_student(StudentConfig(str(built)), join_world("cpu")).save(tmp_path / "trained")
    assert (tmp_path / "trained" / NAME).read_text() == (random_checkpoint / NAME).read_text() == PATH.read_text()


@pytest.fixture(scope="module")
def headless(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that says untied, beside files without lm_head.weight: so one embedder was published."""
    folder = tmp_path_factory.mktemp("headless") / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_without_a_head_a_checkpoint_embeds_directly(
    headless: Path, random_checkpoint: Path, items: list[Item]
) -> None:
    embedders = [load(str(path), reasoning="never", device="cpu") for path in (headless, random_checkpoint)]
    found, expected = (embedder.encode(items, "query") for embedder in embedders)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.traces is not None
    assert {trace.gate for trace in found.traces} == {None}
    reference = embedders[0].encode_reference(items[:2], "query")
    assert reference.traces is not None
    assert {trace.gate for trace in reference.traces} == {None}


def test_without_a_head_nothing_is_written_by_chance(headless: Path, tmp_path: Path) -> None:
    def worker() -> object:
        config = WorkerConfig("w", model=str(headless), device="cpu", dtype="float32")
        return _load(config, WorkerPrompt("system", "request"))

    cpu = torch.device("cpu")
    users: tuple[Callable[[], object], ...] = (
        lambda: load(str(headless), reasoning="adaptive", device="cpu").warm_up(),
        lambda: load(str(headless), reasoning="never", candidate_reasoning="always", device="cpu").warm_up(),
        lambda: add_tokens(str(headless), tmp_path / "new"),
        lambda: open_judge(JudgeConfig(str(headless)), cpu),
        lambda: open_student(StudentConfig(str(headless)), join_world("cpu")),
        worker,
    )
    for use in users:
        with pytest.raises(ModelError, match=r"lacks weights, 1 in all: lm_head\.weight"):
            use()
    assert not (tmp_path / "new").exists()


def test_weights_without_a_place_or_of_zeros_are_said_in_one_line(
    random_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    weights, name = load_file(folder / "model.safetensors"), "model.language_model.layers.0.mlp.up_proj.weight"
    changed = {"score.weight": torch.zeros(2, 2), name: torch.zeros_like(weights[name])}
    save_file(weights | changed, folder / "model.safetensors", {"format": "pt"})
    load(str(folder), device="cpu").warm_up()
    assert [record.getMessage() for record in caplog.records if "of its" in record.getMessage()] == [
        f"{folder}: 1 weights of its files have no place in its Qwen3VLForConditionalGeneration: score.weight",
        f"{folder}: 1 of its weights are nothing but zeros, as in a file that was not fetched to its end: {name}",
    ]
    # Codes of a quantisation, whose key is gone, are no weights; LoRA weights beside them would be passed over.
    save_file(weights | {name: weights[name].to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 quantised weights, .*\(quantization_config\): .*layers\.0\.mlp\.up_proj"):
        load(str(folder), device="cpu").warm_up()
    (folder / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("transformers.utils.is_peft_available", lambda: False)
    with pytest.raises(ModelError, match=r"adapter_config\.json: without peft its LoRA weights are left out; pip"):
        load(str(folder), device="cpu").warm_up()


def test_what_one_place_cant_have_written_is_refused(random_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("heads", "tokens"):
        shutil.copytree(random_checkpoint, tmp_path / name)
    weights = load_file(tmp_path / "heads" / "model.safetensors")
    table = next(name for name in weights if name.endswith("embed_tokens.weight"))
    save_file({**weights, "lm_head.weight": weights[table].clone()}, tmp_path / "heads" / "model.safetensors")
    load(str(tmp_path / "heads"), reasoning="adaptive", device="cpu").warm_up()  # the same twice
    save_file({**weights, "lm_head.weight": weights[table] + 1}, tmp_path / "heads" / "model.safetensors")
    load(str(tmp_path / "heads"), reasoning="never", device="cpu").warm_up()  # which doesn't read it
    with pytest.raises(ModelError, match=r"heads holds another lm_head\.weight than .*embed_tokens.*set it to false"):
        load(str(tmp_path / "heads"), reasoning="adaptive", device="cpu").warm_up()
    with pytest.raises(ModelError, match="holds another"):
        add_tokens(str(tmp_path / "heads"), tmp_path / "new")
    config = tmp_path / "heads" / "config.json"
    config.write_text(config.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    load(str(tmp_path / "heads"), reasoning="adaptive", device="cpu").warm_up()

    path = tmp_path / "tokens" / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["model"]["vocab"]["moonlight"] = 9_999
    path.write_text(json.dumps(whole))
    with pytest.raises(ModelError, match=r"no weights for token 'moonlight': it is number 9999 .* has \d+ rows; get"):
        load(str(tmp_path / "tokens"), reasoning="never", device="cpu").warm_up()
    with pytest.raises(OptionError, match="exists and has something in it; name a new folder"):
        add_tokens(str(random_checkpoint), tmp_path / "tokens")
