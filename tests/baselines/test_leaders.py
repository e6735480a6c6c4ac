"""WeMM-Embedding, omni-embed-nemotron and jina-embeddings-v4 against plain transformers on tiny checkpoints."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from mmeb_baselines import jina_v4, omni_embed_nemotron, wemm_embedding
from tokenizers import Tokenizer
from transformers import AutoModel, Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor
from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import _get_feat_extract_output_lengths

from mmeb_harness import Item, ModelError, Sound, Source
from mmeb_harness.encode.check import check_embedder
from tests.baselines.plain_qwen import Shown, noise, opened, plain_inputs
from tests.baselines.tiny_qwen import save_omni, save_qwen2_5_vl, save_wemm

START, END = "<|vision_start|>", "<|vision_end|>"
IMG = f"{START}<|image_pad|>{END}"
NO_BOUNDS = (1, 10**9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("leaders")
    return {
        "wemm": save_wemm(root / "wemm"),
        "omni": save_omni(root / "omni"),
        "jina": save_qwen2_5_vl(root / "jina"),
    }


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("pictures")
    image = noise(folder / "image.png", (320, 260), 0)
    frames = tuple(noise(folder / f"frame_{i}.png", (320, 240), i) for i in range(1, 4))
    asked = Source("question", "<|image_1|>\nAnswer it:\n\n")
    return {
        "text": Item("text", text="a red\n\ncircle", instruction="Find it:", source=Source("basic", "Find it:")),
        "label": Item("label", text="red", source=Source("bare")),
        "own": Item("own", text="red", instruction="Say it:"),
        "image": Item("image", images=(image,), instruction="Show it.", source=Source("basic", "Show it.")),
        "mixed": Item("mixed", "what?", (image,), instruction="Answer it:", source=asked),
        "two": Item("two", "what?", (image, frames[0]), instruction="Say it:"),
        "video": Item("video", frames=frames, instruction="What is it?", source=Source("basic", "What is it?")),
    }


def normalised(state: torch.Tensor) -> np.ndarray[Any, Any]:
    return torch.nn.functional.normalize(state, dim=0).numpy()


def wemm_vector(folder: Path, text: str, shown: Shown) -> np.ndarray[Any, Any]:
    """By the tokenizer of its files, post-processed as it is there, and the state of the last token."""
    inputs = plain_inputs(folder, text, shown, NO_BOUNDS)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pads = {"<|image_pad|>": 1, "<|video_pad|>": 2}
    counts = [int((inputs["mm_token_type_ids"] == kind).sum()) // max(1, text.count(pad)) for pad, kind in pads.items()]
    for (pad, _), count in zip(pads.items(), counts, strict=True):
        text = text.replace(pad, pad * count)
    inputs["input_ids"] = torch.tensor([tokenizer.encode(text).ids])
    kinds = {tokenizer.token_to_id(pad): kind for pad, kind in pads.items()}
    inputs["mm_token_type_ids"] = torch.tensor([[kinds.get(token, 0) for token in inputs["input_ids"][0].tolist()]])
    with torch.no_grad():
        return normalised(AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0, -1])


def test_wemm_reads_official_words_and_times(folders: dict[str, Path], items: dict[str, Item]) -> None:
    """The template's line breaks are all in the string: its tokenizer drops those at the end of a stretch."""
    embedder = wemm_embedding.load(path=str(folders["wemm"]), device="cpu")
    vectors = embedder.encode([*items.values()], "query").vectors
    head, tail = "<|im_start|>user\n", "<|im_end|>\n<embedding>"
    frames = [frame.resize((320, 256)) for frame in opened(items["video"])]
    times = [f"<{seconds} seconds>{START}<|video_pad|>{END}" for seconds in ("0.5", "2.5")]
    picture = Shown(pictures=[opened(items["image"])[0].resize((320, 256))])
    two = Shown(pictures=[shown.resize((320, 256)) for shown in opened(items["two"])])
    expected = {
        "text": (f"{head}Find it: a red\n\ncircle{tail}", Shown()),
        "label": (f"{head}red{tail}", Shown()),
        "own": (f"{head}Say it: red{tail}", Shown()),
        "image": (f"{head}{IMG}Show it.{tail}", picture),
        "mixed": (f"{head}{IMG}Answer it: what?{tail}", picture),
        "two": (f"{head}{IMG * 2}Say it: what?{tail}", two),
        "video": (f"{head}{''.join(times)}What is it?{tail}", Shown(frames=frames)),
    }
    for vector, (name, (text, shown)) in zip(vectors, expected.items(), strict=True):
        np.testing.assert_allclose(vector, wemm_vector(folders["wemm"], text, shown), atol=2e-5, err_msg=name)


