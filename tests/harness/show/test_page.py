"""Run folders become the page's values; nothing in them can leave its place; bad input is one clear line."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from mmeb_harness import HarnessError, Item, ResultError, Sound
from mmeb_harness.cli.page import report
from mmeb_harness.core.files import read_parquet, write_parquet
from mmeb_harness.data.folder import MANIFEST
from mmeb_harness.results.files import load_run_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from mmeb_harness.show.page.collect import open_runs, reasoning_pairs, summary_of
from mmeb_harness.show.page.make import make_page
from mmeb_harness.show.page.queries import collect_task, effect_of_reasoning
from mmeb_harness.show.page.render import embedded_json, packed, page_parts
from mmeb_harness.show.page.thumbnails import spread, thumbnail, thumbnails_of
from mmeb_harness.show.page.values import DIFFER, HELPED, HURT, PICTURED, InlinePicture, ShownSound, TaskQueries
from tests.harness.made_runs import benchmark_tasks, mini_run, task_result, whole_run, write_run
from tests.harness.reasoning_runs import MODES, NAMES, Row, remade, save_all, three_modes
from tests.tasks.golden_v3 import tone

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=hacked=1>&lt;\u202egnal\u2066 '\" --> 😀"


@pytest.fixture(scope="module")
def modes(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_modes(cache, tmp_path_factory.mktemp("page"))


@pytest.fixture
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite lies where a run would look for it."""
    monkeypatch.setenv("MMEB_CACHE", str(cache))


