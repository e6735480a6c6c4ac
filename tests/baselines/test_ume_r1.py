"""UME-R1's adapter against transformers' `generate` with hidden states, one item alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from mmeb_baselines import ume_r1
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from mmeb_harness import DataError, Item, ModelError, OptionError, Role, Source, Trace
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.encode.check import check_embedder
from mmeb_harness.results.files import load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings, fingerprint_of
from mmemb_r1_model.decoding import Decoder
from tests.baselines.plain_qwen import Shown, noise, opened, plain_inputs
from tests.baselines.tiny_qwen import save_qwen2_vl, save_ume_r1, with_rows
from tests.toy import evaluated

pytestmark = pytest.mark.slow

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
IMG, VID = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
TRAINING = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings. First output the "
    "thinking process in <think> </think> tags and then summarize the entire input in a word or sentence. Finally, "
    "use the <gen_emb> tag to represent the entire input."
)
README = TRAINING.replace(". ", ". \n")
BOUNDS = (3136, 2_359_296)
LIMIT = 12
SETTINGS = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "max_new_tokens": 1}


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes a few tokens, <gen_emb>, sometimes more, and ends."""
    folder = save_ume_r1(tmp_path_factory.mktemp("ume"))
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS))  # none of it is to matter
    return folder


@pytest.fixture(scope="module")
def mute(writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but it never writes <gen_emb>."""
    folder = tmp_path_factory.mktemp("copies") / "mute"
    shutil.copytree(writer, folder)
    return with_rows(folder, {"<gen_emb>": 0.0})


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("pictures")
    image = noise(folder / "image.png", (300, 200), 0)
    frames = tuple(noise(folder / f"frame_{i}.png", (320, 240), i) for i in range(1, 4))
    stray = Source("dialogue_query", "<|image_1|>\nFind it:")
    return {
        "text": Item("text", text="a red circle", instruction="Find it:", source=stray),
        "label": Item("label", text="red", source=Source("bare")),
        "marked": Item("marked", text="<gen_emb> or <disc_emb><|image_pad|>?", source=Source("bare")),
        "image": Item("image", images=(image,), source=Source("uncaptioned_line", "<|image_1|>\nRepresent the image.")),
        "placed": Item("placed", "one and", (image, frames[0]), places=(3, 7), source=Source("interleaved")),
        "video": Item("video", text=" what? ", frames=frames, source=Source("video_question", "Watch: ")),
    }


TEXTS = {
    "text": f"{IMG}Find it: a red circle",
    "label": f"{IMG}red",
    "marked": f"{IMG}<gen_emb> or <disc_emb><|image_pad|>?",
    "image": f"{IMG}Represent the image.",
    "placed": f"{IMG * 2}one and",
    "video": f"{VID}Watch:   what?",
}


def shown(item: Item) -> Shown:
    if item.frames:  # 0.0.11 makes them 308 x 252, transformers' lower bound 364 x 308
        return Shown(frames=[frame.resize((364, 308)) for frame in opened(item, (308, 252))])
    return Shown(pictures=opened(item) or [Image.new("RGB", (28, 28), (255, 255, 255))])


def spelled(item: Item) -> str:
    """What spells tokens, and stays text."""
    return f"{item.text}\n" if item.id == "marked" else ""


@dataclasses.dataclass(frozen=True)
class Plain:
    """What a straightforward use of transformers gives for one item."""

    disc: np.ndarray[Any, Any]
    gen: np.ndarray[Any, Any] | None  # no <gen_emb> was written
    written: list[int]


def plain(folder: Path, item: Item, request: str) -> Plain:
    """As UME-R1's evaluation reads its two vectors, greedily."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    gen, disc, *visual = (
        tokenizer.convert_tokens_to_ids(token)
        for token in ("<gen_emb>", "<disc_emb>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    )
    text = f"{SYSTEM}{TEXTS[item.id]}\n<disc_emb>\n{request}{ANSWER}"
    inputs = plain_inputs(folder, text, shown(item), BOUNDS, spelled(item))
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config = type(model.generation_config)()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[-1][0]
        output = model.generate(
            **inputs,
            **{"do_sample": False, "max_new_tokens": LIMIT + 1, "suppress_tokens": visual, "eos_token_id": end},
            **{"return_dict_in_generate": True, "output_hidden_states": True, "pad_token_id": end},
        )
    written = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()[:LIMIT]
    last = (inputs["input_ids"][0] == disc).nonzero()[-1].item()
    steps = [step for step, token in enumerate(written) if token == gen]
    at_gen = unit(output.hidden_states[steps[-1] + 1][-1][0, -1]) if steps else None
    return Plain(unit(states[last]), at_gen, written)


def unit(state: torch.Tensor) -> np.ndarray[Any, Any]:
    return torch.nn.functional.normalize(state, dim=0).numpy()


def load(folder: Path, **arguments: Any) -> ume_r1.UmeR1Embedder:
    return ume_r1.load(path=str(folder), device="cpu", **{"max_new_tokens": LIMIT, **arguments})


def test_the_model_writes_what_the_tests_need(writer: Path, items: dict[str, Item]) -> None:
    found = {name: plain(writer, item, TRAINING) for name, item in items.items()}
    marker = AutoTokenizer.from_pretrained(writer).convert_tokens_to_ids("<gen_emb>")
    counts = [one.written.count(marker) for one in found.values()]
    assert min(counts) == 1
    assert max(counts) > 1
    assert any(len(one.written) < LIMIT for one in found.values())
    assert any(len(one.written) == LIMIT and one.written[-1] != marker for one in found.values())


@pytest.mark.parametrize("prompt", [TRAINING, README], ids=["training", "readme"])
def test_both_vectors_equal_those_of_plain_transformers(writer: Path, items: dict[str, Item], prompt: str) -> None:
    """All items in one batch here, each alone there."""
    spelling = "training" if prompt is TRAINING else "readme"
    gen = load(writer, prompt=spelling).encode([*items.values()], "query")
    disc = load(writer, prompt=spelling, reasoning="never").encode([*items.values()], "query")
    assert disc.traces is None
    expected = [plain(writer, item, prompt) for item in items.values()]
    np.testing.assert_allclose(disc.vectors, [one.disc for one in expected], atol=1e-5)
    read = {row: one.gen for row, one in enumerate(expected) if one.gen is not None}
    assert len(read) >= 3  # not every item is answered on the other request
    np.testing.assert_allclose(gen.vectors[[*read]], np.stack([*read.values()]), atol=1e-5)


def test_what_is_transparent_is_white(writer: Path, tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (84, 84), (200, 30, 30, 0))
    hidden.save(tmp_path / "hidden.png")
    Image.new("RGB", (84, 84), (255, 255, 255)).save(tmp_path / "white.png")
    items = [Item(name, images=(tmp_path / name,)) for name in ("hidden.png", "white.png")]
    first, second = load(writer, reasoning="never").encode(items, "query").vectors
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_transparent_colour_is_shown_and_not_white(writer: Path, tmp_path: Path) -> None:
    entry = Image.new("P", (84, 84), 0)
    entry.putpalette([200, 30, 30])
    entry.save(tmp_path / "entry.png", transparency=0)
    Image.new("RGB", (84, 84), (200, 30, 30)).save(tmp_path / "red.png")
    items = [Item(name, images=(tmp_path / name,)) for name in ("entry.png", "red.png")]
    first, second = load(writer, reasoning="never").encode(items, "query").vectors
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_rationale_is_the_same_alone_and_beside_others(writer: Path, items: dict[str, Item]) -> None:
    embedder = load(writer)
    together = traces(embedder, [*items.values()])
    assert together == [trace for item in items.values() for trace in traces(embedder, [item])]
    tokenizer = AutoTokenizer.from_pretrained(writer)
    for item, trace in zip(items.values(), together, strict=True):
        written = plain(writer, item, TRAINING).written
        ended = written[:-1] if written[-1] == tokenizer.eos_token_id else written
        assert (trace.path, trace.reasoning_tokens, trace.truncated) == ("reasoned", len(ended), False)
        last = len(ended) - 1 - ended[::-1].index(tokenizer.convert_tokens_to_ids("<gen_emb>"))
        assert trace.rationale == tokenizer.decode(ended[:last]).strip()


@pytest.mark.parametrize("which", ["writer", "mute"])
def test_the_cache_gives_what_generate_and_a_second_pass_give(
    which: str, request: pytest.FixtureRequest, items: dict[str, Item]
) -> None:
    folder = request.getfixturevalue(which)
    for limit in (1, 2, LIMIT):
        embedder = load(folder, max_new_tokens=limit)
        found = embedder.encode([*items.values()], "query")
        plain = embedder.encode_reference([*items.values()], "query")
        np.testing.assert_allclose(found.vectors, plain.vectors, atol=1e-5)
        assert [dataclasses.replace(trace, seconds=None) for trace in found.traces or ()] == list(plain.traces or ())
    found, plain = (
        getattr(load(folder, reasoning="never"), way)([*items.values()], "query")
        for way in ("encode", "encode_reference")
    )
    np.testing.assert_array_equal(found.vectors, plain.vectors)


def test_a_stream_of_batches_gives_one_result_each(writer: Path, items: dict[str, Item]) -> None:
    """In two slots, with batches of one and of several kinds of media."""
    embedder = load(writer)
    embedder.encode([items["text"]], "query")
    embedder._writer._decoder = Decoder(embedder._core.model, embedder._writing, slots=2)
    groups = [["text", "image", "video"], ["label"], ["video", "marked"], ["image", "text", "label"]]
    prepared = (embedder.prepare([items[name] for name in group], "query") for group in groups)
    results = list(embedder.encode_stream(prepared))
    for group, result in zip(groups, results, strict=True):
        assert result.traces is not None
        for name, vector, trace in zip(group, result.vectors, result.traces, strict=True):
            expected = load(writer).encode([items[name]], "query")
            assert expected.traces is not None
            np.testing.assert_allclose(vector, expected.vectors[0], atol=1e-5, err_msg=name)
            assert trace.rationale == expected.traces[0].rationale
    written = sum(trace.reasoning_tokens for result in results for trace in result.traces or ())
    assert sum(result.work.new_tokens for result in results if result.work) == written


def traces(embedder: ume_r1.UmeR1Embedder, items: Sequence[Item]) -> list[Trace]:
    found = embedder.encode(items, "candidate").traces
    assert found is not None
    assert all(trace.seconds and trace.seconds > 0 for trace in found)
    return [dataclasses.replace(trace, seconds=None) for trace in found]


def test_an_answer_without_the_token_is_closed_by_rule(mute: Path, items: dict[str, Item]) -> None:
    result = load(mute).encode([*items.values()], "query")
    assert result.traces is not None
    model, tokenizer = Qwen2VLForConditionalGeneration.from_pretrained(mute).eval(), AutoTokenizer.from_pretrained(mute)
    for vector, trace, item in zip(result.vectors, result.traces, items.values(), strict=True):
        expected = plain(mute, item, TRAINING)
        ended = [token for token in expected.written if token != tokenizer.eos_token_id]
        assert expected.gen is None
        assert (trace.path, trace.reasoning_tokens, trace.truncated) == ("reasoned", len(ended) + 1, True)
        assert trace.rationale == tokenizer.decode(ended).strip()
        whole = f"{SYSTEM}{TEXTS[item.id]}\n<disc_emb>\n{TRAINING}{ANSWER}"
        inputs = plain_inputs(mute, whole, shown(item), BOUNDS, spelled(item))
        added = torch.tensor([[*ended, tokenizer.convert_tokens_to_ids("<gen_emb>")]])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], added], dim=1)
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], added * 0], dim=1)
        with torch.no_grad():
            state = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        np.testing.assert_allclose(vector, unit(state), atol=1e-5, err_msg=item.id)


