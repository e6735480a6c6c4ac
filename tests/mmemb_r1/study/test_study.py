"""A study in small: two seeds and two variants, run, run again, and reported; and its arithmetic in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmeb_harness.stats.policies import POLICIES, adaptive_minus, head_room_closed
from mmeb_harness.stats.seeds import OverSeeds
from mmemb_r1_model.data.suite import HOPS, RATIONALE
from mmemb_r1_model.disk.config import named_config, read_yaml
from mmemb_r1_model.disk.errors import HarnessError
from mmemb_r1_model.pipeline import read_pipeline
from mmemb_r1_model.selection.quality import rank_auc
from mmemb_r1_model.selection.rule import Judged
from mmemb_r1_model.study import plan
from mmemb_r1_model.study.forecast import pays_against_hurts
from mmemb_r1_model.study.formed import Share, share_of
from mmemb_r1_model.study.look_ups import LookUps, judged
from mmemb_r1_model.study.plan import read_study, seeded
from mmemb_r1_model.study.policies import estimate, latencies, of_policies, over_tasks, sample_of, sampled
from mmemb_r1_model.study.report import interval
from mmemb_r1_model.study.veto import FittedVeto, fit_vetoes, fitted_veto
from tests.mmemb_r1.calls import call, without_a_process

SMALL = """
base: miniworld
set:
  - "synthetic=[{module: mmeb_tasks.miniworld, folder: train, split: train, seed: 1, queries: 16},
    {module: mmeb_tasks.miniworld, folder: judge, split: train, seed: 2, queries: 16}]"
  - "data=[{kind: suite, path: train, subset: miniworld-text}]"
  - start.size.vocabulary=640
  - start.size.layers=2
  - start.max_new_tokens=8
  - judge.tiny.size.vocabulary=640
  - judge.tiny.size.layers=2
  - "judge.lessons=[{data: [{kind: suite, path: judge}], training: {batch_size: 8, loop: {steps: 2}}}]"
  - train.plan.batch_size=8
  - train.loop.steps=3
  - adapt.plan.batch_size=8
  - adapt.groups=4
  - adapt.rollouts=6
  - adapt.negatives=8
  - adapt.loop.steps=2
  - adapt.loop.log_every=1
  - train.loop.log_every=1
seeds: [1, 2]
test: {module: mmeb_tasks.miniworld, folder: test, split: test, seed: 0, queries: 12}
valid: {module: mmeb_tasks.miniworld, folder: valid, split: valid, seed: 0, queries: 12}
tasks: [miniworld-text]
vetoes: [2]
timed: 3
checked: 8
variants:
  - {name: random, shares: judge, checkpoint: joint, set: [select.rule.rule=random]}
  - {name: cost-3, shares: train, set: [adapt.reward.length_cost=3]}
  - {name: short, shares: train, set: [adapt.short_tokens=4]}
  - {name: cost-9, shares: train, set: [adapt.reward.length_cost=9]}