@pytest.fixture
def run(modes: list[Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(modes[0], tmp_path / "run")
    return tmp_path / "run"


def queries_of(folders: list[Path], name: str, num_pictured: int = 0, data: Path | None = None) -> TaskQueries:
    return collect_task(open_runs(folders, data=data), name, num_pictured)[1]


# ---- collecting


def test_a_task_is_what_the_runs_stored(modes: list[Path], suite: Path) -> None:
    row, task = collect_task(open_runs(modes, data=suite), "OK-VQA", 0)
    stored = [read_parquet(RunFolder(folder).queries_file("OK-VQA")).to_pylist() for folder in modes]
    assert task.ids == [one["query_id"] for one in stored[0]]
    for number, rows in enumerate(stored):
        run = task.runs[number]
        assert run is not None
        assert run.score == [one["score"] for one in rows]
        assert run.rank == [one["first_relevant_rank"] for one in rows]
        written = [None if number is None else task.rationales[number] for number in run.rationale]
        assert written == [one["rationale"] for one in rows]
        top = [[task.candidates.ids[place] for place in places or ()] for places in run.top]
        assert top == [one["top_ids"][:5] for one in rows]
        cell = row.cells[number]
        assert cell is not None
        assert cell.score == pytest.approx(sum(one["score"] for one in rows) / len(rows))
    relevant = [{task.candidates.ids[place] for place in places} for places in task.relevant]
    assert relevant == [set(one["relevant_ids"]) for one in stored[0]]
    assert len(task.rationales) == len(set(task.rationales)) == len(task.ids)  # "adaptive" adds none of its own


def test_texts_are_the_queries_own(modes: list[Path], suite: Path) -> None:
    task = queries_of(modes, "OK-VQA", data=suite)
    assert task.items is not None
    assert task.items.texts[1].startswith("follow the rules from the largest: diamond>circle")
    assert task.items.instructions[1] == "Represent the given image with the following question:"
    assert set(task.items.media) == {1}
    assert queries_of(modes, "MVBench", data=suite).items.media[0] > 1


def test_helped_hurt_and_differing_queries(modes: list[Path]) -> None:
    row, task = collect_task(open_runs(modes), "OK-VQA", 0)
    assert [flag & (HELPED | HURT) for flag in task.flags[:4]] == [HELPED, HURT, 0, 0]
    assert [bool(flag & DIFFER) for flag in task.flags[:4]] == [True, True, False, False]
    assert (row.helped, row.hurt, row.differ) == (6, 6, 12)


@pytest.mark.parametrize(
    ("outcomes", "effect"),
    [
        ([(False, 0.0), (True, 1.0)], HELPED),
        ([(False, 1.0), (True, 0.5)], HURT),
        ([(False, 0.5), (True, 0.5)], 0),
        ([(True, 0.0), (True, 1.0)], 0),  # both reasoned: whatever differs, it isn't that
        ([(False, 0.0)], 0),
        ([(False, 0.5), (True, 1.0), (True, 0.0)], HELPED | HURT),
    ],
)
def test_the_effect_of_reasoning(outcomes: list[tuple[bool, float]], effect: int) -> None:
    assert effect_of_reasoning(outcomes) == effect


def test_only_runs_that_differ_in_reasoning_alone_are_a_pair(modes: list[Path]) -> None:
    never, always, adaptive = (load_run_result(folder / "run.json") for folder in modes)
    assert reasoning_pairs([never, always, adaptive]) == ((0, 1, 2),)
    assert reasoning_pairs([never, never]) == ()
    assert reasoning_pairs([never, dataclasses.replace(always, model_revision="other")]) == ()
    other = dataclasses.replace(always, model_settings={**always.model_settings, "prompt": "other"})
    assert reasoning_pairs([never, other, adaptive]) == ((0, 2),)


def test_pictures_of_the_queries_over_which_runs_disagree(modes: list[Path], suite: Path) -> None:
    task = queries_of(modes, "OK-VQA", num_pictured=3, data=suite)
    assert [row for row, flag in enumerate(task.flags) if flag & PICTURED] == [0, 1, 4]  # helped, hurt, helped
    assert task.thumbnails is not None
    assert sorted(task.thumbnails.queries) == [0, 1, 4]
    assert all(uri.startswith("data:image/webp;base64,") for uri in task.thumbnails.uris)
    clip = queries_of(modes, "MVBench", num_pictured=1, data=suite).thumbnails
    assert clip is not None
    assert [len(places) for places in clip.queries.values()] == [4]
    pages = queries_of(modes, "ViDoSeek-doc", num_pictured=1, data=suite).thumbnails
    assert pages is not None
    assert pages.candidates
    assert not pages.queries


def test_a_picture_that_cannot_be_opened_is_named(modes: list[Path], own_data: Path, tmp_path: Path) -> None:
    for picture in (own_data / "image-tasks" / "OK-VQA").iterdir():
        picture.write_bytes(b"no picture")
    page = make_page(modes, tmp_path / "page.html", data=own_data, thumbnails=2)
    found = [remark for remark in page.remarks if "can't be opened" in remark]
    assert len(found) == 1
    assert re.match(r"OK-VQA: 2 pictures can't be opened, the first is image-tasks/OK-VQA/\S+\.png", found[0])


def test_thumbnails(tmp_path: Path) -> None:
    Image.new("RGBA", (900, 300), (255, 0, 0, 128)).save(tmp_path / "wide.png")
    uri = thumbnail(tmp_path / "wide.png", 90)
    assert uri is not None
    (tmp_path / "small.webp").write_bytes(base64.b64decode(uri.partition(",")[2]))
    with Image.open(tmp_path / "small.webp") as small:
        assert small.size == (90, 30)
    assert thumbnail(tmp_path / "none.png", 90) is None
    frames = [Path(str(number)) for number in range(9)]
    assert [int(path.name) for path in spread(frames, 4)] == [0, 3, 5, 8]
    assert spread(frames[:2], 4) == frames[:2]


def test_sounds_are_shown_by_name_and_length_and_small_ones_are_there(tmp_path: Path) -> None:
    for name, seconds in (("small", 0.5), ("large", 10.0)):
        (tmp_path / f"{name}.wav").write_bytes(tone(440, seconds, 16_000))
    (tmp_path / "broken.wav").write_bytes(b"hello")
    sounds = {name: Sound(tmp_path / f"{name}.wav") for name in ("small", "large", "broken")}
    part = Sound(tmp_path / "small.wav", 0.1, 0.2)
    queries = {0: Item("a", sound=sounds["small"]), 1: Item("b", sound=sounds["broken"]), 2: Item("c", text="c")}
    candidates = {5: Item("d", sound=sounds["large"]), 6: Item("e", sound=part)}
    shown = thumbnails_of(tmp_path, "audio", queries, candidates)
    assert shown.query_sounds == {
        0: ShownSound("small.wav", 0.5, 0.0, None, 0),
        1: ShownSound("broken.wav", None, 0.0, None, None),
    }
    assert shown.candidate_sounds == {
        5: ShownSound("large.wav", 10.0, 0.0, None, None),
        6: ShownSound("small.wav", 0.5, 0.1, 0.2, 0),
    }
    assert [uri[:22] for uri in shown.uris] == ["data:audio/wav;base64,"]
    assert shown.missing == ["broken.wav"]
    assert not shown.queries
    assert not shown.candidates


def test_the_suite_is_found_where_runs_make_it(modes: list[Path], in_cache: None) -> None:
    assert queries_of(modes, "OK-VQA").items is not None


def test_a_page_without_data_says_so(modes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(tmp_path))
    for data, words in ((None, "--data FOLDER names"), (tmp_path / "none", "data folder none does not exist")):
        page = make_page(modes, tmp_path / "page.html", data=data, thumbnails=2)
        assert page.remarks[-1].startswith("texts and pictures are not shown: ")
        assert words in page.remarks[-1]
        assert str(tmp_path) not in page.remarks[-1]
    assert queries_of(modes, "OK-VQA").items is None


def test_texts_of_other_annotations_are_not_shown(modes: list[Path], own_data: Path) -> None:
    manifest = json.loads((own_data / MANIFEST).read_text())
    (own_data / MANIFEST).write_text(json.dumps({**manifest, "revision": "moved elsewhere"}))
    assert queries_of(modes, "OK-VQA", data=own_data).items is not None  # the same annotations all the same
    for table in (own_data / "annotations").rglob("*.parquet"):
        table.write_bytes(table.read_bytes() + b" ")
    task = queries_of(modes, "OK-VQA", data=own_data)
    assert task.items is None
    assert "other annotations of OK-VQA" in task.note


def test_runs_of_other_tasks_and_queries_stand_side_by_side(modes: list[Path], cache: Path, tmp_path: Path) -> None:
    mini_run(cache, tmp_path / "other", ("GQA", "OK-VQA"))
    source = open_runs([modes[0], tmp_path / "other"])
    rows = [collect_task(source, name, 0)[0] for name in source.task_names]
    assert [row.name for row in rows] == ["OK-VQA", "GQA", "MVBench", "ViDoSeek-doc"]  # the benchmark's order
    assert [cell is None for cell in rows[1].cells] == [True, False]
    remarks = summary_of(source, rows, "today", []).remarks
    assert "toy-never lacks 1 task that others have: GQA." in remarks
    assert "other lacks 2 tasks that others have: MVBench, ViDoSeek-doc." in remarks


def test_another_revision_of_a_model_is_named(modes: list[Path], run: Path) -> None:
    result, results = read_run(run)
    save_all(RunFolder(run), dataclasses.replace(result, name="newer", model_revision="2"), results)
    source = open_runs([run, modes[1], modes[2]])
    revision = load_run_result(modes[1] / "run.json").model_revision
    expected = f"revisions of bag_of_features differ: newer of 2; toy-always, toy-adaptive of {revision}."
    assert expected in summary_of(source, [], "today", []).remarks


def test_the_summary_has_the_aggregates_and_marks(modes: list[Path]) -> None:
    source = open_runs(modes)
    rows = [collect_task(source, name, 0)[0] for name in source.task_names]
    summary = summary_of(source, rows, "today", [f"{name}: odd" for name in "abcdefg"])
    overall = summary.means[-1][0]
    assert [(cell.tasks, cell.of) for cell in overall.cells] == [(3, 78)] * 3
    assert overall.cells[0].score == pytest.approx(sum(one.score for one in read_run(modes[0])[1]) / 3)
    assert summary.runs[0].marks == ("synthetic", "incomplete: 3 of 78 tasks")
    assert summary.reasoning_pairs
    assert "e: odd" in summary.remarks
    assert summary.remarks[-1] == "… and 2 more tasks with remarks of their own."


# ---- writing


class Elements(HTMLParser):
    """Counts elements, and keeps what stands in scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.policy = ""
        self.contents: dict[str, str] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.names.append(tag)
        self._inside = str(given.get("id") or tag) if tag in ("script", "style") else ""
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given["content"])
        assert not any(name.startswith("on") for name in given)
        assert "style" not in given
        for name in ("src", "href"):
            assert str(given.get(name, "#")).startswith(("#", "data:"))

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.contents[self._inside] = self.contents.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def page_of(folders: list[Path], pictures: tuple[InlinePicture, ...] = ()) -> str:
    source = open_runs(folders)
    collected = [collect_task(source, name, 0) for name in source.task_names]
    summary = summary_of(source, [row for row, _ in collected], "today", [])
    return "".join(page_parts(summary, [packed(queries) for _, queries in collected], pictures))


def spoil_texts(_name: str, rows: list[Row]) -> None:
    rows[0]["rationale"] = HOSTILE * 3
    rows[0]["top_ids"] = [f"{HOSTILE.encode(errors='replace').decode()} {place}" for place in range(100)]


def test_no_text_leaves_its_place(modes: list[Path], tmp_path: Path) -> None:
    picture = InlinePicture(HOSTILE, HOSTILE, b"png")
    plain = Elements(page_of([modes[0]], (InlinePicture("title", "alt", b"png"),)))
    folder = remade(modes[0].parent / "real", tmp_path / "run", "always", spoil_texts)
    run, results = read_run(folder)
    save_all(RunFolder(folder), dataclasses.replace(run, name=HOSTILE, model=HOSTILE, git_commit=HOSTILE), results)
    hostile = Elements(page_of([folder], (picture,)))
    assert hostile.names == plain.names
    assert json.loads(hostile.contents["summary"])["runs"][0]["name"] == HOSTILE
    task = json.loads(zlib.decompress(base64.b64decode(hostile.contents["task-0"])))
    assert task["rationales"][0] == HOSTILE * 3


def test_the_policy_admits_the_one_script_and_style_and_nothing_else(modes: list[Path]) -> None:
    page = Elements(page_of([modes[0]]))
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.contents[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in page.policy
    assert "http" not in page.policy


def test_embedded_json_means_nothing_to_an_html_parser() -> None:
    text = embedded_json({"text": HOSTILE, "line": "\u2028"})
    assert json.loads(text) == {"text": HOSTILE, "line": "\u2028"}
    assert text.isascii()
    assert not set(text) & set("<>&")


def test_the_same_runs_give_the_same_page(modes: list[Path]) -> None:
    assert page_of(modes) == page_of(modes)


def test_odd_numbers_are_no_numbers(modes: list[Path], tmp_path: Path) -> None:
    def spoil(_name: str, rows: list[Row]) -> None:
        rows[0]["gate"] = float("nan")
        rows[0]["top_scores"] = [float("inf")] * 100

    folder = remade(modes[0].parent / "real", tmp_path / "run", "always", spoil)
    run = queries_of([folder], "OK-VQA").runs[0]
    assert run is not None
    assert (run.gate[0], run.top_scores[0]) == (None, [None] * 5)
    assert b"NaN" not in zlib.decompress(base64.b64decode(packed(queries_of([folder], "OK-VQA"))))


# ---- the command, and what it refuses


@pytest.mark.slow
def test_the_command(modes: list[Path], tmp_path: Path, in_cache: None) -> None:
    output = tmp_path / "new" / "page.html"
    done = CliRunner().invoke(report, [*map(str, modes), "--output", str(output), "--thumbnails", "1"])
    assert done.exit_code == 0, done.output
    assert re.search(r"3 runs, 3 tasks, 88 queries, 0\.\d MB", done.output)
    assert output.read_text().startswith("<!DOCTYPE html>")
    assert str(tmp_path) not in output.read_text()


def test_two_runs_of_one_name_go_by_where_they_come_from(modes: list[Path], tmp_path: Path) -> None:
    shutil.copytree(modes[0], tmp_path / modes[0].name)
    source = open_runs([modes[0], tmp_path / modes[0].name])
    names = [one.scores.name for one in source.runs]
    assert len(set(names)) == 2
    assert str(tmp_path) in names[1]


def without_run_file(run: Path) -> None:
    (run / "run.json").unlink()


def still_running(run: Path) -> None:
    stored = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**stored, "status": "running"}))


def broken_json(run: Path) -> None:
    (run / "tasks" / "OK-VQA.json").write_text('{"name": "OK-')


def foreign_json(run: Path) -> None:
    (run / "run.json").write_text('{"schema_version": 2, "hello": "world"}')


def odd_score(run: Path) -> None:
    stored = json.loads((run / "tasks" / "OK-VQA.json").read_text())
    (run / "tasks" / "OK-VQA.json").write_text(json.dumps({**stored, "score": 1.5}))


def score_in_words(run: Path) -> None:
    stored = json.loads((run / "tasks" / "OK-VQA.json").read_text())
    (run / "tasks" / "OK-VQA.json").write_text(json.dumps({**stored, "score": "much"}))


def no_table(run: Path) -> None:
    (run / "queries" / "OK-VQA.parquet").unlink()


def cut_table(run: Path) -> None:
    path = run / "queries" / "OK-VQA.parquet"
    path.write_bytes(path.read_bytes()[:100])


def table_of_another_task(run: Path) -> None:
    shutil.copy(run / "queries" / "MVBench.parquet", run / "queries" / "OK-VQA.parquet")


def table_without_ranks(run: Path) -> None:
    path = run / "queries" / "OK-VQA.parquet"
    write_parquet(path, read_parquet(path).drop_columns(["first_relevant_rank"]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_run_file, r"is not a run's folder \(no run.json\)"),
        (still_running, r"is not finished \(status 'running'\)"),
        (broken_json, r"OK-VQA.json is not valid JSON"),
        (foreign_json, r"run\.json is not a run's result of schema version 2 \(no setting in it named 'hello'"),
        (odd_score, r"OK-VQA\.json is not a task's result of schema version 2 \(score is 1\.5, expected a fraction"),
        (score_in_words, r"OK-VQA.json is not a task's result of schema version 2 .score must be float, not 'much'"),
        (no_table, r"OK-VQA.parquet is missing"),
        (cut_table, r"OK-VQA\.parquet is not as it was written"),
        (table_of_another_task, r"OK-VQA\.parquet is not as it was written"),
        (table_without_ranks, r"OK-VQA\.parquet is not as it was written"),
    ],
)
def test_what_is_no_finished_run_is_named(run: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(run)
    with pytest.raises(ResultError, match=message):
        make_page([run], run.parent / "page.html", thumbnails=0)
    assert not (run.parent / "page.html").exists()


def test_editions_do_not_mix_unless_told(tmp_path: Path) -> None:
    for edition in ("page-fixed", "v2.0.0"):
        whole_run(tmp_path / edition, edition)
    folders = [tmp_path / "page-fixed", tmp_path / "v2.0.0"]
    with pytest.raises(ResultError, match=r"different editions: page-fixed is of page-fixed, v2\.0\.0 is of v2\.0\.0"):
        open_runs(folders)
    source = open_runs(folders, allow_editions=True)
    assert any("editions differ" in line for line in summary_of(source, [], "today", []).remarks)


def test_synthetic_scores_do_not_stand_beside_real_ones(modes: list[Path], tmp_path: Path) -> None:
    write_run(tmp_path / "real", [task_result(benchmark_tasks()[0])])
    with pytest.raises(ResultError, match="never stand beside MMEB-V2 scores"):
        open_runs([modes[0], tmp_path / "real"])


def test_a_run_is_named_once(modes: list[Path]) -> None:
    with pytest.raises(ResultError, match="is named twice"):
        open_runs([modes[0], modes[1], modes[0]])


def test_where_nothing_can_be_written(modes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, message in ((tmp_path / "file" / "page.html", "can't write"), (tmp_path, "is a folder; name a file")):
        with pytest.raises(ResultError, match=message):
            make_page(modes, output, thumbnails=0)
    with pytest.raises(HarnessError, match="--thumbnails -1"):
        make_page(modes, tmp_path / "page.html", thumbnails=-1)


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmeb_harness", "report", str(tmp_path), "--output", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .* is not a run's folder \(no run.json\).*\n", done.stderr)


def test_every_mode_was_made(modes: list[Path]) -> None:
    assert [load_run_result(folder / "run.json").model_settings["reasoning"] for folder in modes] == list(MODES)
    assert set(load_run_result(modes[0] / "run.json").tasks) == set(NAMES)
