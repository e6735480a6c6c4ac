"""docs/training.md, done: from a file of pairs to an evaluated checkpoint; what is said, and what isn't there."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mmeb_harness import __version__
from mmemb_r1_model.data.pairs import contents_of
from mmemb_r1_model.disk.config import override, read_yaml
from mmemb_r1_model.disk.errors import HarnessError, OptionError
from mmemb_r1_model.pipeline import Pipeline, read_pipeline
from mmemb_r1_model.rationales.config import check_config
from mmemb_r1_model.selection.stage import SelectedSide
from tests.forked import ROOT
from tests.mmemb_r1.calls import call, run_module

PAGE = (ROOT / "docs" / "training.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: ([\w.]+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
SMALL = ("--set", "train.loop.steps=3", "--set", "train.plan.batch_size=2")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in the current folder, and pictures."""
    monkeypatch.chdir(tmp_path)
    for name, content in EXAMPLES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "pictures").mkdir()
    for colour, shape in (("red", "circle"), ("blue", "square")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "pictures" / f"{colour}-{shape}.png")
    return tmp_path


@pytest.mark.slow
def test_from_own_pairs_to_an_evaluated_checkpoint(own: Path, mini: Path) -> None:
    words = ("--config", "own.yaml", "--output", "own", *SMALL, "--set", "train.loop.save_every=2")
    said = call("train", *words)
    assert "train: no workers write rationales, so the direct path alone is trained, by plain contrast" in said
    made_of = json.loads((own / "own" / "joint" / "config.json").read_text())
    assert made_of["rationales"] == "the direct path alone is trained, by plain contrast"
    last = json.loads((own / "own" / "joint" / "log.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["reasoned"], last["cross"]) == (3, 0.0, 0.0)
    assert sorted(path.name for path in (own / "own").iterdir()) == ["config.json", "joint", "times.jsonl"]
    options = ("--tasks", "N24News", "--limit", "2", "--data", str(mini), "--output", "scores", "--reasoning", "never")
    run_module("mmeb_harness", ["run", "--model", "mmemb_r1:own/joint/final", *options])
    assert json.loads((own / "scores" / "run.json").read_text())["model"] == "mmemb_r1"
    dry = call("estimate", "--config", "own.yaml", "--steps", "1", *SMALL)
    assert re.findall(r"^(\w+) +1 of 3 steps", dry, re.MULTILINE) == ["train"]
    # Rationales in the file are learnt, and all stages in one command pass over what nobody asked for.
    with (own / "pairs.jsonl").open("a") as file:
        shown = {"text": "four", "images": ["pictures/red-circle.png", "pictures/blue-square.png"]}
        file.write(json.dumps({"query": shown, "positive": "4", "rationales": {"query": "two and two"}}) + "\n")
    with pytest.raises(OptionError, match=r"joint was trained on other pairs of pairs; go on with the old ones"):
        call("adapt", *words, "--set", "adapt={}")
    shutil.rmtree(own / "own" / "joint" / "final")
    with pytest.raises(OptionError, match=r"checkpoint-0000002 was made with other pairs of pairs; go on with the old"):
        call("train", *words)
    said = call("pipeline", "--config", "own.yaml", "--output", "again", *SMALL, "--set", "train.plan.batch_size=4")
    assert "so the pairs' own are learnt as they are, unselected (1 of 4 pairs that were looked at have some)" in said
    rows = [json.loads(line) for line in (own / "again" / "joint" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["reasoned"] > 0
    told = {"query": "five", "positive": "5", "id": "r", "rationales": {"query": "one more than that " * 9}}
    (own / "pairs.jsonl").write_text(json.dumps(told) + "\n")
    with pytest.raises(OptionError, match=r"pair 'r': the rationale of its query has \d+ tokens, the .* at most 24"):
        call("train", "--config", "own.yaml", "--output", "long", *SMALL, "--set", "train.plan.batch_size=1")
    assert not {"rationales", "selected", "evaluation"} & {path.name for path in (own / "again").iterdir()}


def test_stages_that_a_configuration_has_nothing_for_say_so(own: Path) -> None:
    for stage in ("rationales", "select"):
        with pytest.raises(OptionError, match=rf"rationales\.workers is empty: name who writes .* before `{stage}`"):
            call(stage, "--config", "own.yaml", "--output", "own")
    with pytest.raises(OptionError, match=r"select\.judge\.checkpoint is empty: name an evaluator"):
        call("select", "--config", "reasoned.yaml", "--output", "own", "--set", "select={}")
    with pytest.raises(OptionError, match=r"student\.checkpoint is empty: .*mmemb-r1 add-tokens .*, or tiny"):
        call("train", "--config", "own.yaml", "--output", "own", "--set", "student={}")
    with pytest.raises(HarnessError, match=r"selected\.jsonl is missing: run `mmemb-r1 select` first"):
        call("train", "--config", "reasoned.yaml", "--output", "own", "--set", "student={checkpoint: tiny}", *LONGEST)
    with pytest.raises(OptionError, match="data set 'pairs' has 3 pairs, fewer than the 20 that stand in a batch"):
        call("train", "--config", "own.yaml", "--output", "own")
    (own / "pairs.jsonl").write_text('{"query": "a"}\n')
    with pytest.raises(HarnessError, match=r"pairs\.jsonl, line 1: it lacks the positive; mend it, or leave it out"):
        call("train", "--config", "own.yaml", "--output", "own")
    assert [path.name for path in (own / "own").iterdir()] == ["config.json"]


def test_training_on_what_was_selected_for_other_pairs_is_refused(own: Path) -> None:
    values = override(read_yaml(own / "reasoned.yaml"), ["student={checkpoint: tiny}", LONGEST[1]])
    said = list[str]()
    run = Pipeline(read_pipeline(values), own / "own", said.append)
    (opened,) = run.sets(run.config.data, "train")
    now = {"rationales": "those before", "pairs": contents_of([opened.pairs])}
    for name in ("selected", "rationales"):
        (own / "own" / name).mkdir(parents=True)
    side = SelectedSide("pairs", opened.pairs[0].id, "query", 0.0, (), direct_only=True)
    (own / "own" / "selected" / "selected.jsonl").write_text(json.dumps(dataclasses.asdict(side)) + "\n")
    (own / "own" / "rationales" / "rationales.jsonl").write_text("\n")
    for made_of, says in (
        (now | {"pairs": {"pairs": "others"}}, "selected.jsonl was selected for other pairs of pairs: call `mmemb-r1"),
        (now | {"pairs": now["pairs"] | {"left out": "of this training"}}, "fewer than the 256"),  # type: ignore[operator]
        ({}, "fewer than the 256"),  # by an earlier release
    ):
        (own / "own" / "selected" / "config.json").write_text(json.dumps(made_of))
        with pytest.raises(OptionError, match=says):
            run.run(["train"])
    assert len(said) == 1
    assert re.fullmatch(
        r"train: .*rationales\.jsonl has changed since it was selected from; `mmemb-r1 select`.*", said[0]
    )


LONGEST = ("--set", "rationales.workers[0].max_new_tokens=8")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.endswith(".yaml")])
def test_the_configurations_of_the_page_can_be_read(own: Path, name: str) -> None:
    config = read_pipeline(read_yaml(own / name))
    assert [data.kind for data in config.data] == ["pairs"]
    if config.rationales.workers:
        check_config(config.rationales)


def test_the_version() -> None:
    assert call("--version").split() == ["mmemb-r1,", "version", __version__]
