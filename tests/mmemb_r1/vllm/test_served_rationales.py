"""Rationales by a real server on loopback that runs the tiny model: vectors and texts are those of the local engine."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.special import expit, logit

from mmeb_harness import EncodeResult, Item, ModelError, OptionError, Trace
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.registry import ModelSpec
from mmemb_r1_model.embed import served as served_rationales
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.embed.served import by_length, closed_by_rule
from mmemb_r1_model.model.collate import collate, prompts_of
from mmemb_r1_model.model.items import ItemReader
from mmemb_r1_model.model.prompt import IMAGE_PAD, extended
from mmemb_r1_model.model.settings import Calibration, read_settings, write_settings
from mmemb_r1_model.model.vision import video_patches, video_size
from mmemb_r1_model.vllm.request import chat
from tests.mmemb_r1.loopback_chat import KEY, Asked, Break, Fail, Raw, Reply, serve
from tests.mmemb_r1.tiny_vllm import BARE, CHAT, MODELS, TRIPLET, TinyVllm, changed
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
#: Of the items, in adaptive mode.
NUM_REASONING = {"random": 5, "trained": 2}


@pytest.fixture
def url(vllm: TinyVllm) -> Iterator[str]:
    with serve(vllm.chat) as address:
        yield address


@pytest.fixture(scope="session")
def threshold(random_checkpoint: Path, items: list[Item]) -> float:
    """Half of the items are above it."""
    result = load(str(random_checkpoint), reasoning="never").encode(items, "query")
    gates = sorted(trace.gate or 0.0 for trace in traces_of(result))
    return (gates[len(gates) // 2 - 1] + gates[len(gates) // 2]) / 2


def traces_of(result: EncodeResult) -> tuple[Trace, ...]:
    assert result.traces is not None
    return result.traces


def stream(embedder: MMEmbR1Embedder, batches: list[list[Item]]) -> list[EncodeResult]:
    return list(embedder.encode_stream(iter([embedder.prepare(items, "query") for items in batches])))


def vectors_of(results: list[EncodeResult]) -> np.ndarray[Any, Any]:
    return np.concatenate([result.vectors for result in results])  # type: ignore[list-item]


def states_of(result: EncodeResult) -> np.ndarray[Any, Any]:
    return np.stack([trace.state for trace in traces_of(result) if trace.state is not None])


def told(result: EncodeResult) -> list[tuple[object, ...]]:
    """What of the traces must be the same wherever rationales are written."""
    return [(one.path, one.rationale, one.reasoning_tokens, one.truncated) for one in traces_of(result)]


@pytest.mark.parametrize("which", ["random", "trained"])
@pytest.mark.parametrize("mode", ["adaptive", "always"])
def test_vectors_and_rationales_are_the_local_engines(
    which: str, mode: str, random_checkpoint: Path, threshold: float, items: list[Item], tmp_path: Path
) -> None:
    """Of texts, pictures and clips, over several batches; of the random one by a calibrated gate."""
    path = str(shutil.copytree(random_checkpoint, tmp_path / "random")) if which == "random" else None
    if path is not None:
        scale = Calibration(0.5, 1.0, float(expit(0.5 * logit(threshold) + 1.0)), prompts=100)
        write_settings(Path(path), dataclasses.replace(read_settings(Path(path)), calibration=scale))
    own = {"reasoning": mode}
    batches = [items[:3], items[3:5], items[5:]]
    expected = stream(load(path, **own), batches)  # type: ignore[arg-type]
    folder = random_checkpoint if which == "random" else load()._checkpoint.folder
    vllm = TinyVllm(folder)
    vllm.clip = BARE if which == "random" else TRIPLET
    with serve(vllm.chat) as url:
        found = stream(load(path, **own, rationales=url), batches)  # type: ignore[arg-type]
    assert np.abs(vectors_of(found) - vectors_of(expected)).max() < TOLERANCE
    assert [told(one) for one in found] == [told(one) for one in expected]
    for mine, theirs in zip(found, expected, strict=True):
        gates = [trace.gate for trace in traces_of(theirs)]
        assert [trace.gate for trace in traces_of(mine)] == pytest.approx(gates, abs=1e-6)
        assert np.abs(states_of(mine) - states_of(theirs)).max() < 20 * TOLERANCE
    reasoned = [trace for one in found for trace in traces_of(one) if trace.path == "reasoned"]
    assert len(reasoned) == len(vllm.written)
    assert len(reasoned) == (len(items) if mode == "always" else NUM_REASONING[which])
    bodies = [asked.body for asked in vllm.written]
    assert all(body["temperature"] == 0 and body["model"] == "base" for body in bodies)
    assert all(body["mm_processor_kwargs"]["use_fast"] is False for body in bodies if "mm_processor_kwargs" in body)
    clips = [body for body in bodies if "media_io_kwargs" in body]
    assert all(body["mm_processor_kwargs"]["cap_pixels_per_frame"] is False for body in clips)
    assert {"chat_template_kwargs" in body for body in clips} <= {vllm.clip == BARE}
    assert clips or which == "trained"


@pytest.mark.parametrize("num_frames", [1, 5, 6])
@pytest.mark.parametrize("size", [(50, 70), (300, 200), (64, 64)])
def test_frames_are_sent_in_the_size_in_which_they_are_read(
    size: tuple[int, int], num_frames: int, random_checkpoint: Path, tmp_path: Path
) -> None:
    """So that a server, whose own resizing gives other pixels, has nothing to resize."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(tmp_path / "frame.png")
    item = Item("clip", frames=(tmp_path / "frame.png",) * num_frames)
    checkpoint = load(str(random_checkpoint))._checkpoint
    settings, vision = checkpoint.settings, checkpoint.vision
    asked = chat(item, settings, vision.factor)
    (clip,) = (part["video_url"]["url"] for part in asked["messages"][1]["content"] if part["type"] == "video_url")
    sent = [Image.open(io.BytesIO(base64.b64decode(frame))) for frame in clip.partition(",")[2].split(",")]
    rows, columns = sent[0].height, sent[0].width
    bounds = asked["mm_processor_kwargs"]["size"]
    again = video_size(len(sent), rows, columns, vision.factor, bounds["shortest_edge"], bounds["longest_edge"])
    assert again == (rows, columns)
    (read,) = ItemReader(checkpoint, settings).prompt(item).patches
    theirs = video_patches(sent, vision, bounds["shortest_edge"], bounds["longest_edge"])
    assert theirs.grid == read.grid
    assert np.array_equal(theirs.pixels.bytes, read.pixels.bytes)


