"""From Python: the same run as by the command, in whatever form the model comes; and what is asked of runs."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mmeb_tasks.own import RETRIEVAL

import mmeb_harness as mmeb
from mmeb_harness.api.config import RunConfig
from mmeb_harness.api.notebook import NotebookReporter
from mmeb_harness.cli.commands import cli
from tests.toy import HashEmbedder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    (folder / "mine").mkdir()
    RETRIEVAL.write_example(folder / "mine")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def by_length(items: Sequence[mmeb.Item]) -> list[list[float]]:
    return [[len(item.text), len(item.images), 1.0] for item in items]


def test_keywords_are_the_options_of_the_command() -> None:
    keywords = {*inspect.signature(mmeb.evaluate).parameters} - {"progress"}
    assert keywords == {field.name for field in dataclasses.fields(RunConfig)} - {"shard"}


def test_a_name_gives_what_the_command_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = mmeb.evaluate("random", data="mine", output="by-python", progress=False)
    assert capsys.readouterr().out == ""
    words = ["run", "--model", "random", "--data", "mine", "--output", "by-command"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    same = mmeb.load_run("by-command")
    assert run.scores == same.scores
    assert run.means == same.means == {"own": run.scores["my-retrieval"], "image": run.means["image"]} | run.means
    assert [task.result.fingerprint for task in run.tasks] == [task.result.fingerprint for task in same.tasks]
    assert "finished before" in CliRunner().invoke(cli, words).output


def test_a_runs_tables(folder: Path) -> None:
    run = mmeb.evaluate("random", data="mine", output="tables", progress=False)
    assert run.table().loc["my-retrieval", "num_queries"] == 4
    queries = run.queries("my-retrieval")
    assert list(queries.index) == ["q-text", "q-image", "q-both", "q-clip"]
    assert queries["score"].mean() == pytest.approx(run.scores["my-retrieval"])
    with pytest.raises(mmeb.UnknownNameError, match="no task of this run named 'my-retrieval2'"):
        run.queries("my-retrieval2")
    assert repr(run).startswith("<Run tables: random on mine, 1 tasks, overall ")
    assert "my-retrieval" in run._repr_html_()


def test_an_embedder_and_a_function(folder: Path) -> None:
    run = mmeb.evaluate(HashEmbedder(), data="mine", progress=False)
    assert run.result.model == "hash"
    other = mmeb.evaluate(HashEmbedder(revision="2"), data="mine", progress=False)
    assert run.folder != other.folder
    first = mmeb.evaluate(by_length, data="mine", progress=False)
    assert (first.result.model, first.result.model_dimensions) == ("by_length", 3)
    assert first.folder == Path("runs") / f"mine-{run.folder.name.split('-')[1]}-by_length"
    # Another function of the same name: nothing of the first one's is taken for its own.
    by_role = {"by_length": lambda items, role: [[role == "query", len(item.text), 1] for item in items]}["by_length"]
    by_role.__name__ = "by_length"
    second = mmeb.evaluate(by_role, data="mine", progress=False)
    assert second.folder == first.folder
    assert second.result.queries.reused == 0
    assert second.result.model_fingerprint != first.result.model_fingerprint


@pytest.mark.parametrize(
    ("model", "keywords", "says"),
    [
        (lambda items: [1.0] * len(items), {}, r"returned an array of shape \(1,\) for 1 items"),
        (lambda items: 1 / 0, {}, "can't embed 1 items.*ZeroDivisionError"),
        (7, {}, "model is int; give a name, an Embedder, or a function"),
        (HashEmbedder(dimensions=0), {}, "model 'HashEmbedder' is no Embedder: 0 dimensions"),
        (by_length, {"device": "cpu"}, "device is for models by name; this one is made already"),
        ("randm", {}, "no model named 'randm'"),
        ("random", {"limit": 0}, "--limit must be at least 1"),
        ("random", {"tasks": "DocVQ"}, "no task named 'DocVQ'"),
    ],
)
def test_what_is_wrong(model: Any, keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(mmeb.HarnessError, match=says):
        mmeb.evaluate(model, data="mine", progress=False, **keywords)


def test_a_function_that_returns_zeros_is_told(folder: Path) -> None:
    with pytest.raises(mmeb.ModelError, match=r"a vector of length 0\.0000"):
        mmeb.evaluate(lambda items: np.zeros((len(items), 3)), data="mine", progress=False)


def test_runs_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [mmeb.evaluate(name, data="mine", output=name, progress=False) for name in ("random", "bag_of_features")]
    compared = mmeb.compare(*runs)
    table = compared.table()
    assert list(table["name"]) == ["overall", "image", "own", "my-retrieval"]
    expected = runs[1].scores["my-retrieval"] - runs[0].scores["my-retrieval"]
    assert table["difference"].tolist() == pytest.approx([expected] * 4)
    printed = CliRunner().invoke(cli, ["compare", "random", "bag_of_features"], catch_exceptions=False).output
    assert "my-retrieval" in printed
    assert "of 78" not in printed
    assert "[2] bag_of_features - [1] random, in points" in str(compared)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # where rich would display instead of writing
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "in points" in compared._repr_html_()
    assert "\x1b" not in compared._repr_html_()
    board = mmeb.leaderboard(runs)
    assert list(board.table()["model"]) == ["bag_of_features", "random"]
    board.save(folder / "board.md")
    assert "| random |" in (folder / "board.md").read_text()
    with pytest.raises(mmeb.OptionError, match=r"no format has the suffix '\.doc'"):
        board.save("board.doc")
    with pytest.raises(mmeb.OptionError, match="nothing to compare"):
        mmeb.compare()


def test_a_page_of_a_leaderboard_has_all_tasks(tmp_path: Path) -> None:
    """Folded there; elsewhere they would be 78 columns that nobody asked for."""
    board = mmeb.leaderboard([], published=["VLM2Vec-V2.0-Qwen2VL-2B"])
    for name in ("board.md", "board.html"):
        board.save(tmp_path / name)
    assert "VOC2007" not in (tmp_path / "board.md").read_text()
    assert "VOC2007" in (tmp_path / "board.html").read_text()


def test_a_notebook_is_told_in_one_line_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)
    display = SimpleNamespace(HTML=str, display=lambda *_, **__: handle)
    ipython = SimpleNamespace(get_ipython=lambda: object(), display=display)
    for name, module in {"IPython": ipython, "IPython.display": display, "ipykernel": object()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("mmeb_harness.api.notebook._DRAWN_SECONDS", 0)
    mmeb.evaluate("random", data="mine", output="notebook", fresh=True)
    assert "1 of 1 tasks" in shown[-1]
    reporter = NotebookReporter()
    reporter.note("<b> & so on")
    assert "&lt;b&gt; &amp; so on" in shown[-1]


def test_types_alone_bring_no_run_with_them() -> None:
    import subprocess

    code = "import sys, mmeb_harness; assert 'mmeb_harness.run.evaluate' not in sys.modules; mmeb_harness.evaluate"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_for_notebooks_runs_as_it_is_printed(folder: Path) -> None:
    page = (Path(mmeb.__file__).parents[1] / "docs" / "python.md").read_text()
    code = page.partition("<!-- example: notebook.py -->\n```python\n")[2].partition("```")[0]
    assert "mmeb.compare" in code
    exec(compile(code, "docs/python.md", "exec"), {})
    assert "my-retrieval" in (folder / "board.html").read_text()
