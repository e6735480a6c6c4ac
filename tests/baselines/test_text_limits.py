"""What each model takes, and how long a text may be: what is cut, what stays, and how a result says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmeb_baselines import gme, lamra, official_text, vlm2vec
from mmeb_baselines.dual_encoders import load_clip
from mmeb_baselines.embedder import ONE_SHOWN
from mmeb_tasks.own import RETRIEVAL

import mmeb_harness as mmeb
from mmeb_harness import EncodeResult, Item, OptionError, Source
from mmeb_harness.adapter.texts import cut_at
from mmeb_harness.core.registry import ModelSpec, model_names
from mmeb_harness.results.files import model_fingerprint
from mmeb_harness.results.scores import read_run
from mmemb_r1_model.embed.embedder import load as load_mmemb_r1
from tests.baselines.plain_qwen import noise
from tests.baselines.tiny_checkpoints import MAKERS, save_checkpoint
from tests.toy import HashEmbedder

SEEN = ("image", "video")
#: Of each model but those of a person's own choice (`st`, see its tests): what it takes, and tokens of a text.
TAKEN: dict[str, tuple[tuple[str, ...], int | None]] = {
    "bag_of_features": ((*SEEN, "audio"), None),
    "clip": (SEEN, 77),
    "colpali": (SEEN, None),
    "colqwen2": (SEEN, None),
    "gme": (SEEN, 1800),
    "jina_v4": (SEEN, 32768),
    "lamra": (SEEN, None),
    "mmemb_r1": (SEEN, 4096),
    "omni_embed_nemotron": ((*SEEN, "audio"), None),
    "ops_mm": (SEEN, None),
    "qwen3_vl_embedding": (SEEN, 8192),
    "random": ((*SEEN, "audio"), None),
    "rzen_embed": (SEEN, 2000),
    "siglip": (SEEN, 64),
    "ume_r1": (SEEN, None),
    "vlm2vec": (SEEN, 2048),
    "wemm_embedding": (SEEN, None),
}
CHOSEN = {"st", "openai", "ocr"}
WORDS = "a red circle left of a blue square " * 20
LONG = Item("long", text=WORDS, instruction="Find it:", source=Source("basic", "Find it:"))
SHORT = Item("short", text="red", instruction="Find it:", source=Source("basic", "Find it:"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save_checkpoint(name, root / name) for name in MAKERS}


def left_out(result: EncodeResult) -> list[str]:
    return [trace.left_out for trace in result.traces or ()]


@pytest.mark.parametrize("name", sorted(set(model_names()) - CHOSEN))
def test_each_model_says_what_it_takes(name: str, folders: dict[str, Path]) -> None:
    arguments = {"path": str(folders[name])} if name in folders else {}
    info = ModelSpec(name, arguments).load().info
    assert (info.media, info.profile.max_text_tokens) == TAKEN[name]


@pytest.mark.parametrize(("style", "media"), [("input", ()), ("messages", SEEN)])
def test_an_endpoint_takes_what_its_form_can_say(style: str, media: tuple[str, ...]) -> None:
    arguments = {"model": "m", "dimensions": "3", "base_url": "http://localhost:9/v1", "style": style}
    assert ModelSpec("openai", arguments).load().info.media == media


def test_a_text_without_a_template_loses_its_end(folders: dict[str, Path]) -> None:
    folder = str(folders["vlm2vec"])
    embedder, whole = (vlm2vec.load(path=folder, device="cpu", max_text_tokens=most) for most in (20, None))
    tokenizer = whole.form.reader.tokenizer
    ids = tokenizer(official_text.official_text(LONG), add_special_tokens=False)["input_ids"][:20]
    (prompt,) = embedder.form.prompts([LONG], "query")
    assert prompt.ids == ids
    result = embedder.encode([SHORT, LONG], "query")
    assert left_out(result) == ["", cut_at(20)]
    assert left_out(whole.encode([LONG], "query")) == []
    assert (embedder.cost(LONG, "query"), whole.cost(LONG, "query") > 20) == (20, True)
    assert embedder.info.settings["max_text_tokens"] == 20
    assert "max_text_tokens" not in whole.info.settings


def test_a_template_is_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    embedder = lamra.load(path=str(folders["lamra"]), device="cpu", max_text_tokens=150)
    picture = dataclasses.replace(LONG, images=(noise(tmp_path / "a.png", (60, 60), 0),))
    cut, whole, shown = embedder.form.prompts([LONG, SHORT, picture], "query")
    assert 145 <= len(cut.ids) <= 150
    decode = embedder.form.reader.tokenizer.decode
    assert decode(cut.ids).endswith("in one word: <|im_end|>\n<|im_start|>assistant\n")
    assert WORDS.startswith(decode(cut.ids).partition("Find it: ")[2].partition("\nSummarize")[0])
    assert [cut.left_out, whole.left_out, shown.left_out] == [cut_at(150), "", ""]
    assert len(shown.ids) > 150  # as officially: an item with a picture is whole
    with pytest.raises(OptionError, match="max_text_tokens must be at least 1, not 0"):
        lamra.load(path=str(folders["lamra"]), max_text_tokens=0)
    with pytest.raises(OptionError, match=r"max_text_tokens must be at most \d+, which the model reads: 1000000"):
        lamra.load(path=str(folders["lamra"]), max_text_tokens=1_000_000)


def test_pictures_that_a_profile_leaves_out_are_counted(folders: dict[str, Path], tmp_path: Path) -> None:
    paths = tuple(noise(tmp_path / f"{name}.png", (60, 60), name) for name in range(3))
    items = [Item("two", images=paths[:2]), Item("one", images=paths[:1]), Item("clip", frames=paths)]
    for name, loader in (("gme", gme.load), ("lamra", lamra.load)):
        board = loader(path=str(folders[name]), device="cpu", profile="leaderboard")
        assert left_out(board.encode(items, "candidate")) == [ONE_SHOWN, "", ""]
        assert left_out(loader(path=str(folders[name]), device="cpu").encode(items, "candidate")) == []
    clip = load_clip(str(folders["clip"]), device="cpu")
    assert left_out(clip.encode([LONG, SHORT], "query")) == [cut_at(77), ""]


def test_an_item_of_several_pictures_is_not_cut(folders: dict[str, Path], tmp_path: Path) -> None:
    paths = tuple(noise(tmp_path / f"{name}.png", (1200, 800), name) for name in range(2))
    embedder = gme.load(path=str(folders["gme"]), device="cpu")
    (prompt,) = embedder.form.prompts([Item("screens", "one and other", paths)], "candidate")
    assert len(prompt.ids) > gme.MAX_LENGTH
    assert (len(prompt.images), prompt.left_out) == (2, "")


@pytest.mark.parametrize("mode", ["never", "always"])
def test_mmemb_r1_keeps_its_request(mode: Any) -> None:
    embedder = load_mmemb_r1(reasoning=mode, max_text_tokens=40, max_new_tokens=3)
    prompt = embedder.prompt(LONG)
    assert 36 <= len(prompt) <= 40
    text = embedder._checkpoint.tokenizer.decode(prompt.ids.tolist())
    assert text.endswith("\nembed<|im_end|>\n<|im_start|>assistant\n")
    kept = text.partition("user\n")[2].partition("\nembed")[0]
    assert WORDS.startswith(kept)
    result = embedder.encode([LONG, SHORT], "query")
    assert left_out(result) == [cut_at(40), ""]
    by_hand = load_mmemb_r1(reasoning=mode, max_new_tokens=3)
    expected = by_hand.encode([dataclasses.replace(LONG, text=kept), SHORT], "query")
    np.testing.assert_allclose(result.vectors, expected.vectors, atol=1e-6)
    assert embedder.info.settings == {**by_hand.info.settings, "max_text_tokens": 40}
    # A limit that is only stated is no part of a fingerprint.
    stated = dataclasses.replace(by_hand.info.profile, max_text_tokens=None)
    named = (by_hand.info.name, by_hand.info.revision, by_hand.info.dimensions, by_hand.info.settings)
    assert model_fingerprint(*named, stated) == model_fingerprint(*named, by_hand.info.profile)
    with pytest.raises(OptionError, match="max_text_tokens must be between 1 and 4096, not 5000"):
        load_mmemb_r1(max_text_tokens=5000)


def test_a_result_counts_what_was_cut_also_of_vectors_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RETRIEVAL.write_example(tmp_path / "mine")
    counted = []
    for output in ("first", "again"):
        run = mmeb.evaluate(
            "mmemb_r1",
            data="mine",
            output=output,
            vectors="vectors",
            reasoning="never",
            model_args={"max_text_tokens": "27"},
            progress=False,
        )
        (task,) = run.tasks
        counted.append((task.result.notes, task.result.queries.reused))
    (notes, fresh), (again, reused) = counted
    assert notes == again
    assert notes[cut_at(27)] >= 1
    assert (fresh, reused) == (0, 4)


class Stated(HashEmbedder):
    """Of an earlier release, which stated no limit, or of this one."""

    def __init__(self, max_text_tokens: int | None) -> None:
        super().__init__()
        profile = dataclasses.replace(self.info.profile, max_text_tokens=max_text_tokens)
        self.info = dataclasses.replace(self.info, profile=profile)


def test_a_run_goes_on_where_the_limit_was_not_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RETRIEVAL.write_example(tmp_path / "mine")
    for most in (None, 77):
        run = mmeb.evaluate(Stated(most), data="mine", output="out", progress=False)
    assert run.tasks[0].result.profile.max_text_tokens is None  # it was kept
    assert read_run(Path("out"))[0].profile.max_text_tokens == 77