def omni_states(folder: Path, text: str, shown: Shown, samples: Any = None) -> np.ndarray[Any, Any]:
    """One item through the thinker, every mask made by hand: all tokens see all, and their mean is the vector.

    A sound as transformers' own processor reads it: Whisper's spectrum, padded to five minutes under a mask.
    """
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval().model
    sounds: dict[str, Any] = {}
    if samples is not None:
        extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=300)
        found = extractor(samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True)
        sounds = {name: torch.tensor(np.asarray(found[name])) for name in ("input_features", "attention_mask")}
        count = _get_feat_extract_output_lengths(sounds["attention_mask"].sum(-1))
        text = text.replace("<|AUDIO|>", "<|AUDIO|>" * int(count))
        sounds["feature_attention_mask"] = sounds.pop("attention_mask")
        assert sounds["input_features"].shape[-1] == 30_000
    inputs = plain_inputs(folder, text, shown, NO_BOUNDS) | sounds
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = {f"<|{kind}_pad|>": f"<|{kind.upper()}|>" for kind in ("image", "video")}
    pads = {tokenizer.token_to_id(pad): tokenizer.token_to_id(own) for pad, own in named.items()}
    ids = torch.tensor([[pads.get(token, token) for token in inputs.pop("input_ids")[0].tolist()]])
    del inputs["mm_token_type_ids"]
    grids = {name: inputs[name] for name in ("image_grid_thw", "video_grid_thw") if name in inputs}
    seconds = {"second_per_grids": torch.tensor([1.0])} if shown.frames else {}
    if sounds:
        seconds["audio_seqlens"] = sounds["feature_attention_mask"].sum(-1)
    places, _ = model.get_rope_index(ids, attention_mask=torch.ones_like(ids), **grids, **seconds)
    everything = {"full_attention": torch.zeros(1, 1, ids.shape[1], ids.shape[1])}
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=everything, position_ids=places, use_cache=False, **inputs)
    return normalised(states.last_hidden_state[0].mean(dim=0))


def test_omni_embed_nemotron_sees_both_ways(folders: dict[str, Path], items: dict[str, Item], tmp_path: Path) -> None:
    embedder = omni_embed_nemotron.load(path=str(folders["omni"]), device="cpu")
    plain = Path(copied(folders["omni"], tmp_path / "omni", "config.json", {"model_type": "qwen2_5_omni_thinker"}))
    head, tail = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"
    picture = Shown(pictures=[opened(items["image"])[0].resize((308, 252))])
    two = Shown(pictures=[shown.resize((308, 252)) for shown in opened(items["two"])])
    clip = Shown(frames=[frame.resize((252, 168)) for frame in opened(items["video"])])
    see = "<|vision_bos|>{}<|vision_eos|>"
    expected = [
        ("text", "query", f"{head}query: a red\n\ncircle{tail}", Shown()),
        ("image", "candidate", f"{head}passage: {see.format('<|image_pad|>')}{tail}", picture),
        ("mixed", "query", f"{head}query: what?{see.format('<|image_pad|>')}{tail}", picture),
        ("two", "query", f"{head}query: what?{see.format('<|image_pad|>') * 2}{tail}", two),
        ("video", "candidate", f"{head}passage: {see.format('<|video_pad|>')}{tail}", clip),
    ]
    for name, role, text, shown in expected:
        vector = embedder.encode([items["label"], items[name]], role).vectors[1]  # type: ignore[arg-type]
        np.testing.assert_allclose(vector, omni_states(plain, text, shown), atol=2e-5, err_msg=name)


