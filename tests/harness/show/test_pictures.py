"""Pictures: the numbers behind them in closed form, what is written, and what is left out and why."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from mmeb_harness import HarnessError
from mmeb_harness.cli.commands import cli
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.show.pictures import NAMES, pictures_of
from mmeb_harness.show.pictures.picture import save_pictures
from mmeb_harness.show.pictures.points import ecdf, pareto_front, share_curve, task_weights
from mmeb_harness.show.pictures.reasoning import find_modes
from mmeb_harness.show.pictures.runs import shown_runs
from tests.harness.made_runs import benchmark_tasks, task_result, write_queries, write_run

TASKS = {task.name: task for task in benchmark_tasks()}
FIRST, SECOND, PAGES = "N24News", "DocVQA", "ViDoRe_arxivqa"


def made(
    folder: Path,
    scores: Mapping[str, Sequence[float]],
    *,
    gates: Sequence[float] | None = None,
    tokens: int = 0,
    seconds: float = 0.1,
    **changes: object,
) -> Path:
    """A run with these scores of queries, each with as many tokens; none: it embedded at once."""
    edition = str(changes.get("edition", "page-fixed"))
    results = [
        task_result(TASKS[name], num_queries=len(values), score=float(np.mean(values)), edition=edition)
        for name, values in scores.items()
    ]
    write_run(folder, results, **changes)
    for name, values in scores.items():
        columns: dict[str, object] = {
            "query_id": [f"q{place}" for place in range(len(values))],
            "score": list(values),
            "path": ["reasoned" if tokens else "direct"] * len(values),
            "gate": pa.array(list(gates[: len(values)]) if gates else [None] * len(values), pa.float64()),
            "reasoning_tokens": [tokens] * len(values),
            "latency_seconds": [seconds * (1 + place) for place in range(len(values))],
        }
        path = RunFolder(folder).queries_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
    return folder


def modes(folder: Path, model: str = "made", **settings: object) -> list[Path]:
    """Never, always and adaptive on two tasks."""
    gates = [0.9, 0.8, 0.2, 0.1]

    def run(mode: str, scores: Sequence[float], tokens: int) -> Path:
        every = {FIRST: scores, SECOND: scores[:2]}
        changed = {"reasoning": mode, "threshold": 0.5, **settings}
        return made(folder / f"{model}-{mode}", every, gates=gates, tokens=tokens, model=model, model_settings=changed)

    return [run("never", [0, 0, 1, 1], 0), run("always", [1, 0, 1, 0], 6), run("adaptive", [1, 0, 1, 1], 3)]


@pytest.mark.parametrize(
    ("costs", "scores", "front"),
    [
        ([3, 1, 2], [9, 5, 7], [1, 2, 0]),
        ([1, 2, 3], [5, 5, 6], [0, 2]),  # as good and dearer
        ([1, 1], [5, 6], [1]),  # as cheap and worse
        ([2, 2], [5, 5], [0, 1]),  # the same point twice
        ([4], [0], [0]),
    ],
)
def test_pareto_front(costs: list[float], scores: list[float], front: list[int]) -> None:
    assert pareto_front(costs, scores) == front


def test_the_curve_of_a_threshold_goes_from_never_to_always() -> None:
    rng = np.random.default_rng(0)
    gates, never, always = rng.random((3, 60))
    gates = gates.round(1)  # so that some are equal
    weights = task_weights([20, 40])
    shares, scores = share_curve(gates, weights, never, always)
    assert (shares[0], scores[0]) == (0, pytest.approx((never[:20].mean() + never[20:].mean()) / 2))
    assert (shares[-1], scores[-1]) == (pytest.approx(1), pytest.approx(weights @ always))
    thresholds = sorted(set(gates.tolist()), reverse=True)
    assert len(shares) == 1 + len(thresholds)
    for threshold, share, score in zip(thresholds, shares[1:], scores[1:], strict=True):
        reasons = gates >= threshold
        assert share == pytest.approx(weights[reasons].sum())
        assert score == pytest.approx(weights @ np.where(reasons, always, never))


def test_a_gate_that_says_nothing_is_a_straight_line() -> None:
    shares, scores = share_curve(np.full(4, 0.5), task_weights([4]), np.array([0, 0, 1, 0]), np.array([1, 1, 1, 0]))
    assert shares.tolist() == [0, 1]
    assert scores.tolist() == [0.25, 0.75]


def test_ranked_by_the_gap_the_curve_reaches_the_oracle() -> None:
    rng = np.random.default_rng(1)
    never, always, gates = rng.random((3, 50))
    weights = task_weights([50])
    shares, best = share_curve(always - never, weights, never, always)
    assert best.max() == pytest.approx(np.maximum(never, always).mean())
    assert shares[best.argmax()] == pytest.approx((always > never).mean())
    assert (best >= share_curve(gates, weights, never, always)[1] - 1e-12).all()


def test_ecdf() -> None:
    values, shares = ecdf(np.array([3.0, 1.0, 1.0, 2.0]))
    assert values.tolist() == [1, 2, 3]
    assert shares.tolist() == [0.5, 0.75, 1]


def test_points_of_the_modes_are_means_over_tasks(tmp_path: Path) -> None:
    (found,), reasons = find_modes(shown_runs(modes(tmp_path), allow_editions=False))
    assert reasons == []
    assert found.tasks == (FIRST, SECOND)
    assert [found.point(one) for one in (found.never, found.always, *found.adaptive)] == [
        (0, 25), (100, 50), (100, pytest.approx(62.5)),
    ]  # fmt: skip
    assert found.threshold == 0.5
    assert found.gates is not None
    shares, scores = share_curve(found.gates, found.weights, found.never_scores, found.always_scores)
    at = dict(zip(shares.round(9).tolist(), scores.tolist(), strict=True))
    assert at[0.75] == pytest.approx(0.625)  # 0.9 and 0.8 reason: both of one task, half of the other


@pytest.mark.slow
def test_all_pictures_are_drawn_and_the_same_bytes_twice(tmp_path: Path) -> None:
    runs = modes(tmp_path)
    for folder in ("a", "b"):
        pictures, reasons = pictures_of(runs)
        assert reasons == []
        paths = [*save_pictures(pictures, tmp_path / folder), *save_pictures(pictures[:1], tmp_path / folder, ["pdf"])]
    files = [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    assert [path.name for path in paths] == [*files, "accuracy-latency.pdf"]
    for path in paths:
        written = path.read_bytes()
        assert written == (tmp_path / "a" / path.name).read_bytes(), path
        assert b"dc:date" not in written
        assert b"CreationDate" not in written
        assert written.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[path.suffix])
    assert all(picture.title and picture.alt.endswith(".") for picture in pictures)
    alt = {picture.name: picture.alt for picture in pictures}
    assert "made-never 25.0 % at 217 ms, made-always 50.0 %" in alt["accuracy-latency"]
    assert "On the Pareto front: made-never, made-adaptive." in alt["accuracy-tokens"]
    assert "gate: reason: 4 queries, 2 better, 0 worse, mean +50.0 points" in alt["utility-gap"]
    # A figure that is written once more is still the same.
    again = save_pictures(pictures[:1], tmp_path / "b")
    assert all(path.read_bytes() == (tmp_path / "a" / path.name).read_bytes() for path in again)


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        pictures, _ = pictures_of([made(tmp_path / "run", {FIRST: [1, 0]})], only=["latency"])
        save_pictures(pictures, tmp_path / "out")
        assert dict(matplotlib.rcParams) == before
    assert pictures[0].figure.texts[0].get_fontsize() == 12


def test_colours_are_apart_in_grey() -> None:
    from matplotlib import colormaps

    from mmeb_harness.show.pictures.scores import HEAT
    from mmeb_harness.show.pictures.style import COLOURS, HATCHES, LINES, MARKS, grey

    greys = sorted(255 * grey(one) for one in COLOURS)
    assert min(b - a for a, b in itertools.pairwise(greys)) > 17
    assert greys[-1] < 200  # on white
    for others in (MARKS, LINES, HATCHES):  # so that pairs with the colours repeat late
        assert np.gcd(len(others), len(COLOURS)) == 1
    heat = [grey(colormaps[HEAT](score)) for score in np.linspace(0, 1, 64).tolist()]
    assert heat == sorted(heat, reverse=True)


def accuracy_over_latency(folder: Path, count: int, step: float) -> Figure:
    """Runs with long names, each a little better and slower than the one before."""
    runs = [
        made(folder / f"a-rather-long-name-{number}", {FIRST: [number * step] * 2}, seconds=0.1 * (1 + number * step))
        for number in range(count)
    ]
    ((picture,), _) = pictures_of(runs, only=["accuracy-latency"])
    return picture.figure


def test_names_stand_clear_of_each_other(tmp_path: Path) -> None:
    from matplotlib.text import Text

    figure = accuracy_over_latency(tmp_path, 9, 0.05)
    figure.draw_without_rendering()
    names = figure.axes[0].texts
    boxes = [Text.get_window_extent(name) for name in names]  # without the line to its point
    assert len(boxes) == 9
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize(("count", "step"), [(12, 0.0), (13, 0.05)])
def test_names_without_room_go_into_the_legend(tmp_path: Path, count: int, step: float) -> None:
    figure = accuracy_over_latency(tmp_path, count, step)
    assert not figure.axes[0].texts
    assert len(figure.legends[0].texts) == count + 1


def test_what_is_left_out_says_why(tmp_path: Path) -> None:
    alone = made(tmp_path / "plain", {FIRST: [1, 0]})
    pictures, reasons = pictures_of([alone])
    assert [picture.name for picture in pictures] == ["accuracy-latency", "groups", "tasks", "latency"]
    assert reasons == [
        "accuracy-tokens: no query of these runs reasoned",
        "reasoning-share: no run says when queries reason (a setting named reasoning of the model)",
        "utility-gap: no run says when queries reason (a setting named reasoning of the model)",
        "rationale-length: no query of these runs reasoned",
    ]


def test_runs_without_a_common_task(tmp_path: Path) -> None:
    runs = [made(tmp_path / "one", {FIRST: [1, 0]}), made(tmp_path / "two", {PAGES: [0.5]})]
    pictures, reasons = pictures_of(runs, only=["accuracy-latency", "groups", "tasks"])
    assert [picture.name for picture in pictures] == ["tasks"]
    assert reasons == [
        "accuracy-latency: the runs have no task in common",
        "groups: I-CLS, ViDoRe-V1: no task that all runs have",
    ]


def test_modes_that_are_not_of_one_model(tmp_path: Path) -> None:
    never = modes(tmp_path, device="cpu")[0]
    always = modes(tmp_path / "gpu", device="cuda")[1]
    _, reasons = pictures_of([never, always], only=["reasoning-share"])
    assert reasons == [
        "reasoning-share: made-never: no run with --reasoning always (made-always differs in device)",
        "reasoning-share: made-always: no run with --reasoning never (made-never differs in device)",
    ]


def test_two_models_have_a_panel_each(tmp_path: Path) -> None:
    runs = modes(tmp_path, model="small") + modes(tmp_path, model="large")
    pictures, reasons = pictures_of(runs, only=["reasoning-share", "utility-gap"])
    assert reasons == []
    assert [[axes.get_title(loc="left").split(" ")[0] for axes in one.figure.axes] for one in pictures] == [
        ["small", "large"], ["small", "large"],
    ]  # fmt: skip


def test_a_model_without_a_gate_has_no_threshold_to_move(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / mode, {FIRST: scores}, tokens=tokens, model_settings={"reasoning": mode})
        for mode, scores, tokens in (("never", [0, 1], 0), ("always", [1, 1], 5))
    ]
    pictures, reasons = pictures_of(runs, only=["reasoning-share", "utility-gap"])
    assert reasons == []
    assert "threshold" not in pictures[0].alt
    assert "oracle 100.0 % with 50 %" in pictures[0].alt
    assert "all queries: 2 queries, 1 better, 0 worse" in pictures[1].alt


def test_a_mean_over_some_tasks_is_called_so(tmp_path: Path) -> None:
    runs = [made(tmp_path / "one", {FIRST: [1, 0], SECOND: [1]}), made(tmp_path / "two", {FIRST: [0, 0]})]
    ((picture,), _) = pictures_of(runs, only=["accuracy-latency"])
    assert "(1 task that all runs have): one 50.0 %" in picture.alt


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and with what can't stand beside it or can't be read."""
    folder = tmp_path_factory.mktemp("unlike")
    made(folder / "run", {FIRST: [1, 0]})
    made(folder / "going", {FIRST: [1, 0]}, status="running")
    made(folder / "made-up", {FIRST: [1, 0]}, data_synthetic=True)
    made(folder / "old", {FIRST: [1, 0]}, edition="v2.0.0")
    RunFolder(made(folder / "bare", {FIRST: [1, 0]})).queries_file(FIRST).unlink()
    write_queries(made(folder / "other", {FIRST: [1, 0]}), FIRST, [1, 0])
    (folder / "file").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "out"], "nothing to draw; name the folder of a run"),
        (["run", "run", "--output", "out"], "run is named twice"),
        (["nowhere", "--output", "out"], "nowhere is not a run's folder"),
        (["going", "--output", "out"], "is not finished (status 'running')"),
        (["run", "made-up", "--output", "out"], "made-up: scores of made-up data never stand beside MMEB-V2 scores"),
        (["run", "old", "--output", "out"], "scores of different editions"),
        (["run", "--output", "out", "--only", "latencies"], "no picture named 'latencies'. Did you mean 'latency'?"),
        (["run", "--output", "out", "--only", "utility-gap"], "no picture can be drawn: utility-gap: no run says"),
        (["run", "--output", "file"], "--output file is a file; name a folder"),
        (["run", "--output", "out.jpg"], "--output out.jpg: no picture ends with '.jpg'; use .png, .svg, .pdf"),
        (
            ["run", "--output", "out.pdf"],
            "--output out.pdf is one file, these are 4 pictures; name a folder, or --only",
        ),
        (["run", "--output", "out.pdf", "--format", "svg"], "--output out.pdf and --format svg disagree"),
        (["run", "--output", "out", "--format", "eps"], "no format of pictures named 'eps'. Known: pdf, png, svg."),
        (["run", "--output", "out", "--width", "colum"], "--width colum: inches from 2.5 to 40 are wanted, or one of"),
        (["run", "--output", "out", "--width", "nan"], "--width nan: inches from 2.5 to 40 are wanted, or one of"),
        (["run", "--output", "out", "--label", "rum=x"], "no run named 'rum'. Did you mean 'run'?"),
        (["run", "--output", "file/out"], "can't write file/out"),
        (["bare", "--output", "out"], "N24News.parquet is missing; run again"),
        (["other", "--output", "out"], "N24News.parquet is no table of queries (no gate, latency_seconds, path"),
    ],
)
def test_what_can_not_be_drawn(
    unlike: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(unlike)
    with pytest.raises(HarnessError) as caught:
        CliRunner().invoke(cli, ["plot", *arguments], standalone_mode=False, catch_exceptions=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(unlike.glob("out*"))


def test_the_command_says_what_it_drew_and_what_it_left_out(tmp_path: Path) -> None:
    run = made(tmp_path / "run", {FIRST: [1, 0]})
    done = CliRunner().invoke(
        cli, ["plot", str(run), "--output", str(tmp_path / "out"), "--only", "latency,utility-gap"]
    )
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'out' / 'latency'}.png, .svg\n    Latency of queries" in done.stdout
    assert done.stderr.startswith("left out: utility-gap: no run says")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["latency.png", "latency.svg"]


def test_a_pdf_for_a_paper(tmp_path: Path) -> None:
    """As wide as its column, its fonts as TrueType, the runs under the names they are to have."""
    runs = [str(path) for path in modes(tmp_path)]
    labels = ["--label", f"{runs[2]}=Ours", "--label", "made-never=direct"]
    where = ["--only", "latency", "--width", "column", "--output", str(tmp_path / "one.PDF")]
    done = CliRunner().invoke(cli, ["plot", *runs, *labels, *where])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{tmp_path / 'one.PDF'}\n    Latency of queries, median / 95th percentile: direct ")
    assert ", Ours " in done.stdout
    written = (tmp_path / "one.PDF").read_bytes()
    assert b"/MediaBox [ 0 0 234 " in written  # 3.25 inches
    assert b"/FontFile2" in written
    assert b"/Type3" not in written


@pytest.mark.slow
def test_nothing_runs_off_a_narrow_picture(tmp_path: Path) -> None:
    from matplotlib.text import Text

    long = "a-model-with-a-long-name"
    only = ("groups", "utility-gap")
    pictures, reasons = pictures_of(modes(tmp_path) + modes(tmp_path, model=long), width=3.25, only=only)
    assert reasons == []
    for picture in pictures:
        figure = picture.figure
        assert figure.get_figwidth() == 3.25
        shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        ticks = {id(tick) for axes in figure.axes for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]}
        for text in shown:
            if id(text) not in ticks:  # those beyond the axes' ends are not drawn
                extent = text.get_window_extent()
                assert -1 < extent.x0 < extent.x1 < figure.bbox.width + 1, (picture.name, text.get_text())
                assert -1 < extent.y0 < extent.y1 < figure.bbox.height + 1, (picture.name, text.get_text())
                assert text.get_fontsize() > 5, text.get_text()
    runs = [made(tmp_path / f"r{number}", {FIRST: [1, 0]}) for number in range(12)]
    assert pictures_of(runs, width=2.5, only=["tasks"]) == (
        [],
        ["tasks: 12 runs and the names of tasks need 3.5 inches; see --width"],
    )
