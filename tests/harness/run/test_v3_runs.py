"""A run in an edition of MMEB-V3, from the command to its tables: names with slashes, blanks and parentheses, several
overall means by their rules, frames repeated, and nothing of MMEB-V2 beside it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mmeb_tasks.readers.corpus import NOT_IN_POOL, UNLABELLED

from mmeb_harness import Frames, Item, Profile, ResultError, Samples, load_run
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.benchmark import MMEB_V3, V3_EDITIONS, benchmark_of, means_of
from mmeb_harness.core.registry import benchmark_editions, benchmark_rows, load_tasks
from mmeb_harness.data.folder import MANIFEST
from mmeb_harness.ranking.metrics import V3_METRIC_NAMES
from mmeb_harness.results.recomputed import ABSENT_ANSWERS
from mmeb_harness.results.verify import verify_run
from mmeb_harness.run.plan import RunSettings
from mmeb_harness.show.tables import profile_line, text_limit
from tests.harness.made_runs import benchmark_tasks, task_result, whole_run, write_run
from tests.toy import HashEmbedder, evaluated, info_of, registered, toy_task

TASKS = ("text/BRIGHT/biology", "text/R2MED/Biology", "text/MultiConIR/Legal Document", "TUTSound(hard)", "MCMR")


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.fixture(scope="module")
def ran(mini_additions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run's folder, and what was printed."""
    output = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "random", "--edition", "v3", "--data", str(mini_additions), "--output", str(output))
    done = call("run", *options, "--tasks", ",".join(TASKS))
    assert done.exit_code == 0, done.output
    return output, done.output


