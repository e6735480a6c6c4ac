"""Each Qwen-VL family's adapter against a plain use of transformers: the same tokens, the same vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmeb_baselines import gme, lamra, ops_mm, qwen3_vl_embedding, rzen_embed, vlm2vec

from mmeb_harness import DataError, Item, ModelError, Role, Source
from mmeb_harness.encode.check import check_embedder
from tests.baselines.plain_qwen import Shown, fetched, noise, opened, plain_vector
from tests.baselines.tiny_qwen import save_qwen2_5_vl, save_qwen2_vl, save_qwen3_vl

START, END = "<|vision_start|>", "<|vision_end|>"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
CLOSED = ANSWER + "<|endoftext|>"
SUMMARY = "\nSummarize above {} in one word: " + ANSWER
QUESTION = "Represent the given image with the following question:"


def system(text: str) -> str:
    return f"<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\n"


SYSTEM = system("You are a helpful assistant.")


@pytest.fixture(scope="module")
def qwen2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_vl(tmp_path_factory.mktemp("qwen2_vl"))


@pytest.fixture(scope="module")
def qwen2_5_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_5_vl(tmp_path_factory.mktemp("qwen2_5_vl"))


@pytest.fixture(scope="module")
def qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_vl(tmp_path_factory.mktemp("qwen3_vl"))


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("pictures")
    image = noise(folder / "image.png", (300, 200), 0)
    frames = tuple(noise(folder / f"frame_{i}.png", (320, 240), i) for i in range(1, 4))
    basic = Source("basic", "Represent the given image.")
    asked = Source("question", f"<|image_1|>\n{QUESTION}")
    return {
        "text": Item("text", text="a red circle", instruction="Find it:", source=Source("basic", "Find it:")),
        "label": Item("label", text="red", source=Source("bare")),
        "image": Item("image", images=(image,), instruction="Represent the given image.", source=basic),
        "mixed": Item("mixed", "what?", (image,), instruction=QUESTION, source=asked),
        "two": Item("two", text="first then", images=(frames[0], image), instruction="Find it:"),
        "placed": Item(*("placed", "first then", (image, frames[0])), places=(6, 10), source=Source("interleaved")),
        "video": Item("video", frames=frames, instruction="What is it?", source=Source("basic", "What is it?")),
    }


@dataclass(frozen=True)
class Case:
    """What a family must make of an item."""

    family: str
    item: str
    role: Role
    text: str
    bounds: tuple[int, int] = (3136, 1_003_520)
    frame_size: tuple[int, int] | None = None  # of a video; as pictures where `text` has image pads
    mrope: bool = False
    fetched: bool = False  # by qwen-vl-utils before the processor: resized twice
    arguments: tuple[tuple[str, str], ...] = ()


TOKEN = 784
IMG, VID = START + "<|image_pad|>" + END, START + "<|video_pad|>" + END
SMALL, FRAME = (3136, 300 * TOKEN), (160 * TOKEN, 180 * TOKEN)
BIG = (256 * TOKEN, 1280 * TOKEN)
BOARD = (("profile", "leaderboard"),)
CASES = (
    Case("vlm2vec", "text", "query", "Find it: a red circle"),
    Case("vlm2vec", "label", "candidate", "red"),
    Case("vlm2vec", "image", "candidate", "<|image_pad|> Represent the given image."),
    Case("vlm2vec", "mixed", "query", f"<|image_pad|>\n{QUESTION} what?\n"),
    Case("vlm2vec", "video", "query", "<|video_pad|> What is it?", frame_size=(308, 252)),
    Case("vlm2vec", "two", "query", "<|image_pad|><|image_pad|> Find it: first then"),
    Case("vlm2vec", "placed", "query", "first <|image_pad|>then<|image_pad|>"),
    Case("gme", "placed", "candidate", f"{SYSTEM}{IMG * 2}first then{CLOSED}", BIG, fetched=True),
    Case("gme", "text", "query", f"{system('Find it:')}a red circle{CLOSED}"),
    Case("gme", "image", "candidate", f"{SYSTEM}{IMG}{CLOSED}", BIG, fetched=True),
    Case("gme", "video", "candidate", f"{SYSTEM}{IMG * 3}{CLOSED}", BIG, (320, 240), fetched=True),
    Case("gme", "text", "query", f"{SYSTEM}Find it: a red circle{CLOSED}", arguments=BOARD),
    Case("gme", "image", "candidate", f"{SYSTEM}{IMG}Represent the given image. {CLOSED}", arguments=BOARD),
    Case("lamra", "text", "query", f"{SYSTEM}Find it: a red circle{SUMMARY.format('sentence')}", SMALL),
    Case("lamra", "image", "candidate", f"{SYSTEM}{IMG}{SUMMARY.format('image')}", SMALL),
    Case("lamra", "video", "candidate", f"{SYSTEM}{VID}{SUMMARY.format('video')}", frame_size=(308, 252)),
    Case("lamra", "label", "candidate", f"{SYSTEM}red\n{ANSWER}<emb>.{ANSWER}", arguments=BOARD),
    Case(
        *("lamra", "image", "candidate", f"{SYSTEM}{IMG}Represent the given image. {ANSWER}<emb>.{ANSWER}", BIG),
        fetched=True,
        arguments=BOARD,
    ),
    Case("lamra", "two", "candidate", f"{SYSTEM}{IMG * 2}first then{SUMMARY.format('image and sentence')}", SMALL),
    Case("ops_mm", "two", "query", f"{system('Find it:')}{IMG * 2}first then{CLOSED}", BIG, mrope=True),
    Case("ops_mm", "label", "candidate", f"{SYSTEM}red{CLOSED}", mrope=True),
    Case("ops_mm", "image", "query", f"{system('Represent the given image.')}{IMG}{CLOSED}", BIG, mrope=True),
    Case("rzen_embed", "text", "query", f"{SYSTEM}Find it: a red circle{CLOSED}"),
    Case("rzen_embed", "two", "query", f"{SYSTEM}{IMG * 2}Find it: first then{CLOSED}", BIG, fetched=True),
    Case("rzen_embed", "mixed", "query", f"{SYSTEM}{IMG}{QUESTION} what?{CLOSED}", BIG, fetched=True),
    Case("rzen_embed", "video", "candidate", f"{SYSTEM}{IMG * 3}What is it?{CLOSED}", FRAME, (320, 240), fetched=True),
)
LOADERS: dict[str, Callable[..., Any]] = {
    **{"vlm2vec": vlm2vec.load, "gme": gme.load, "lamra": lamra.load, "ops_mm": ops_mm.load},
    "rzen_embed": rzen_embed.load,
}


def name_of(case: Case) -> str:
    return f"{case.family}-{case.item}-{case.role}{'-board' * bool(case.arguments)}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_vectors_equal_those_of_plain_transformers(qwen2_vl: Path, items: dict[str, Item], case: Case) -> None:
    item = items[case.item]
    embedder = LOADERS[case.family](path=str(qwen2_vl), device="cpu", **dict(case.arguments))
    found = embedder.encode([*items.values()], case.role).vectors[list(items).index(case.item)]
    pictures = [fetched(picture) if case.fetched else picture for picture in opened(item, case.frame_size)]
    shown = Shown(frames=pictures) if "<|video_pad|>" in case.text else Shown(pictures=pictures)
    expected = plain_vector(qwen2_vl, case.text, shown, case.bounds, mrope=case.mrope)
    np.testing.assert_allclose(found, expected, atol=1e-5)


LAMRA_2_5 = tuple(dataclasses.replace(case, mrope=not case.arguments) for case in CASES if case.family == "lamra")


@pytest.mark.parametrize("case", LAMRA_2_5, ids=name_of)
def test_lamra_on_qwen2_5_vl(qwen2_5_vl: Path, items: dict[str, Item], case: Case) -> None:
    """The same prompts; in its own profile the model's own positions."""
    test_vectors_equal_those_of_plain_transformers(qwen2_5_vl, items, case)


