"""Pairs of one's own: what a line may hold, and each thing that can be wrong with one."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmeb_harness import HarnessError, Item
from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.pairs import Pair, PairSet, content_key, contents_of
from mmemb_r1_model.data.recipe import open_set
from mmemb_r1_model.training.batches import labels_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures beside a file of pairs: whole ones, a clip of three frames, and two that are broken."""
    root = tmp_path_factory.mktemp("own")
    for name in ("cat.png", "clip/2.png", "clip/10.png", "clip/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((32, 32), 90).save(root / name)
    (root / "text.png").write_text("no picture")
    (root / "cut.png").write_bytes((root / "cat.png").read_bytes()[:-200])
    return root


def opened(folder: Path, content: str | bytes, name: str = "shop.jsonl", **fields: Any) -> PairSet:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (one,) = open_set(TrainingSetConfig("pairs", name, **fields), folder)
    return one


def line(**fields: object) -> str:
    return json.dumps({"query": "a", "positive": "b", **fields}) + "\n"


def test_a_line_is_a_pair(folder: Path) -> None:
    asked = {"text": "what?", "image": "cat.png", "instruction": "Answer."}
    whole = line(query=asked, positive="a cat", negatives=["a dog", {"image": "cat.png"}], rationales={"query": "fur"})
    pairs = opened(
        folder,
        whole
        + "\n"
        + line(positive={"frames": "clip"}, id=7)
        + line(query={"frames": ["cat.png"]})
        + line(query={"images": ["cat.png"]})
        + line(positive={"text": "two", "images": ["cat.png", "clip/1.png"]}),
    )
    assert (pairs.name, len(pairs), list(pairs.distractors)) == ("shop", 5, [])
    assert pairs[0] == Pair(
        id="0",
        dataset="shop",
        query=Item("0/query", "what?", (folder / "cat.png",), instruction="Answer."),
        positive=Item("0/positive", "a cat"),
        negatives=(Item("0/negative", "a dog"), Item("0/negative", images=(folder / "cat.png",))),
        answer="a cat",
        rationales={"query": "fur"},
    )
    assert pairs[1].id == "7"
    assert pairs[1].positive.frames == tuple(folder / "clip" / f"{frame}.png" for frame in (1, 2, 10))
    assert pairs[2].query.frames == pairs[3].query.images == (folder / "cat.png",)
    assert pairs[4].positive == Item("4/positive", "two", (folder / "cat.png", folder / "clip" / "1.png"))
    assert pickle.loads(pickle.dumps(pairs))[0] == pairs[0]
    few = opened(folder, line(positive={"frames": "clip"}) + "{broken\n", limit=1, frames=2, name="n.jsonl", media=".")
    assert [frame.name for frame in few[0].positive.frames] == ["1.png", "10.png"]


def test_parquet_and_an_array_say_the_same(folder: Path) -> None:
    rows = [
        {"query": "a", "positive": {"text": "b", "image": None}, "negatives": ["c"], "id": 4},
        {"query": "d", "positive": {"text": None, "image": "cat.png"}, "negatives": None, "id": 5},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "shop.parquet")
    (table,) = open_set(TrainingSetConfig("pairs", "shop.parquet"), folder)
    array = opened(folder, json.dumps(rows, indent=1), "shop.json")
    lines = opened(folder, "".join(map(line_of, rows)))
    assert list(map(list, (table, array))) == [list(lines)] * 2  # type: ignore[call-overload]
    pq.write_table(pa.table({"query": ["a"], "pos": ["b"]}), folder / "odd.parquet")
    with pytest.raises(HarnessError, match=r"odd\.parquet lacks the column 'positive' \(found: query, pos\); mend it"):
        open_set(TrainingSetConfig("pairs", "odd.parquet"), folder)
    pq.write_table(pa.table({"query": ["a"], "positive": [{"image": {"bytes": b"\xff"}}]}), folder / "odd.parquet")
    with pytest.raises(HarnessError, match=r"parquet, row 0: the positive: image is .*; save the pictures as files"):
        open_set(TrainingSetConfig("pairs", "odd.parquet"), folder)


def line_of(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def test_another_content_is_told_from_the_same_elsewhere(folder: Path, tmp_path: Path) -> None:
    def content(root: Path, *rows: str) -> str:
        return contents_of([opened(root, "".join(rows))])["shop"]

    Image.new("RGB", (40, 40)).save(tmp_path / "cat.png")
    shutil.copytree(folder, tmp_path / "moved")
    first, second = line(query={"image": "cat.png"}), line(query="c")
    before = content(folder, first, second)
    assert content(tmp_path / "moved", first, second) == before
    changed = [content(folder, first), content(folder, second, first), content(folder, first, line(query="d"))]
    changed += [content(tmp_path, first, second), content(folder, first, line(query="c", rationales={"query": "r"}))]
    assert before not in changed
    assert len(set(changed)) == 5


def test_frames_are_pictures_of_any_format(folder: Path) -> None:
    (folder / "webp").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "webp" / "1.webp")
    (pair,) = opened(folder, line(query={"frames": "webp"}), name="webp.jsonl")
    assert pair.query.frames == (folder / "webp" / "1.webp",)


def test_what_is_right_for_a_query_is_no_negative_of_it(folder: Path) -> None:
    pairs = opened(folder, line(positive="x") + line(positive="y") + line(query="c", positive="X ") + line(query="d"))
    assert pairs[0].relevant == {content_key(pairs[0].positive), content_key(pairs[1].positive)}
    right, has = zip(*((labels.right, labels.has) for labels in map(labels_of, pairs)), strict=True)  # type: ignore[arg-type]
    # The second has the first one's query, the third its answer.
    assert [bool(right[0] & labels) for labels in has] == [True, True, True, False]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", r"holds no pairs; write a line for each, like \{"),
        ("\n \n", "holds no pairs"),
        (line() + "{x\n", "line 2 is not valid JSON: .*; mend it"),
        (line() + "5\n", "line 2: expected an object, found int; mend it"),
        (b'{"query": "\xe9"}\n', "line 1 is not valid JSON: 'utf-8'"),
        ('{"query":' + "[" * 9_000 + "\n", "line 1 is not valid JSON"),
        (line() + "\n" + line(positive=None), "line 3: it lacks the positive; mend it"),
        (line(query=5), "line 1: the query is 5, expected a text, or an object of text, image "),
        (line(query={"text": [1]}), r"the query: text is \[1\]; write text"),
        (line(query={"text": " "}), "the query: has neither text nor image nor frames"),
        (line(query="\ud800"), "half of a surrogate pair"),
        (line(postive="b"), r"no field of a pair named 'postive'. Did you mean 'positive'\?$"),
        (line(query={"img": "cat.png"}), r"no field of the query named 'img'. Did you mean 'image'\?"),
        (line(query={"image": "dog.png"}), "line 1: the query: media file .*dog.png is missing; put it there, or name"),
        (line(query={"image": "clip"}), "media file .*clip is missing"),
        (line(query={"image": "../cat.png"}), r"media path '\.\./cat\.png' is not one below the data set's folder"),
        (line(query={"image": "/etc/passwd"}), "media path '/etc/passwd' is not one below"),
        (line(query={"frames": "clap"}), "frame folder .*clap is missing or holds no picture"),
        (line(query={"image": "cat.png", "frames": "clip"}), "the query: has both images and frames; an item shows"),
        (line(positive={"image": "text.png"}), "line 1: image .*text.png can't be opened: it is no whole JPEG"),
        (line(negatives=["x", {"image": "cut.png"}]), "line 1: image .*cut.png can't be opened: its bytes are damaged"),
        (line(negatives="x"), "'negatives' holds \"x\", expected a list"),
        (line(negatives=[None]), "it lacks the negative 0"),
        (line(rationales="x"), "'rationales': expected an object, found str"),
        (line(rationales={"answer": "x"}), "no field of rationales named 'answer'"),
        (line(id="x") + line() + line(id="x"), "line 3: the id 'x' is there twice, first in .*line 1; mend it"),
        (line(id="1") + line(), "line 2: the id '1' is there twice"),
        (line(id=True), "'id' holds true, expected a text or a whole number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(folder: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(HarnessError, match=says) as error:
        opened(folder, content, "bad.jsonl")
    assert "bad.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cant_be_opened(folder: Path) -> None:
    for name, says in (("no.jsonl", "no.jsonl is no file; name a file of pairs"), ("clip", "ends in none of .jsonl,")):
        with pytest.raises(HarnessError, match=says):
            open_set(TrainingSetConfig("pairs", name), folder)
    with pytest.raises(HarnessError, match=r"training set pairs has no subset; leave out 'x'"):
        opened(folder, line(), subset="x")
    with pytest.raises(HarnessError, match=r"no kind of training set named 'pears'. Did you mean 'pairs'"):
        open_set(TrainingSetConfig("pears", "x"), folder)


def test_a_plugin_brings_a_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site"
    (site / "pears-1.dist-info").mkdir(parents=True)
    (site / "pears-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pears\nVersion: 1\n")
    points = "[mmemb_r1.pairs]\npears = pears:PEARS\nno-kind = pears:open_pears\n"
    (site / "pears-1.dist-info" / "entry_points.txt").write_text(points)
    (site / "pears.py").write_text(
        "from mmemb_r1_model.data.config import PairKind\n"
        "def open_pears(config, root):\n    return [1 / (config.frames - 8)]\n"
        "PEARS = PairKind(open_pears)\n"
    )
    monkeypatch.syspath_prepend(site)
    assert open_set(TrainingSetConfig("pears", "", frames=9), folder) == [1.0]
    with pytest.raises(HarnessError, match=r"training set pears: .*division by zero \(pears\.py:3, in open_pears\)"):
        open_set(TrainingSetConfig("pears", ""), folder)
    with pytest.raises(HarnessError, match=r"its entry point names <function open_pears .*, which is no PairKind"):
        open_set(TrainingSetConfig("no-kind", ""), folder)
    assert PairKind(lambda config, root: []).fields == ()