def test_each_task_has_files_of_its_own_and_all_follows_from_them(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    run = load_run(folder)
    assert set(run.scores) == {*TASKS}
    for name in TASKS:
        result = json.loads((folder / "tasks" / f"{name}.json").read_text())
        assert list(result["metrics"]) == list(V3_METRIC_NAMES)
        assert result["metrics"]["mrr"] >= result["metrics"]["hit@1"]
        assert len(run.queries(name)) == result["num_queries"]
    assert run.result.profile.frames.short == "spread"
    verified = call("verify", str(folder))
    assert (verified.exit_code, verified.output.count("ok ")) == (0, len(TASKS) + 1)
    said = ("4 of 111", "these are not MMEB-V3 scores", "V3-All: 190 tasks, text by nDCG@5", "text limit unstated")
    assert [line for line in said if line not in printed] == []
    assert "Legal Document" in call("show", str(folder), "--tasks").output


def test_each_mean_over_all_tasks_is_by_its_own_rule(ran: tuple[Path, str]) -> None:
    run = load_run(ran[0])
    means = {mean.name: mean for mean in run.result.aggregates}
    assert list(means)[:3] == ["V3-All", "Overall-189", "Overall-111"]
    metrics = {task.result.name: task.result.metrics for task in run.tasks}
    texts = [metrics[name]["hit@1"] for name in TASKS[:3]]
    heard, product = metrics["TUTSound(hard)"]["hit@1"], metrics["MCMR"]["hit@1"]
    assert means["text hit@1"].score == pytest.approx(sum(texts) / 3)
    assert means["Overall-189"].score == means["Overall-111"].score == pytest.approx((sum(texts) + heard) / 4)
    assert means["V3-All"].score == pytest.approx((sum(run.scores[name] for name in TASKS[:3]) + heard + product) / 5)
    assert means["image"].score == product
    assert [len(means[name].missing) for name in ("V3-All", "Overall-189", "Overall-111")] == [185, 185, 107]
    again = json.loads((ran[0] / "run.json").read_text())["aggregates"]
    assert [mean["name"] for mean in again if "rule" in mean] == [
        *("V3-All", "Overall-189", "Overall-111", "text hit@1", "agent")
    ]


def test_the_means_of_mmeb_v3_cover_what_they_say() -> None:
    sizes = {over.name: len(over.metrics) for over in means_of(benchmark_rows(load_tasks("v3").values()))}
    assert sizes["V3-All"] == 190
    assert (sizes["Overall-189"], sizes["Overall-111"]) == (189, 111)
    modalities = ("image", "video", "visdoc", "audio", "text", "agent", "tool", "gui", "memory")
    assert [sizes[name] for name in modalities] == [37, 18, 24, 11, 53, 47, 35, 8, 4]
    assert {*benchmark_editions()} - {"page-fixed", "v2.0.0"} == {*V3_EDITIONS}
    assert {*V3_EDITIONS} < {*MMEB_V3.editions}


def test_what_the_data_leaves_out_counts_and_is_verified(tmp_path: Path) -> None:
    """A query whose answer is no candidate, and one without any: of MMEB-V3 its recall is 0, not 1."""
    items = [Item(f"d{i}", text=f"document {i}") for i in range(3)]
    queries = (Item("absent", text="a"), Item("unlabelled", text="b"), Item("found", text="c"))
    gains = {"absent": {"gone": 1.0, "d1": 2.0}, "unlabelled": {}, "found": {"d0": 1.0, "d1": 1.0, "d2": 1.0}}
    samples = Samples(
        queries, tuple(items), gains, None, frozenset({"absent", "unlabelled"}), {NOT_IN_POOL: 1, UNLABELLED: 1}
    )
    assert NOT_IN_POOL in ABSENT_ANSWERS
    task = dataclasses.replace(toy_task("text/a"), edition="v3", modality="text", load=lambda data, frames: samples)
    known = registered(task)
    evaluated(HashEmbedder(), list(known.values()), known, info_of(tmp_path), RunSettings(tmp_path / "run", "v3"))
    (done,) = load_run(tmp_path / "run").tasks
    assert done.result.metrics["recall@10"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert done.result.metrics["mrr"] == pytest.approx((1 / _rank_of_d1(tmp_path) + 0 + 1) / 3)
    assert [outcome.problems for outcome in verify_run(tmp_path / "run", known)] == [[], []]


def _rank_of_d1(folder: Path) -> int:
    row = load_run(folder / "run").queries("text/a").loc["absent"]
    return list(row["top_ids"]).index("d1") + 1


def test_one_data_folder_is_called_by_the_edition_that_is_run(mini_additions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for path in mini_additions.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / MANIFEST).unlink()
    name = "text/NanoBEIR/NanoSciFact"
    options = ("--model", "random", "--data", str(folder), "--edition", "v3-unfixed", "--output", str(tmp_path / "run"))
    call("run", *options, "--tasks", name)
    assert load_run(tmp_path / "run").result.data == "MMEB-V3"


def test_scores_of_v2_and_v3_never_stand_in_one_table_unasked(tmp_path: Path) -> None:
    """Nor do those of the 78 alone, which share their names."""
    whole_run(tmp_path / "old")
    of_78 = [task for task in benchmark_tasks("v3") if task.modality in ("image", "video", "visdoc")]
    write_run(tmp_path / "new", [task_result(task, 1) for task in of_78], edition="v3")
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    with pytest.raises(
        ResultError, match=r"old is of page-fixed, new is of v3; MMEB-V3 is over 112 tasks more, and of"
    ):
        call("compare", old, new)
    with pytest.raises(ResultError, match=r"new: of edition v3, this leaderboard is of page-fixed; choose --edition"):
        call("leaderboard", old, new, "--edition", "page-fixed")
    both = call("compare", old, new, "--allow-editions")
    assert both.exit_code == 0
    assert "editions differ: MMEB-V3 is over 112 tasks more" in both.output
    boards = call("leaderboard", old, new).output
    assert "MMEB-V2, edition page-fixed" in boards
    assert "MMEB-V3, edition v3" in boards
    assert "79 of 190 tasks, without" in boards


def test_a_limit_of_texts_stands_beside_their_scores() -> None:
    long, short, unstated = (Profile(max_text_tokens=limit) for limit in (8192, 2048, None))
    assert [text_limit(profile) for profile in (long, short, unstated, None)] == [
        *("texts cut at 8,192 tokens", "texts cut at 2,048 tokens", "text limit unstated", "text limit unstated")
    ]
    assert "texts cut at 8,192 tokens" in profile_line(long)
    assert "text limit unstated" in profile_line(unstated, {"text"})
    assert "text limit" not in profile_line(unstated, {"image", "visdoc"})
    assert benchmark_of("page-fixed").spreads_frames is False
    assert Frames().short == "as they are"