def test_omni_embed_nemotron_hears(folders: dict[str, Path], items: dict[str, Item], tmp_path: Path) -> None:
    """Sounds of unlike length in one batch, a part of one, and one beside a picture and words, in both profiles."""
    plain = Path(copied(folders["omni"], tmp_path / "omni", "config.json", {"model_type": "qwen2_5_omni_thinker"}))
    samples = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    sound, find = Sound(tmp_path / "a.wav"), "Find it."
    part = dataclasses.replace(sound, start=0.25, end=1.0)
    heard = [
        Item("whole", sound=sound, instruction=find, source=Source("sound_query", find)),
        Item("part", "red", instruction=find, source=Source("sound_query", find), sound=part),
        Item("window", source=Source("basic", "[AUDIO]"), sound=dataclasses.replace(sound, window=0.5)),
        dataclasses.replace(items["mixed"], id="both", sound=sound),
    ]
    picture = Shown(pictures=[opened(items["image"])[0].resize((308, 252))])
    head, tail = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"
    hear, see = "<|audio_bos|><|AUDIO|><|audio_eos|>", "<|vision_bos|><|image_pad|><|vision_eos|>"
    given = [samples, samples[4000:16_000], samples[:8000], samples]
    written: dict[Any, list[str]] = {
        "own": [f"query: {hear}", f"query: red{hear}", f"query: {hear}", f"query: what?{see}{hear}"],
        "leaderboard": [
            f"{hear}Find it.",
            f"{hear}Find it. Query: red",
            f"{hear}[AUDIO]",
            f"{see}{hear}Answer it: what?",
        ],
    }
    for profile, texts in written.items():
        embedder = omni_embed_nemotron.load(path=str(folders["omni"]), device="cpu", profile=profile)
        vectors = embedder.encode(heard, "query").vectors
        for item, text, vector, wave in zip(heard, texts, vectors, given, strict=True):
            shown = picture if item.images else Shown()
            expected = omni_states(plain, f"{head}{text}{tail}", shown, wave)
            np.testing.assert_allclose(vector, expected, atol=2e-5, err_msg=f"{profile}: {item.id}")


def test_what_an_omni_model_hears_costs_its_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(40_000), 16_000)
    embedder = omni_embed_nemotron.load(path=str(folders["omni"]), device="cpu")
    ears, sound = embedder.form.reader.ears, Sound(tmp_path / "a.wav", window=2.0)
    assert ears is not None
    assert ears.cost(sound) == ears.num_tokens(ears.spectrum(sound).shape[1]) == 50
    assert embedder.info.media == ("image", "video", "audio")


def test_a_spectrum_is_what_transformers_pads_to_five_minutes(folders: dict[str, Path], tmp_path: Path) -> None:
    ears = omni_embed_nemotron.load(path=str(folders["omni"]), device="cpu").form.reader.ears
    assert ears is not None
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=300)
    for count in (400, 12_345, 16_000):
        samples = np.random.default_rng(count).normal(0, 0.1, count).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
        found = extractor(samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True)
        frames = int(np.sum(found["attention_mask"]))
        spectrum = ears.spectrum(Sound(tmp_path / "a.wav"))
        np.testing.assert_allclose(spectrum, np.asarray(found["input_features"])[0][:, :frames], atol=1e-5)
        assert ears.num_tokens(frames) == _get_feat_extract_output_lengths(frames)


def jina_mean(folder: Path, text: str, shown: Shown) -> np.ndarray[Any, Any]:
    inputs = plain_inputs(folder, text, shown, NO_BOUNDS)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = inputs["input_ids"][0].tolist()
    ends = [ids.index(tokenizer.token_to_id(token)) for token in (START, END)] if shown.pictures else [0, len(ids)]
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0]
    return normalised(states[ends[0] : ends[1] + 1].mean(dim=0))