@pytest.mark.parametrize("reasoning", get_args(ume_r1.Reasoning))
def test_the_check_passes(writer: Path, tmp_path: Path, reasoning: str) -> None:
    embedder = load(writer, reasoning=reasoning, candidate_reasoning=reasoning)
    assert [outcome for outcome in check_embedder(embedder, tmp_path) if not outcome.passed] == []


def test_missing_tokens_are_counted_in_a_task_s_result(mute: Path, cache: Path, tmp_path: Path) -> None:
    registered = load_tasks()
    settings = RunSettings(tmp_path, edition="page-fixed", limit=2)
    run = evaluated(
        load(mute, candidate_reasoning="never", max_new_tokens=3),
        [registered["VOC2007"]],
        registered,
        describe(cache / "mini-v1-seed0"),
        settings,
    )
    assert (run.queries.reasoned, run.queries.truncated) == (2, 2)
    assert (run.candidates.reasoned, run.candidates.truncated) == (0, 0)
    result = load_task_result(RunFolder(tmp_path).task_file("VOC2007"))
    assert (result.queries.reasoned, result.queries.truncated) == (2, 2)
    assert result.profile.pooling == "<gen_emb> of queries, <disc_emb> of candidates, after the final norm"


def test_a_tied_language_head_needs_no_weights_of_its_own(writer: Path, items: dict[str, Item], tmp_path: Path) -> None:
    """As in the 2B; in the 7B it has some, and a random one would write nonsense."""
    shutil.copytree(writer, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, 1 in all: lm_head\.weight"):
        load(tmp_path).warm_up()
    config = json.loads((tmp_path / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(load(tmp_path).encode([items["label"]], "query").vectors) == 1


def test_what_can_not_work_is_refused(writer: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no token <gen_emb> and no <disc_emb>: it is no UME-R1.*'gme'"):
        load(save_qwen2_vl(tmp_path))
    with pytest.raises(OptionError, match=r"--candidate-reasoning always or never, not 'adaptive'"):
        load(writer, candidate_reasoning="adaptive")
    with pytest.raises(OptionError, match="max_new_tokens must be at least 1, not 0"):
        load(writer, max_new_tokens=0)
    wide = Item("wide", images=(noise(tmp_path / "wide.png", (6000, 20), 0),))
    with pytest.raises(DataError, match=r"wide\.png can't be used: a side is more than 200 times the other"):
        load(writer).encode([wide], "query")


def test_candidates_are_the_same_in_both_modes_of_queries(writer: Path) -> None:
    never, always = (load(str(writer), reasoning=mode).info for mode in ("never", "always"))  # type: ignore[arg-type]
    assert fingerprint_of(never) != fingerprint_of(always)
    assert fingerprint_of(never.of_candidates) == fingerprint_of(always.of_candidates)
    direct = load(str(writer), reasoning="always", candidate_reasoning="never").info
    assert fingerprint_of(direct.of_candidates) != fingerprint_of(always.of_candidates)


def test_a_rationale_counts_in_the_cost_of_an_item(writer: Path, items: dict[str, Item]) -> None:
    embedder = load(writer, candidate_reasoning="never", max_new_tokens=100)
    request = len(TRAINING) // 3
    for item in items.values():
        asked, at_once = (embedder.cost(item, role) for role in get_args(Role))
        assert at_once + 100 < asked < at_once + 100 + request + 20