def test_qwen3_vl_embedding_writes_times_and_full_stops(qwen3_vl: Path, items: dict[str, Item]) -> None:
    embedder = qwen3_vl_embedding.load(path=str(qwen3_vl), device="cpu")
    head, own = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n", "Represent the user's input."
    picture = Shown(pictures=opened(items["image"]))
    # 352 x 416, by way of a grid of 64 pixels.
    frames = [frame.resize((320, 256)).resize((416, 352)) for frame in opened(items["video"])]
    timed = f"<0.2 seconds>{START}<|video_pad|>{END}<1.2 seconds>{START}<|video_pad|>{END}"
    cases = [
        ("text", "query", f"{head.format('Find it:')}a red circle{ANSWER}", Shown()),
        ("label", "candidate", f"{head.format(own)}red{ANSWER}", Shown()),
        ("image", "candidate", f"{head.format(own)}{IMG}{ANSWER}", picture),
        (
            "image",
            "query",
            f"{system('Represent the given image.')}{IMG}{ANSWER}",
            Shown(pictures=opened(items["image"])),
        ),
        ("video", "candidate", f"{head.format(own)}{timed}{ANSWER}", Shown(frames=frames)),
        (
            "placed",
            "candidate",
            f"{head.format(own)}{IMG * 2}first then{ANSWER}",
            Shown(pictures=opened(items["placed"])),
        ),
    ]
    for name, role, text, shown in cases:
        found = embedder.encode([items[name]], role).vectors[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(
            found, plain_vector(qwen3_vl, text, shown, (4096, 1_843_200), mrope=True), atol=1e-5, err_msg=text
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOADERS, "qwen3_vl_embedding"])
def test_the_check_passes(qwen2_vl: Path, qwen3_vl: Path, tmp_path: Path, name: str) -> None:
    if name == "qwen3_vl_embedding":
        embedder = qwen3_vl_embedding.load(path=str(qwen3_vl), device="cpu")
    else:
        embedder = LOADERS[name](path=str(qwen2_vl), device="cpu")
    assert [outcome for outcome in check_embedder(embedder, tmp_path) if not outcome.passed] == []