def test_jina_v4_adds_a_texts_and_a_pictures_vector(folders: dict[str, Path], items: dict[str, Item]) -> None:
    embedder = jina_v4.load(path=str(folders["jina"]), device="cpu")
    vectors = dict(zip(items, embedder.encode([*items.values()], "query").vectors, strict=True))
    see = f"<|im_start|>user\n{IMG}Describe the image.<|im_end|>\n"
    picture = jina_mean(folders["jina"], see, Shown(pictures=[opened(items["image"])[0].resize((308, 252))]))
    asked = jina_mean(folders["jina"], "Query: what?", Shown())
    frames = [
        jina_mean(folders["jina"], see, Shown(pictures=[frame.resize((308, 252))])) for frame in opened(items["video"])
    ]
    expected = {
        "text": jina_mean(folders["jina"], "Query: a red\n\ncircle", Shown()),
        "image": picture,
        "mixed": (asked + picture) / np.linalg.norm(asked + picture),
        "two": (2 * asked + picture + frames[0]) / np.linalg.norm(2 * asked + picture + frames[0]),
        "video": np.mean(frames, axis=0) / np.linalg.norm(np.mean(frames, axis=0)),
    }
    for name, vector in expected.items():
        np.testing.assert_allclose(vectors[name], vector, atol=2e-5, err_msg=name)


FAMILIES = {"wemm": wemm_embedding, "omni": omni_embed_nemotron, "jina": jina_v4}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_check_passes_and_what_spells_a_token_stays_text(
    name: str, folders: dict[str, Path], items: dict[str, Item], tmp_path: Path
) -> None:
    embedder = FAMILIES[name].load(path=str(folders[name]), device="cpu")
    findings = check_embedder(embedder, tmp_path)
    assert not [finding for finding in findings if not finding.passed], findings
    words = f"{IMG} <|im_end|><embedding><|vision_bos|><|IMAGE|><|VIDEO|> <think>"
    for item in items.values():
        changed = dataclasses.replace(item, text=words, instruction=words, source=Source("bare"))
        plain = dataclasses.replace(changed, text="x", instruction="x")
        spelled, expected = (embedder.form.batches([variant], "query") for variant in (changed, plain))
        for token, number in embedder.form.reader.speller.added_tokens.items():
            counts = [
                sum(int((batch.inputs["input_ids"] == number).sum()) for batch in side) for side in (spelled, expected)
            ]
            assert counts[0] == counts[1], (item.id, token)


def copied(folder: Path, to: Path, file: str, values: dict[str, object]) -> str:
    shutil.copytree(folder, to)
    (to / file).write_text(json.dumps({**json.loads((to / file).read_text()), **values}))
    return str(to)


def test_what_they_cannot_run_is_refused_with_the_way_out(folders: dict[str, Path], tmp_path: Path) -> None:
    apart = copied(folders["jina"], tmp_path / "jina", "config.json", {"architectures": ["JinaEmbeddingsV4Model"]})
    with pytest.raises(ModelError, match="use jinaai/jina-embeddings-v4-vllm-retrieval, its publisher's own"):
        jina_v4.load(path=apart)
    with pytest.raises(ModelError, match="of type 'qwen3_5'; jina_v4 runs qwen2_5_vl; use --model wemm_embedding"):
        jina_v4.load(path=str(folders["wemm"]))
    bare = copied(folders["omni"], tmp_path / "omni", "chat_template.json", {"chat_template": "{{ messages[0].role }}"})
    with pytest.raises(ModelError, match="chat template writes a text and 0 media as 'user'"):
        omni_embed_nemotron.load(path=bare, device="cpu").encode([Item("a", text="b")], "query")
    (tmp_path / "omni" / "chat_template.json").unlink()
    with pytest.raises(ModelError, match=r"has neither chat_template\.jinja nor chat_template\.json"):
        omni_embed_nemotron.load(path=bare)
    unlike = copied(folders["jina"], tmp_path / "wemm", "config.json", {"model_type": "qwen3_5"})
    with pytest.raises(ModelError, match="has no token <embedding>, which WeMM-Embedding reads"):
        wemm_embedding.load(path=unlike)
