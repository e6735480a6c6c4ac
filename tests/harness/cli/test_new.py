"""What `new` writes is what the guide shows, passes `check`, and runs."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmeb_harness.cli.commands import cli
from mmeb_harness.core import registry
from mmeb_harness.results.files import load_run_result
from tests.forked import ROOT

GUIDE = (ROOT / "docs" / "plugins.md").read_text()
EXAMPLES = {"my_model": [], "my_reasoner": ["--reasons"]}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MMEB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(name: str) -> str:
    block = re.search(rf"<!-- example: {name}\.py -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    assert block
    return block.group(1)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guide_shows_what_is_written_and_it_is_short_and_tidy(name: str, folder: Path) -> None:
    assert call("new", "model", name, *EXAMPLES[name]).exit_code == 0
    written = folder / name / f"{name}.py"
    assert written.read_text() == shown(name)
    assert sum(bool(line.strip()) for line in shown(name).splitlines()) < 30
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (["check", "--isolated", "--select", "E,F,W,I,B"], ["format", "--isolated", "--check"]):
        subprocess.run([ruff, *command, "--line-length", "120", str(written)], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_passes_every_check_in_every_mode_and_runs(name: str, folder: Path) -> None:
    (folder / "model.py").write_text(shown(name))
    modes = ("adaptive", "always", "never") if name == "my_reasoner" else (None,)
    for mode in modes:
        options = ["--reasoning", mode, "--candidate-reasoning", mode] if mode else []
        checked = call("check", "model.py", *options)
        assert checked.stdout.splitlines()[-1] == "model.py: all checks passed", checked.stdout
        number = {"always": 11, "never": 0}.get(str(mode))
        if number is not None:
            assert f"{number} of 11 reason as query, {number} of 11 reason as candidate" in checked.stdout
    ran = call("run", "--model", "model.py", "--tasks", "DocVQA,MSR-VTT", "--limit", "2", "--output", "out")
    assert ran.exit_code == 0, ran.output
    assert load_run_result(folder / "out" / "run.json").model == name


def test_what_is_written_is_called_as_its_folder_and_can_be_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = call("new", "model", "My-Own", "--reasons")
    assert made.stdout.splitlines()[0] == "written: My-Own/my_own.py, My-Own/pyproject.toml"
    commands = [line.removeprefix("next:").strip() for line in made.stdout.splitlines()[1:]]
    assert commands[:2] == ["mmeb-eval check My-Own/my_own.py", "mmeb-eval run --model My-Own/my_own.py"]
    project = tomllib.loads((folder / "My-Own" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"] == {registry.MODELS_GROUP: {"my_own": "my_own:MyReasoner"}}
    assert project["tool"]["setuptools"]["py-modules"] == ["my_own"]
    ((name, value),) = project["project"]["entry-points"][registry.MODELS_GROUP].items()
    point = importlib.metadata.EntryPoint(name, value, registry.MODELS_GROUP)
    monkeypatch.setattr(registry, "_registered", lambda group, path: [point])
    monkeypatch.syspath_prepend(folder / "My-Own")
    assert registry.load_model("my_own", {}, {"reasoning": "never"}).info.name == "my_own"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("there", "there/there.py is there already; name another folder"),
        ("random", "a model 'random' is registered already; name another folder"),
        ("3d", "name one that begins with a letter"),
    ],
)
def test_nothing_is_written_over(name: str, message: str, folder: Path) -> None:
    (folder / "there").mkdir()
    (folder / "there" / "there.py").write_text("mine")
    assert message in str(CliRunner().invoke(cli, ["new", "model", name]).exception)
    assert [path.name for path in folder.rglob("*.py")] == ["there.py"]
    assert not (folder / "there" / "pyproject.toml").exists()