def test_traces_and_work(url: str, random_checkpoint: Path, threshold: float, items: list[Item]) -> None:
    embedder = load(str(random_checkpoint), threshold=threshold, rationales=url)
    results = stream(embedder, [items[:4], items[4:]])
    traces = [trace for one in results for trace in traces_of(one)]
    slowest_direct = max(trace.seconds or 0.0 for trace in traces_of(results[0]) if trace.path == "direct")
    assert all(
        trace.seconds is not None and (trace.path == "direct" or trace.seconds > slowest_direct)
        for trace in traces_of(results[0])
    )
    works = [one.work for one in results if one.work is not None]
    work = sum(works[1:], works[0])
    prompts = [len(embedder.prompt(item)) + 1 for item in items]
    again = sum(
        length - 1 + trace.reasoning_tokens
        for length, trace in zip(prompts, traces, strict=True)
        if trace.path == "reasoned"
    )
    assert work.prompt_tokens == sum(prompts) + again  # what reasons is read twice
    assert (work.new_tokens, work.decode_flops) == (0, 0.0)
    assert set(work.seconds) == {"prefill", "gate", "readout"}
    assert work.prefill_flops > 0


def test_if_all_reason_there_is_no_first_pass(url: str, random_checkpoint: Path, items: list[Item]) -> None:
    (result,) = stream(load(str(random_checkpoint), reasoning="always", rationales=url), [items])
    assert result.work is not None
    assert set(result.work.seconds) == {"gate", "readout"}
    assert all(trace.gate is not None for trace in traces_of(result))


