"""A dry run of a small pipeline: every stage is timed, of as many units as its configuration asks for."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from mmemb_r1_model.data.pairs import Item, Pair
from mmemb_r1_model.data.suite import TaskPairs
from mmemb_r1_model.disk.config import named_config, override, read_yaml
from mmemb_r1_model.disk.errors import DataError, OptionError
from mmemb_r1_model.estimate import DryRun, Measurement, dry_run, shortened
from mmemb_r1_model.pipeline import PipelineConfig, Stage, SyntheticConfig, make_synthetic, read_pipeline
from tests.mmemb_r1.calls import call, without_a_process
from tests.mmemb_r1.test_pipeline import SMALL

FEW = [
    "data=[{kind: suite, path: train, subset: miniworld-text}, {kind: suite, path: train, subset: miniworld-image}]",
    "judge.lessons[0].training={batch_size: 8, loop: {steps: 5}}",
    "judge.lessons[1].training={batch_size: 8, loop: {steps: 20}}",
    "select.judge.batch_size=4",
    "train.loop.steps=20",
    "adapt.loop.steps=20",
    "evaluate.modes=[always]",
]


def config(*assignments: str, name: str = "miniworld") -> PipelineConfig:
    return read_pipeline(override(read_yaml(named_config(name)), assignments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimate") / "dry"


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    words = [word for assignment in [*SMALL, *FEW] for word in ("--set", assignment)]
    words = ["--config", "miniworld", "--steps", "3", "--shares", "2", "--output", str(folder), *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmemb_r1_model.pipeline._command", without_a_process)
        return call("estimate", *words)


@pytest.mark.slow
def test_every_stage_is_timed_and_multiplied_by_what_the_configuration_asks_for(said: str) -> None:
    table = said[said.index("DRY RUN") :].strip().splitlines()
    measured = {line[:22].strip(): line[24:52].strip() for line in table[3:-1]}
    texts = 2 * 12 * 2 * 2  # data sets, pairs, samples, and sides: both are written about
    workers = {f"rationales: {name}": texts for name in ("precise", "verbose", "wrong")}
    units = {"data": 1, **workers, "judge": 25, "select": 24, "train": 20, "adapt": 20, "evaluate: always": 2}
    assert {name: int(text.split()[2]) for name, text in measured.items()} == units
    taken = {name: int(text.split()[0]) for name, text in measured.items()}
    assert taken == {
        **{"data": 1, "judge": 2 * 3, "select": 2 * 3, "train": 3, "adapt": 3, "evaluate: always": 1},
        **{name: taken[name] for name in workers},
    }
    for line in table[3:-1]:
        seconds, _, hours = map(float, line[52:].split()[:3])
        assert seconds > 0
        assert hours > 0
        assert (line[52:].split()[3] == "-") == line.startswith("evaluate")
    assert "rollouts of" in next(line for line in table if line.startswith("adapt"))
    assert float(table[-1].split()[-2]) > 0


def test_a_dry_run_never_goes_into_the_folder_of_a_run(said: str, folder: Path) -> None:
    assert said
    with pytest.raises(OptionError, match="never that of a run"):
        dry_run(config(*SMALL), folder, 3, 2, lambda _: None)


def test_what_cant_be_measured_says_why(said: str, folder: Path, tmp_path: Path) -> None:
    assert said
    shutil.copytree(folder / "data", tmp_path / "data")
    there = "{name: precise, backend: recorded, model: train}"
    away = "{name: away, backend: endpoint, model: m, base_url: 'http://localhost:1/v1', max_retries: 0}"

    def measure(workers: str, *assignments: str) -> dict[str, Measurement]:
        given = config(
            *SMALL, *FEW, "judge=null", "evaluate=null", f"rationales.workers=[{workers}]", "rationales.samples=1",
            *assignments,
        )  # fmt: skip
        return {row.stage: row for row in DryRun(given, tmp_path, 2, 2, lambda _: None).measure()}

    rows = measure(f"{away}, {there}", "select.judge.checkpoint=/nowhere")
    assert "localhost:1" in rows["rationales: away"].note
    assert rows["rationales: away"].hours is None
    assert rows["rationales: away"].units == rows["rationales: precise"].units > rows["rationales: away"].units_measured
    assert (rows["rationales: precise"].hours or 0) > 0
    assert "/nowhere" in rows["select"].note
    assert "run `mmemb-r1 select` first" in rows["train"].note
    assert "run `mmemb-r1 select` first" in rows["adapt"].note or "joint" in rows["adapt"].note
    with pytest.raises(DataError, match="is missing"):
        list(
            DryRun(
                config(*SMALL, "synthetic=[]", "start=null", "student.checkpoint=x"), tmp_path / "no", 2, 2, print
            ).measure()
        )


def test_a_shorter_training_has_the_same_share_of_first_steps_and_passes_over_what_was_read_ahead() -> None:
    given = config("train.loop.steps=8500", "train.plan.first_steps=2500", name="mini")
    short = shortened(given, 17)
    assert short.train.loop == dataclasses.replace(given.train.loop, steps=19, log_every=1, save_every=0)
    assert short.train.plan == dataclasses.replace(given.train.plan, first_steps=2 + 5)
    assert shortened(config("train.loop.loader_workers=4"), 17).train.loop.steps == 2 + 8 + 17
    assert short.judge is not None
    assert [lessons.training.loop.steps for lessons in short.judge.lessons] == [19, 19]
    assert dataclasses.replace(short.train, plan=given.train.plan, loop=given.train.loop) == given.train


def test_some_pairs_are_always_the_same_ones_and_repeat_where_a_batch_wants_more() -> None:
    pairs = TaskPairs("t", tuple(Pair(str(n), "t", Item("q"), Item("p")) for n in range(400)), ())

    def ids(stage: Stage, *assignments: str) -> list[int]:
        given = config(
            "select.judge.batch_size=16", "train.plan={batch_size: 100}", "adapt.plan={batch_size: 64}", *assignments
        )
        some = DryRun(given, Path(), 8, 2, print)._sample(stage, pairs)
        assert (some.name, some.distractors) == ("t", ())
        return [int(some[place].id) for place in range(len(some))]

    written, judged, trained = ids("rationales"), ids("select"), ids("train")
    assert len(set(judged)) == 8
    assert set(judged) <= set(written)
    assert trained == (judged * 99)[: len(trained)]
    assert len(trained) == 101
    # Only the first 100 get rationales: a quarter of the pairs, in every stage after.
    few = "rationales.pairs_per_set=100"
    assert max(ids("rationales", few)) < 100
    assert sorted(place < 100 for place in ids("select", few)) == [False] * 6 + [True] * 2
    assert {place for place in ids("train", few) if place < 100} <= set(ids("rationales", few))
    assert len([place for place in ids("select", "rationales.pairs_per_set=1") if place < 1]) == 1


def test_a_command_of_one_process_of_several_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun it would take itself for that process and wait for the others."""
    (tmp_path / "lonely.py").write_text("import os\nassert not {'RANK', 'WORLD_SIZE'} & set(os.environ)\n")
    for name, value in (("PYTHONPATH", str(tmp_path)), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert make_synthetic([SyntheticConfig("lonely", "x")], tmp_path) == ["x"]
