"""CLIP and SigLIP adapters on tiny random checkpoints: the vectors of transformers used plainly, and clear refusals."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmeb_baselines.cards import MODELS_OF_TYPE, Card
from mmeb_baselines.dual_encoders import CARDS, DualEncoder, load_clip, load_siglip
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)

from mmeb_harness import DataError, Item, ModelError, OptionError
from mmeb_harness.encode.check import check_embedder, probe_items
from tests.baselines.tiny_dual_encoders import (
    VISION,
    make_clip,
    make_naflex,
    make_siglip2,
    siglip_text,
    write_json,
    write_siglip_processor,
)

Load = Callable[..., DualEncoder]
Vectors = np.ndarray[Any, np.dtype[np.float32]]

KINDS = ("clip", "siglip2", "naflex")
LOADERS: dict[str, Load] = {"clip": load_clip, "siglip2": load_siglip, "naflex": load_siglip}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random checkpoints, by kind."""
    made: dict[str, Path] = {}
    for kind, make in (("clip", make_clip), ("siglip2", make_siglip2), ("naflex", make_naflex)):
        torch.manual_seed(0)
        made[kind] = tmp_path_factory.mktemp(kind)
        make(made[kind])
    return made


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def altered(source: Path, folder: Path, **config: object) -> Path:
    """A copy of a checkpoint, with other values in its config.json."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    write_json(path, json.loads(path.read_text()) | config)
    return folder


def picture(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def items_of_all_kinds(folder: Path) -> list[Item]:
    """Every combination; a long text, capitals, a grey picture, frames of other shapes than the pictures."""
    grey, wide = picture(folder / "grey.png", (70, 20), "L"), picture(folder / "wide.png", (90, 41))
    frames = tuple(picture(folder / f"{size}.png", (size, 48)) for size in (30, 50, 64))
    return [
        Item("text", text="A Cat, a red circle.", instruction="Find a picture:"),
        Item("long", text="Word and another word " * 30),
        Item("picture", images=(grey,), instruction="Represent the given image."),
        Item("frames", frames=frames),
        Item("picture and text", text="make it Blue", images=(wide,)),
        Item("frames and text", text="what moves?", frames=frames[:2]),
        Item("instruction alone", instruction="Anything At All"),
        Item("nothing"),
    ]


class Plain:
    """Transformers' own processor and model, one input at a time, with what each family's training code does."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    def text(self, text: str) -> Vectors:
        given = self._model.get_text_features(**self.tokens(text)).pooler_output
        return np.asarray(given[0].detach().numpy())

    def tokens(self, text: str) -> dict[str, torch.Tensor]:
        if self._kind == "clip":
            return dict(self._processor(text=[text], truncation=True, max_length=77, return_tensors="pt"))
        if self._kind == "siglip2":
            text = text.lower()
        options = {"padding": "max_length", "max_length": 64, "truncation": True, "return_tensors": "pt"}
        return {"input_ids": self._processor(text=[text], **options)["input_ids"]}

    def pictures(self, paths: Sequence[Path]) -> Vectors:
        features = []
        for path in paths:
            pixels = self._processor(images=[Image.open(path).convert("RGB")], return_tensors="pt")
            if self._kind == "naflex":  # the processor's own default is 256 patches, whatever the checkpoint says
                own = self._processor.image_processor
                pixels = own(images=[Image.open(path).convert("RGB")], return_tensors="pt")
            features.append(self._model.get_image_features(**pixels).pooler_output[0].detach().numpy())
        return np.asarray(np.mean(features, axis=0))


def unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_network")
def test_vectors_are_those_of_transformers_used_plainly(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    embedder, plain = LOADERS[kind](str(checkpoints[kind])), Plain(kind, checkpoints[kind])
    items = items_of_all_kinds(tmp_path)
    text, long, grey, frames, wide, clip, *_ = items
    expected = [
        plain.text(text.text),
        plain.text(long.text),
        plain.pictures(grey.images),
        plain.pictures(frames.frames),
        plain.pictures(wide.images) + plain.text(wide.text),
        plain.pictures(clip.frames) + plain.text(clip.text),
        plain.text("Anything At All"),
        plain.text(""),
    ]
    found = embedder.encode(items, "query").vectors
    assert found.dtype == np.float32
    assert found.shape == (len(items), embedder.info.dimensions)
    np.testing.assert_allclose(found, [unit(one) for one in expected], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers_used_plainly(kind: str, checkpoints: dict[str, Path]) -> None:
    embedder, plain = LOADERS[kind](str(checkpoints[kind])), Plain(kind, checkpoints[kind])
    for text in ("A Cat.", "Word and another word " * 30):
        found, expected = embedder.prepare([Item("", text=text)], "query")[0].inputs, plain.tokens(text)
        assert set(found) == set(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("instruction", ["none", "text"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_harness_accepts_it(kind: str, instruction: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    embedder = LOADERS[kind](str(checkpoints[kind]), instruction=instruction)
    outcomes = list(check_embedder(embedder, tmp_path))
    assert not [outcome for outcome in outcomes if not outcome.passed]


def test_siglip_2_reads_small_letters_as_its_own_tokenizer_does(checkpoints: dict[str, Path]) -> None:
    folder = checkpoints["siglip2"]
    assert type(AutoTokenizer.from_pretrained(folder)).__name__ == "GemmaTokenizer"
    own = Siglip2Tokenizer.from_pretrained(folder)
    text = "A Cat: NAÏVE, 東京"
    expected = own([text], padding="max_length", max_length=64, truncation=True)["input_ids"]
    ids = load_siglip(str(folder)).prepare([Item("", text=text)], "query")[0].inputs["input_ids"]
    assert ids.tolist() == expected
    assert ids[0, -1] == 0  # padded on the right: the last position is a pad


def test_a_long_text_keeps_its_end(checkpoints: dict[str, Path]) -> None:
    item = Item("", text="word " * 100)
    clip, siglip = load_clip(str(checkpoints["clip"])), load_siglip(str(checkpoints["siglip2"]))
    ids = clip.prepare([item], "query")[0].inputs["input_ids"]
    assert (ids.shape, int(ids[0, -1])) == ((1, 77), 515)
    ids = siglip.prepare([item], "query")[0].inputs["input_ids"]
    assert (ids.shape, int(ids[0, -1])) == ((1, 64), 1)


def test_the_instruction_is_left_out_or_written_before_the_text(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = (picture(tmp_path / "a.png", (8, 8)),)
    without = load_clip(str(checkpoints["clip"]))
    within = load_clip(str(checkpoints["clip"]), instruction="text")
    for item, left_out, written in (
        (Item("", text="a cat", instruction="Find it:"), "a cat", "Find it: a cat"),
        (Item("", text=" ", images=path, instruction="Represent it."), None, "Represent it."),
        (Item("", images=path), None, None),
        (Item("", instruction="Find it:"), "Find it:", "Find it:"),
        (Item(""), "", ""),
    ):
        assert (without.form.text(item), within.form.text(item)) == (left_out, written)
    assert (without.info.profile.instruction, within.info.profile.instruction) == ("none", "user text")
    assert within.info.profile.candidate_instruction == "the task's own"
    assert without.info.settings != within.info.settings


def test_costs_count_the_text_at_its_limit_and_every_frame(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    items = {item.id: item for item in probe_items(tmp_path)}
    for kind, text, patches in (("clip", 77, 4), ("siglip2", 64, 4), ("naflex", 64, 16)):
        embedder = LOADERS[kind](str(checkpoints[kind]))
        assert embedder.cost(items["text short"], "query") == text
        assert embedder.cost(items["frames three"], "candidate") == text + 3 * patches
        profile = embedder.info.profile
        assert profile.max_pixels == patches * 16 * 16
        assert profile.min_pixels == (None if kind == "naflex" else profile.max_pixels)


def test_weights_come_late_and_once(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    original = AutoModel.from_pretrained
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *a, **k: loads.append(a) or original(*a, **k))
    embedder = load_clip(str(checkpoints["clip"]))
    embedder.prepare([Item("", text="a")], "query")
    assert not loads
    embedder.warm_up()
    embedder.encode([Item("", text="a")], "query")
    assert len(loads) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(dtype: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    items = items_of_all_kinds(tmp_path)
    for kind in KINDS:
        path = str(checkpoints[kind])
        full, half = (LOADERS[kind](path, dtype=one).encode(items, "query").vectors for one in ("float32", dtype))
        assert half.dtype == np.float32
        np.testing.assert_allclose(np.sum(full * half, axis=1), 1, atol=5e-3)


@pytest.mark.parametrize(
    ("load", "kind", "message"),
    [
        (load_clip, "siglip2", "is of type 'siglip'; clip runs clip; use --model siglip"),
        (load_siglip, "clip", "is of type 'clip'; siglip runs siglip, siglip2; use --model clip"),
    ],
)
def test_the_other_family_is_named(load: Load, kind: str, message: str, checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=message):
        load(str(checkpoints[kind]))


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("qwen3_vl", "use --model qwen3_vl_embedding or mmemb_r1"),
        ("colpali", "use --model colpali"),
        ("bert", "no registered model runs that"),
    ],
)
def test_a_foreign_checkpoint_is_refused_by_its_type(
    model_type: str, message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = altered(checkpoints["clip"], tmp_path / "copy", model_type=model_type)
    with pytest.raises(ModelError, match=f"is of type '{model_type}'; clip runs clip; {message}"):
        load_clip(str(folder))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", r"has no \.safetensors file"),
        ("tokenizer.json", r"has no tokenizer: expected tokenizer\.json or vocab\.json with merges\.txt"),
        ("preprocessor_config.json", "can't load .*preprocessor_config"),
    ],
)
def test_a_missing_file_is_named(file: str, message: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = altered(checkpoints["clip"], tmp_path / "copy")
    (folder / file).unlink()
    with pytest.raises(ModelError, match=message):
        load_clip(str(folder))


def test_missing_weights_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = altered(checkpoints["siglip2"], tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    del weights["text_model.head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, 1 in all: text_model\.head\.weight"):
        load_siglip(str(folder)).warm_up()


def test_weights_of_another_size_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((checkpoints["clip"] / "config.json").read_text())
    folder = altered(checkpoints["clip"], tmp_path / "copy", vision_config=config["vision_config"] | {"image_size": 64})
    with pytest.raises(ModelError, match="can't load"):
        load_clip(str(folder)).warm_up()


@pytest.mark.parametrize(
    ("dtype", "way_out"), [("float32", "--dtype bfloat16 needs 0.0 GB"), ("bfloat16", "use a smaller checkpoint")]
)
def test_weights_that_do_not_fit_say_what_would(
    dtype: str, way_out: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 TiB")

    embedder = load_clip(str(checkpoints["clip"]), dtype=dtype)
    monkeypatch.setattr(AutoModel, "from_pretrained", fail)
    with pytest.raises(ModelError, match=rf"doesn't fit on cpu: its weights need 0\.0 GB as {dtype}; {way_out}"):
        embedder.warm_up()


def test_a_broken_picture_is_named(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"broken\.png can't be opened"):
        load_clip(str(checkpoints["clip"])).encode([Item("", images=(path,))], "query")


def test_an_unknown_dtype_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="--dtype 'int8'"):
        load_clip(str(checkpoints["clip"]), dtype="int8")


@pytest.mark.parametrize(("load", "model"), [(load_clip, "clip"), (load_siglip, "siglip")])
def test_the_default_is_the_first_card_at_its_revision_and_says_how_to_get_it_offline(
    load: Load, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card: Card = next(card for card in CARDS if card.model == model)
    with pytest.raises(ModelError, match=f"hf download {card.hub_id} --revision {card.revision}") as caught:
        load()
    assert "HF_HUB_OFFLINE is set" in str(caught.value)


def test_cards_name_registered_models_and_full_commits() -> None:
    assert len({card.hub_id for card in CARDS}) == len(CARDS)
    for card in CARDS:
        assert any(card.model in models for models in MODELS_OF_TYPE.values())
        assert card.revision is not None
        assert len(card.revision) == 40


def make_siglip1(folder: Path) -> None:
    """SigLIP 1: its tokenizer is a sentencepiece model."""
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = folder / "lines.txt"
    lines.write_text("a cat sits on the red mat\nthe quick brown fox jumps over the lazy dog\na cat and a dog\n" * 20)
    ids = {"eos_id": 1, "unk_id": 2, "pad_id": -1, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(folder / "spiece"), vocab_size=32, minloglevel=2, **ids
    )
    write_siglip1_tokenizer_config(folder)
    write_siglip_processor(folder)
    text = siglip_text(64) | {"pad_token_id": 1}
    SiglipModel(SiglipConfig(text_config=text, vision_config=dict(image_size=32, **VISION))).save_pretrained(folder)


def write_siglip1_tokenizer_config(folder: Path) -> None:
    special = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_input_names": ["input_ids"]}
    write_json(folder / "tokenizer_config.json", special | settings | {"model_max_length": 64})


def test_siglip_1_is_the_same_as_transformers_used_plainly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make_siglip1(tmp_path)
    embedder, plain = load_siglip(str(tmp_path)), Plain("siglip1", tmp_path)
    item = Item("", text="The CAT sits!", images=(picture(tmp_path / "a.png", (70, 20)),))
    expected = unit(plain.text(item.text) + plain.pictures(item.images))
    np.testing.assert_allclose(embedder.encode([item], "query").vectors[0], expected, atol=1e-5)
    assert not [outcome for outcome in check_embedder(embedder, tmp_path) if not outcome.passed]


def test_siglip_1_without_its_package_gives_the_pip_line(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = altered(checkpoints["siglip2"], tmp_path / "copy")
    write_siglip1_tokenizer_config(folder)
    version = importlib.metadata.version

    def without_sentencepiece(package: str) -> str:
        if package == "sentencepiece":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without_sentencepiece)
    with pytest.raises(ModelError, match="pip install sentencepiece"):
        load_siglip(str(folder))