def test_candidates_that_dont_reason_need_no_server(random_checkpoint: Path, items: list[Item]) -> None:
    here = load(str(random_checkpoint)).encode(items, "candidate")
    nowhere = load(str(random_checkpoint), rationales="http://127.0.0.1:9/v1").encode(items, "candidate")
    assert np.array_equal(here.vectors, nowhere.vectors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"reasoning": "always"}, id="always"),
        pytest.param({"threshold": 0.0}, id="adaptive"),
    ],
)
def test_all_requests_of_a_chunk_are_under_way_at_once(
    own: dict[str, Any], vllm: TinyVllm, url: str, random_checkpoint: Path, items: list[Item]
) -> None:
    """While the first answer is still to come, the other batches are read."""
    embedder = load(str(random_checkpoint), rationales=url, **own)
    batches = [items[:2], items[2:4], items[4:6]]
    expected = vectors_of(stream(embedder, batches))
    all_here = threading.Barrier(6)

    def reply(asked: Asked) -> Reply:
        if asked.path == CHAT:
            all_here.wait(timeout=PATIENCE)
        return vllm.answer(asked)

    vllm.chat.reply = reply
    assert np.array_equal(vectors_of(stream(embedder, batches)), expected)


def test_out_of_memory_gets_through(
    url: str, random_checkpoint: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness tries again with smaller batches; the second passes are smaller then, too."""
    embedder = load(str(random_checkpoint), reasoning="always", rationales=url)
    whole = embedder.engine.read

    def narrow(batch: Any, past: Any) -> Any:
        if len(batch.ids_BL) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return whole(batch, past)

    monkeypatch.setattr(embedder.engine, "read", narrow)
    with pytest.raises(torch.OutOfMemoryError):
        stream(embedder, [items[1:2] * 3])
    assert len(stream(embedder, [items[1:2]] * 3)) == 3


def test_second_passes_dont_depend_on_when_rationales_come(
    vllm: TinyVllm, url: str, random_checkpoint: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load(str(random_checkpoint), reasoning="always", rationales=url, rationales_parallel=1)
    batches = [[item] for item in items]
    passes: list[tuple[int, ...]] = []
    whole = embedder.engine.read

    def watched(batch: Any, past: Any) -> Any:
        passes.append(tuple(batch.ids_BL.shape))
        return whole(batch, past)

    monkeypatch.setattr(embedder.engine, "read", watched)
    one_after_another = vectors_of(stream(embedder, batches))
    first, passes = passes.copy(), []
    monkeypatch.setattr(served_rationales, "HELD_BYTES", -1)  # waits for each batch before it reads the next
    assert np.array_equal(vectors_of(stream(embedder, batches)), one_after_another)
    assert passes == first


def test_batches_of_similar_length() -> None:
    assert by_length([9, 2, 10, 3, 30], budget=20) == [[1, 3], [0, 2], [4]]
    assert by_length([], budget=20) == []


def test_prompts_come_out_of_a_batch_as_they_went_in(random_checkpoint: Path, items: list[Item]) -> None:
    embedder = load(str(random_checkpoint))
    prompts = [embedder.prompt(item) for item in items]
    batch = collate([extended(prompt, [7]) for prompt in prompts], 0)
    rows = [0, 2, 3, 4, 6]
    for row, found in zip(rows, prompts_of(batch, rows, drop=1), strict=True):
        expected = prompts[row]
        assert found.next_position == expected.next_position
        for mine, theirs in ((found.ids, expected.ids), (found.types, expected.types)):
            assert np.array_equal(mine, theirs)
        assert np.array_equal(found.positions, expected.positions)
        for theirs, ours in zip(found.patches, expected.patches, strict=True):
            assert theirs.grid == ours.grid
            assert np.array_equal(theirs.pixels.bytes, ours.pixels.bytes)


@pytest.mark.parametrize(
    ("written", "rationale", "truncated"),
    [
        (["red", "</think>", "<emb>"], ["red"], False),
        (["red"] * 4 + ["</think>", "<emb>"], ["red"] * 4, False),
        (["red"] * 6, ["red"] * 4, True),  # never closes
        (["red", "<emb>"], ["red"], True),  # no </think>
        (["red", "<|im_end|>"], ["red"], True),  # ends the turn instead
        (["</think>", "<emb>"], [], True),  # nothing between the markers
        (["red", "</think>", "red", "red"], ["red"], True),  # no <emb> after </think>
        (["red", "</think>"], ["red"], True),
        (["red", IMAGE_PAD, "red", "</think>", "<emb>"], ["red"], True),  # what can't be written
        (["red", 10**6, "red"], ["red"], True),
        (["red", -1, "red"], ["red"], True),
        (["red", "</think>", "<emb>", "red"], ["red"], False),  # nobody asked for more
        ([], [], True),
    ],
)
def test_a_rationale_ends_by_the_engines_rule(
    written: list[str | int], rationale: list[str], truncated: bool, random_checkpoint: Path
) -> None:
    engine = load(str(random_checkpoint), max_new_tokens=4).engine
    tokenizer = engine.tokenizer
    added = tokenizer.added_tokens

    def ids(words: list[Any]) -> list[int]:
        return [one if isinstance(one, int) else added.get(one) or tokenizer.plain(one)[0] for one in words]

    row = closed_by_rule(ids(written), 3, engine.rule)
    assert row.fed == ids(["<think>", *rationale, "</think>", "<emb>"])
    assert (row.index, row.truncated) == (3, truncated)


def test_questions_are_prepared_in_other_processes(url: str, random_checkpoint: Path, items: list[Item]) -> None:
    args = {"path": str(random_checkpoint), "rationales": url}
    spec = ModelSpec("mmemb_r1", args, {"reasoning": "always"})
    here, there = spec.load(), pickle.loads(pickle.dumps(spec)).load()
    prepared = pickle.loads(pickle.dumps(there.prepare(items, "query"), protocol=5))
    assert np.array_equal(here.encode_prepared(prepared).vectors, here.encode(items, "query").vectors)
    local = ModelSpec("mmemb_r1", {"path": str(random_checkpoint)}, {"reasoning": "always"}).load()
    assert local.prepare(items, "query").questions == ()  # type: ignore[attr-defined]
    assert there.prepare(items, "candidate").questions == ()  # type: ignore[attr-defined]


def test_settings_say_that_rationales_come_from_elsewhere(random_checkpoint: Path) -> None:
    def info(**own: str) -> dict[str, object]:
        return dict(load(str(random_checkpoint), **own).info.settings)  # type: ignore[arg-type]

    here, there = info(), info(rationales="http://10.1.2.3:8000/v1", rationales_model="base")
    assert there == {**here, "rationales": "vllm"}
    assert info(rationales="http://127.0.0.1:9/v1") == there  # the address is no part of it
    never = info(reasoning="never", rationales="http://127.0.0.1:9/v1")
    assert never == info(reasoning="never")  # nothing is asked for


def test_a_run(url: str, vllm: TinyVllm, random_checkpoint: Path, tmp_path: Path) -> None:
    results = []
    for name, more in (("here", []), ("there", ["--model-arg", f"rationales={url}"])):
        command = ["run", "--model", f"mmemb_r1:{random_checkpoint}", "--reasoning", "always", "--tasks", "VOC2007"]
        command += ["--limit", "6", "--output", str(tmp_path / name), "--batch-tokens", "300", *more]
        cli(command, standalone_mode=False)
        results.append(json.loads((tmp_path / name / "run.json").read_text()))
    here, there = results
    assert here["model_fingerprint"] != there["model_fingerprint"]
    assert there["model_settings"]["rationales"] == "vllm"
    assert url not in json.dumps(there["model_settings"])
    assert here["queries"]["reasoning_tokens"] == there["queries"]["reasoning_tokens"]
    assert here["aggregates"] == there["aggregates"]
    assert vllm.asked(MODELS)


def warm_up(checkpoint: Path, url: str, **own: Any) -> None:
    load(str(checkpoint), rationales=url, **own).warm_up()


def test_the_start_asks_for_little(vllm: TinyVllm, url: str, random_checkpoint: Path) -> None:
    warm_up(random_checkpoint, url, max_new_tokens=64)
    assert [one.path for one in vllm.chat.asked[:2]] == [MODELS, CHAT]
    assert vllm.asked(CHAT)[0].body["max_tokens"] == 18


def test_a_model_by_name(vllm: TinyVllm, url: str, random_checkpoint: Path) -> None:
    vllm.adapters["tuned"] = vllm._base
    warm_up(random_checkpoint, url)  # adapters aren't meant
    assert vllm.asked(CHAT)[0].body["model"] == "base"
    warm_up(random_checkpoint, url, rationales_model="tuned")
    assert vllm.asked(CHAT)[-1].body["model"] == "tuned"
    with pytest.raises(ModelError, match=r"no model 'other' \(it has 'base', 'tuned'\): .*rationales_model, or serve"):
        warm_up(random_checkpoint, url, rationales_model="other")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([{"id": "a"}, {"id": "b"}], r"which of the server's models is \w+\? Name it by .*it has 'a', 'b'"),
        ([], "it has none"),
        (None, "lists no models; --model-arg rationales must be a vLLM server's address"),
        (["base"], "lists no models"),
    ],
)
def test_a_list_that_leaves_it_open(
    listed: object, message: str, vllm: TinyVllm, url: str, random_checkpoint: Path
) -> None:
    vllm.chat.reply = lambda asked: Raw(json.dumps({"data": listed}).encode())
    with pytest.raises(ModelError, match=message):
        warm_up(random_checkpoint, url)
    assert not vllm.asked(CHAT)


def test_other_weights_are_found_out(random_checkpoint: Path, tmp_path: Path) -> None:
    """Of the trained tiny model: a random one finds all tokens equally likely."""
    here = load()._checkpoint.folder
    other = tmp_path / "other"
    other.mkdir()
    for path in here.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(here / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    weights[name] = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0)).to(weights[name])
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with serve(TinyVllm(here).chat) as url:
        load(rationales=url).warm_up()
    with (
        serve(TinyVllm(other).chat) as url,
        pytest.raises(ModelError, match=r"doesn't write what this checkpoint would: of token \d+, '.*', the logarithm"),
    ):
        load(rationales=url).warm_up()
    with (
        serve(TinyVllm(random_checkpoint).chat) as url,
        pytest.raises(ModelError, match=r"refuses item 'warm-up': .*out-of-vocab.* must serve this checkpoint \(tiny"),
    ):
        load(rationales=url).warm_up()


def test_a_server_that_ignores_what_cant_be_written(vllm: TinyVllm, url: str, random_checkpoint: Path) -> None:
    bad = load(str(random_checkpoint))._checkpoint.tokenizer.id_of(IMAGE_PAD)
    vllm.chat.reply = changed(
        vllm, lambda content: content["choices"][0].update(token_ids=[bad, 7], finish_reason="stop")
    )
    with pytest.raises(ModelError, match=rf"begins a rationale with tokens \[{bad}, 7\], which none can contain"):
        warm_up(random_checkpoint, url)


def test_a_context_that_is_too_short(random_checkpoint: Path, items: list[Item]) -> None:
    vllm = TinyVllm(random_checkpoint, max_model_len=60)
    with serve(vllm.chat) as url:
        embedder = load(str(random_checkpoint), reasoning="always", rationales=url)
        embedder.warm_up()
        needed = len(embedder.prompt(items[1])) + 1 + 16 + 2
        with pytest.raises(
            ModelError, match=rf"item 'long text' needs {needed} tokens .* takes 60: .*{needed}, or give"
        ):
            embedder.encode(items[:2], "query")
        vllm.chat.reply = lambda asked: Fail(400, "no") if asked.path == CHAT else vllm.answer(asked)
        with pytest.raises(ModelError, match=r"refuses item 'text': HTTP 400: no\. It must serve this checkpoint"):
            embedder.encode(items[:1], "query")


def test_a_server_without_what_a_checkpoint_needs(vllm: TinyVllm, url: str, random_checkpoint: Path) -> None:
    """What vLLM refuses is answered with the way out, before anything is embedded."""
    vllm.trusts_requests = False
    with pytest.raises(ModelError, match=r"'two frames': HTTP 400.*\. Start vLLM with --trust-request-mm-kwargs: "):
        warm_up(random_checkpoint, url)
    template, vllm.template = vllm.template, None
    with pytest.raises(
        ModelError, match=r"'warm-up': HTTP 400.*\. Start vLLM with --chat-template \S+/chat_template\.jinja"
    ):
        warm_up(random_checkpoint, url)
    assert template is not None
    vllm.template, vllm.trusts_requests = template.replace("video_pad", "image_pad"), True
    with pytest.raises(
        ModelError, match=r"another prompt of item 'two frames': .*asked for a bare .*--chat-template \S"
    ):
        warm_up(random_checkpoint, url)


def test_a_server_that_takes_no_clips(vllm: TinyVllm, url: str, random_checkpoint: Path, items: list[Item]) -> None:
    """Pictures need none; the first clip says so."""

    def reply(asked: Asked) -> Reply:
        if "media_io_kwargs" in asked.body:
            return Fail(400, "At most 0 video(s) may be provided in one prompt.")
        return vllm.answer(asked)

    vllm.chat.reply = reply
    embedder = load(str(random_checkpoint), reasoning="always", rationales=url)
    embedder.warm_up()
    embedder.encode([next(item for item in items if item.images)], "query")
    with pytest.raises(ModelError, match=r"At most 0 video.*Start vLLM without --limit-mm-per-prompt"):
        embedder.encode([next(item for item in items if item.frames)], "query")


def test_an_answer_that_the_context_cuts(random_checkpoint: Path, items: list[Item]) -> None:
    """vLLM has no word for it; nor do all servers list how long a context they have."""
    embedder = load(str(random_checkpoint))
    vllm = TinyVllm(random_checkpoint, max_model_len=len(embedder.prompt(items[0])) + 5)
    models = b'{"data": [{"id": "base"}]}'
    vllm.chat.reply = lambda asked: Raw(models) if asked.path == MODELS else vllm.answer(asked)
    with serve(vllm.chat) as url, pytest.raises(ModelError, match=r"cuts the answer to item 'text' after 4 tokens: st"):
        load(str(random_checkpoint), reasoning="always", rationales=url).encode(items[:1], "query")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["choices"].clear(), "the server gives 0 of 1 choices for item 'text'"),
        (lambda content: content["choices"][0].pop("token_ids"), "the server gives no token ids: it must be vLLM 0"),
        (lambda content: content["prompt_token_ids"].insert(4, 7), "another prompt of item 'text'.*from position 4"),
        (
            lambda content: content.update(prompt_token_ids=None, usage={"prompt_tokens": 3}),
            "saw another prompt .*: 3 tokens instead of",
        ),
    ],
)
def test_an_answer_that_lacks_what_is_needed(
    change: Callable[[dict[str, Any]], object],
    message: str,
    vllm: TinyVllm,
    url: str,
    random_checkpoint: Path,
    items: list[Item],
) -> None:
    vllm.chat.reply = changed(vllm, change)
    with pytest.raises(ModelError, match=message):
        load(str(random_checkpoint), reasoning="always", rationales=url).encode(items[:1], "query")


def test_a_text_that_spells_a_special_token(url: str, random_checkpoint: Path) -> None:
    embedder = load(str(random_checkpoint), reasoning="always", rationales=url)
    with pytest.raises(ModelError, match=r"'x' has the letters of .*'<emb>'.*run its task without --model-arg ratio"):
        embedder.encode([Item("x", text="a red <emb> circle")], "query")


def test_a_server_that_goes(vllm: TinyVllm, url: str, random_checkpoint: Path, items: list[Item]) -> None:
    with pytest.raises(
        ModelError, match=r"rationales: nobody answers at http://127\.0\.0\.1:9/v1 .*rationales right\?"
    ):
        warm_up(random_checkpoint, "http://127.0.0.1:9/v1")
    embedder = load(str(random_checkpoint), reasoning="always", rationales=url)
    assert embedder._server is not None
    embedder._server = dataclasses.replace(embedder._server, max_retries=2)
    vllm.chat.script = [Fail(503), Raw(b"{half"), Raw(b'{"data": [{"id": "base"}]}'), Break(), Fail(429)]
    embedder.encode(items[:1], "query")
    assert [one.path for one in vllm.chat.asked] == [MODELS] * 3 + [CHAT] * 3
    vllm.chat.reply = lambda asked: Break()
    with pytest.raises(
        ModelError, match=r"connection broken .*3 attempts, for item 'text'\. Start the server again and repeat"
    ):
        embedder.encode(items[:1], "query")
    with pytest.raises(ModelError, match=r"can't say which models it has: connection broken .*Start the server again"):
        warm_up(random_checkpoint, url)


def test_keys(vllm: TinyVllm, url: str, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm.chat.needs_key = True
    with pytest.raises(ModelError, match=r"HTTP 401: .*with its key in --model-arg rationales_key_env"):
        warm_up(random_checkpoint, url)
    with pytest.raises(OptionError, match="LOOPBACK_KEY is not set"):
        warm_up(random_checkpoint, url, rationales_key_env="LOOPBACK_KEY")
    monkeypatch.setenv("LOOPBACK_KEY", KEY[:-1])
    with pytest.raises(ModelError) as error:
        warm_up(random_checkpoint, url, rationales_key_env="LOOPBACK_KEY")
    assert KEY[:-1] not in str(error.value)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    warm_up(random_checkpoint, url, rationales_key_env="LOOPBACK_KEY")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"rationales": "localhost:8000"}, "--model-arg rationales must be an address such as http"),
        ({"rationales": "http://me:hunter2@host/v1"}, "--model-arg rationales must be a plain address"),
        (
            {"rationales": "http://h/v1", "rationales_key_env": "sk-1"},
            "--model-arg rationales_key_env must be the name",
        ),
        ({"rationales": "http://h/v1", "rationales_parallel": 0}, "rationales_parallel must be at least 1, not 0"),
        ({"rationales_model": "m"}, "rationales_model says how to ask a server .*also give rationales=http"),
        ({"rationales_key_env": "KEY"}, "rationales_key_env says how"),
    ],
)
def test_settings_that_cant_be(own: dict[str, Any], message: str, random_checkpoint: Path) -> None:
    with pytest.raises(OptionError, match=message) as error:
        load(str(random_checkpoint), **own)
    assert "hunter2" not in str(error.value)
    assert "sk-1" not in str(error.value)


def test_a_picture_that_cant_be_read_is_named(url: str, random_checkpoint: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    embedder = load(str(random_checkpoint), rationales=url)
    with pytest.raises(Exception, match=r"a\.png can't be opened"):
        embedder.prepare([Item("x", images=(tmp_path / "a.png",))], "query")