"""


@pytest.mark.slow
def test_a_study_runs_goes_on_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmemb_r1_model.pipeline._command", without_a_process)  # 46 of them
    # So few answers are right that no bound would be fitted.
    monkeypatch.setattr(plan, "fit_vetoes", lambda *given: [of | {"bound": -3.0} for of in fit_vetoes(*given)])
    (tmp_path / "small.yaml").write_text(SMALL)
    words = ["--config", str(tmp_path / "small.yaml"), "--output", str(tmp_path / "study")]
    with pytest.raises(HarnessError, match="base of seeds 1, 2 is not finished"):
        call("study", "report", *words, "--to", str(tmp_path / "report"))
    with pytest.raises(HarnessError, match="run the study's evaluator first: --only evaluator"):
        call("study", "run", *words, "--only", "base")
    call("study", "run", *words, "--only", "evaluator")
    first = call("study", "run", *words, "--seed", "1", "--only", "base", "--only", "random")
    assert "seed 1, base: select" in first
    call("study", "run", *words, "--seed", "1", "--only", "cost-3", "--only", "short")
    used = json.loads((tmp_path / "study/seed-1/base/config.json").read_text())
    assert used["train"]["loop"]["seed"] == 1000
    assert used["synthetic"][0]["seed"] == 1001
    call("study", "report", *words, "--to", str(tmp_path / "report"), "--seed", "1")
    text = (tmp_path / "report" / "README.md").read_text()
    assert "Not run, and so not shown: cost-9." in text
    parts = (
        "Goals",
        "Look-ups",
        "0 of 1",
        "Variants",
        "length cost",
        "graded budget",
        "Calibration",
        "What the gate tells apart within a task",
        "Checks",
        "Selection",
        "Time",
    )
    for part in parts:
        assert part in text
    assert "nan" not in text
    numbers = json.loads((tmp_path / "report" / "study.json").read_text())
    assert set(numbers["variants"]) == {"base", "random", "cost-3", "short"}
    assert numbers["look_ups"]["base"]["miniworld-text"]["formed"] == {"1": False}
    assert set(numbers["look_ups"]["random"]["miniworld-text"]["stages"]) == {"joint"}
    assert numbers["variants_formed"] == {}
    (of_two,) = numbers["vetoes"]["base"].values()
    assert (of_two["fitted"][0]["tokens"], of_two["fitted"][0]["bound"]) == (2, -3.0)
    veto = json.loads((tmp_path / "study/seed-1/base/results/adaptive/veto-2/run.json").read_text())
    assert veto["model_settings"]["veto"] == "-3.0:2"
    for name in ("losses", "calibration", "cost"):
        assert (tmp_path / "report" / f"{name}.png").stat().st_size > 5000

    # Numbers of the report are those of the harness.
    run = tmp_path / "study/seed-1/base/results/adaptive/always"
    score = json.loads((run / "tasks/miniworld-text.json").read_text())["score"]
    shown = numbers["policies"]["base/adaptive"]["miniworld-text"]
    assert shown["always"]["all"]["value"] == pytest.approx(score)
    assert shown["oracle"]["all"]["value"] >= max(shown["never"]["all"]["value"], score)
    weights = (tmp_path / "study/seed-1/base/adaptive/final/model.safetensors").read_bytes()
    again = call("study", "run", *words, "--seed", "1", "--only", "base")
    assert "train" not in again
    assert (tmp_path / "study/seed-1/base/adaptive/final/model.safetensors").read_bytes() == weights

    # A variant of fewer seeds than the base is held against the base of those seeds, and says how many they are.
    alone = numbers["variants"]["cost-3"]["miniworld-text"]["difference"]["value"]
    call("study", "run", *words, "--seed", "2", "--only", "base")
    call("study", "report", *words, "--to", str(tmp_path / "report"))
    text = (tmp_path / "report" / "README.md").read_text()
    section = text.partition("## Variants")[2].partition("## ")[0]
    rows = {line.split(" | ")[1]: line for line in section.splitlines() if line.startswith("| miniworld-text | ")}
    assert rows["base"].endswith("| 2 |")
    assert rows["cost-3"].endswith("| 1 |")
    numbers = json.loads((tmp_path / "report" / "study.json").read_text())
    assert numbers["variants"]["cost-3"]["miniworld-text"]["difference"]["value"] == alone


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no run of this study named 'rndom'"):
        call("study", "run", "--config", "ablations", "--output", str(tmp_path), "--only", "rndom")
    twice = tmp_path / "twice.yaml"
    twice.write_text(SMALL.replace("name: random", "name: base"))
    with pytest.raises(HarnessError, match="two runs are called base"):
        read_study(str(twice))


@pytest.mark.parametrize("name", [path.stem for path in named_config("miniworld", "studies").parent.glob("*.yaml")])
def test_every_study_that_comes_along_can_be_read(name: str) -> None:
    assert read_study(name).seeds


def test_seeds_are_moved_everywhere_but_in_the_evaluator() -> None:
    config = read_pipeline(read_yaml(named_config("miniworld")))
    moved = seeded(config, 2)
    assert config.adapt is not None
    assert moved.train.loop.seed == config.train.loop.seed + 2000
    assert moved.adapt.loop.seed == config.adapt.loop.seed + 2000
    assert [split.seed for split in moved.synthetic] == [split.seed + 2000 for split in config.synthetic]
    assert moved.judge == config.judge
    assert moved.train.plan == config.train.plan


def frame(never: list[float], always: list[float], reasoned: list[float]) -> pd.DataFrame:
    gate = np.array(reasoned)
    adaptive = np.where(gate > 0, always, never)
    return pd.DataFrame(
        {
            "never": never,
            "always": always,
            "adaptive": adaptive,
            "reasoned_never": 0.0 * gate,
            "reasoned_always": 1.0 + 0.0 * gate,
            "reasoned_adaptive": reasoned,
            "reasoned_fixed": [1.0] * len(never),
            "gate": reasoned,
            "tokens_never": 0.0 * gate,
            "tokens_always": [4.0] * len(never),
            "tokens_adaptive": 4.0 * gate,
        }
    )


def test_policies_in_closed_form() -> None:
    # Reasoning helps the first two, hurts the third, changes nothing for the last. The gate misses one.
    own = frame([0, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0])
    means = sample_of(own, 0.25, 0).means
    assert {policy: means[f"score_{policy}"] for policy in POLICIES} == {
        "never": 0.5,
        "always": 0.75,
        "random": pytest.approx(0.25 * 0.75 + 0.75 * 0.5),
        "fixed": 0.75,
        "adaptive": 0.75,
        "oracle": 1.0,
    }
    assert means["share_oracle"] == 0.5
    assert means["tokens_oracle"] == 2.0
    assert means["tokens_random"] == pytest.approx(1.0)
    assert of_policies(adaptive_minus("never"))(means) == 0.25
    assert of_policies(head_room_closed)(means) == 0.0
    perfect = sample_of(frame([0, 1], [1, 0], [1, 0]), 0.5, 0).means
    assert of_policies(head_room_closed)(perfect) == 1.0
    assert np.isnan(of_policies(head_room_closed)(sample_of(frame([1, 1], [1, 1], [1, 0]), 0.5, 0).means))


def test_latency_of_policies() -> None:
    own = frame([0, 1], [1, 0], [1, 0])
    measured = {
        "seconds": {"never": [1.0, 1.0], "always": [3.0, 5.0], "adaptive": [3.0, 1.0]},
        "items_per_second": {"never": 10.0, "always": 2.0, "adaptive": 4.0},
    }
    figures = latencies(measured, own, 0.5, 0)
    assert figures["oracle"]["mean"] == 2.0
    assert figures["oracle"]["items_per_second"] == pytest.approx(1 / (0.5 / 2 + 0.5 / 10))
    assert figures["always"]["p50"] == figures["fixed"]["p50"] == 4.0


def test_estimates_are_of_columns_by_their_names() -> None:
    columns = {"hit": np.array([0.0, 1.0, 1.0, 1.0]), "cost": np.array([2.0, 4.0, 6.0, 8.0])}
    samples = [sampled(columns, seed) for seed in range(2)]
    assert samples[0].means == {"hit": 0.75, "cost": 5.0}
    ratio = estimate(samples, lambda means: means["hit"] / means["cost"])
    assert ratio.value == 0.15
    assert ratio.queries[0] < 0.15 < ratio.queries[1]
    assert ratio.seeds == (0.15, 0.15)


def test_every_task_counts_alike_in_their_mean() -> None:
    one = [sampled({"hit": np.array(values)}, 0) for values in ([1.0, 1.0, 0.0], [0.0])]
    other = [sampled({"hit": np.array(values)}, 1) for values in ([0.0], [1.0])]
    mean = estimate(over_tasks([one, other]), lambda means: means["hit"])
    assert mean.value == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert [sample.means["hit"] for sample in over_tasks([one, other])] == pytest.approx([1 / 3, 1 / 2])
    # Of four tasks of equal uncertainty the mean is half as uncertain.
    alike = [[sampled({"hit": np.arange(100) % 2.0}, seed)] for seed in range(4)]
    widths = [np.diff(estimate(over_tasks(alike[:count]), lambda means: means["hit"]).queries)[0] for count in (1, 4)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.1)


def test_a_gate_is_held_against_what_it_should_tell_apart() -> None:
    frame = pd.DataFrame(
        {"gate": [0.9, 0.4, 0.6, 0.1, 0.99], "never": [0.0, 0.0, 1.0, 1.0, 1.0], "always": [1.0, 1.0, 0.0, 0.0, 1.0]}
    )
    assert pays_against_hurts(frame) == 0.75  # of four pairs 0.4 is below 0.6; where nothing changes doesn't count
    assert pays_against_hurts(frame[:2]) is None


def test_an_interval_is_written_as_far_as_it_is_known() -> None:
    assert interval(OverSeeds(0.305, (0.294, 0.317), (0.219, 0.391))) == "30.5 [29.4, 31.7] [21.9, 39.1]"
    assert interval(OverSeeds(-0.0001, (-0.0004, 0.008), (np.nan, np.nan))) == "0.0 [0.0, 0.8]"
    assert interval(OverSeeds(np.nan, (np.nan, np.nan), (np.nan, np.nan))) == "-"
    assert interval(None) == ""


def test_a_veto_loses_one_right_answer_in_fifty() -> None:
    right = [np.array([-0.1, -place / 100, 0.0]) for place in range(100)]
    wrong = [np.array([-0.1, -0.975, -9.0]), np.array([0.0, -0.5, -0.5]), np.array([-2.0, 0.0])]
    hits = np.array([True] * 100 + [False] * 3)
    whole, early, first = (fitted_veto([*right, *wrong], hits, limit) for limit in (0, 2, 1))
    assert (whole.bound, whole.right, whole.wrong, whole.right_lost) == (-0.97, 100, 3, 0.02)
    assert (whole.wrong_caught, early.wrong_caught) == pytest.approx((2 / 3, 2 / 3))
    assert whole.auc == pytest.approx((1 + 1 + 0.505) / 3)
    assert (first.bound, first.right_lost, first.wrong_caught) == (-0.1, 0.0, pytest.approx(1 / 3))
    assert fitted_veto(right[:49], hits[:49], 0) == FittedVeto(None, 0, 49, 0, 0.0, 0.0, None)


def test_look_ups_are_read_in_any_style() -> None:
    labels = [{HOPS: hops, RATIONALE: words} for hops, words in ((1, "red ring"), (2, "blue bar plus ring"))]
    styles = {
        "red ring": (True, True),
        "start with the red ring so the answer is red ring": (True, True),
        "blue ring": (False, False),
        "": (False, False),
    }
    for text, (right, whole) in styles.items():
        of_first = judged([text, "blue plus ring"], [4, 6], labels)
        assert of_first.by_hops == {"1": LookUps(1, right, whole, 4), "2": LookUps(1, 1, 0, 6)}  # short, but right
        assert (of_first.queries, of_first.right, of_first.formed) == (2, (right + 1) / 2, right)


def test_the_interval_of_a_share_is_exact() -> None:
    assert share_of([True] * 5) == Share(5, 5, pytest.approx(0.025**0.2), 1.0)
    assert share_of([False] * 3) == Share(0, 3, 0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
    middle = share_of([True, False])
    assert (middle.low, middle.high) == pytest.approx((1 - 0.975**0.5, 0.975**0.5))


def test_auc_counts_pairs_and_halves_ties() -> None:
    def judged_so(gain: float) -> Judged:
        return Judged("w", 0, "text", 0.0, gain, gain)

    rows = [("key", [judged_so(1.0), judged_so(3.0), judged_so(1.0), judged_so(2.0)], [True, True, False, False])]
    # Pairs of right and wrong: 1 = 1 (half), 1 < 2, 3 > 1, 3 > 2.
    assert rank_auc(rows, "delta") == pytest.approx(2.5 / 4)
    assert rank_auc([("key", [judged_so(1.0)], [True])], "delta") is None