def test_lora_weights_are_merged_under_their_old_names(qwen2_vl: Path, tmp_path: Path, items: dict[str, Item]) -> None:
    """As VLM2Vec's are: DoRA, and modules named as before transformers 4.52."""
    peft = pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file
    from transformers import Qwen2VLForConditionalGeneration

    base = Qwen2VLForConditionalGeneration.from_pretrained(qwen2_vl)
    config = peft.LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "down_proj"])
    adapted = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2)
    adapted.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    old = {name.replace("model.model.language_model.", "model.model."): value for name, value in stored.items()}
    save_file(old, tmp_path / "adapter_model.safetensors")
    item = items["image"]
    found = vlm2vec.load(path=str(tmp_path), base=str(qwen2_vl), device="cpu").encode([item], "candidate").vectors[0]
    merged = tmp_path / "merged"
    adapted.merge_and_unload().save_pretrained(merged)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (merged / file).write_bytes((qwen2_vl / file).read_bytes())
    text = "<|image_pad|> Represent the given image."
    expected = plain_vector(merged, text, Shown(pictures=opened(item)), (3136, 1_003_520), mrope=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    pickled = tmp_path / "pickled"  # V1's adapters are .bin files
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((tmp_path / "adapter_config.json").read_bytes())
    torch.save(old, pickled / "adapter_model.bin")
    again = vlm2vec.load(path=str(pickled), base=str(qwen2_vl), device="cpu").encode([item], "candidate").vectors[0]
    np.testing.assert_allclose(again, expected, atol=1e-5)
    strange = {name.replace("q_proj", "other"): value for name, value in old.items()}
    save_file(strange, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="found no place in the base model"):
        vlm2vec.load(path=str(tmp_path), base=str(qwen2_vl), device="cpu").encode([item], "candidate")
    half = {name: value for name, value in old.items() if "lora_B" in name}  # peft would draw the other factor
    save_file(half, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"\d+ LoRA weights of .* are not in its files: .*lora_A"):
        vlm2vec.load(path=str(tmp_path), base=str(qwen2_vl), device="cpu").encode([item], "candidate")


def test_a_checkpoint_of_another_family_is_refused(qwen3_vl: Path) -> None:
    with pytest.raises(
        ModelError, match=r"of type 'qwen3_vl'; gme runs qwen2_vl; use --model qwen3_vl_embedding or mmemb_r1"
    ):
        gme.load(path=str(qwen3_vl))


@pytest.mark.slow
def test_pictures_that_do_not_fit_are_refused(qwen3_vl: Path, items: dict[str, Item]) -> None:
    embedder = qwen3_vl_embedding.load(path=str(qwen3_vl), device="cpu")
    long = Item("long", frames=items["video"].frames * 43, text="")
    with pytest.raises(DataError, match=r"item 'long' has \d+ tokens.*--frames"):
        embedder.encode([long], "candidate")


def test_a_stray_picture_token_is_text(qwen2_vl: Path, items: dict[str, Item]) -> None:
    """WebQA's and EDIS's queries have one, and may share a batch with pictures."""
    stray = Item("stray", text="who?", source=Source("text_query", "<|image_1|> Find it:"))
    embedder = vlm2vec.load(path=str(qwen2_vl), device="cpu")
    alone = embedder.encode([stray], "query").vectors[0]
    beside = embedder.encode([items["image"], stray], "query").vectors[1]
    np.testing.assert_allclose(alone, beside, atol=1e-6)
    expected = plain_vector(qwen2_vl, "<|image_pad|> Find it: who?\n", Shown(), (1, 2), mrope=False)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
