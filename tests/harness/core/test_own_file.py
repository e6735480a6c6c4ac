"""A model by its file: found, made, told from what it was before, and refused by name."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from mmeb_harness import HarnessError, ModelError, OptionError, UnknownNameError
from mmeb_harness.core.errors import PluginError
from mmeb_harness.core.own_file import readable_parts
from mmeb_harness.core.registry import ModelSpec, load_model, resolve_model

MODEL = """
import numpy as np
from mmeb_harness import EncodeResult, ModelInfo

class First:
    def __init__(self, width: int = 4):
        self.info = ModelInfo("first", "1", width)
    def encode(self, items, role):
        return EncodeResult(np.eye(self.info.dimensions, dtype=np.float32)[:len(items)])
"""
FIXED = """
from mmeb_harness import ModelInfo

class First:
    @property
    def info(self):
        return ModelInfo("first", "1", 4)
    def encode(self, items, role): ...
"""
SECOND = """
class Second(First):
    pass

def third():
    return First(3)
"""


@pytest.fixture(autouse=True)
def path_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


def written(name: str, code: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path


def test_a_file_is_a_model_and_its_content_a_part_of_the_revision() -> None:
    file = written("mine.py", MODEL)
    full = f"{file.resolve()}:First"
    assert resolve_model("mine.py", {}) == resolve_model("./mine.py:First", {}) == (full, {})
    assert resolve_model("mine.py:First:8", {"x": "1"}) == (full, {"width": "8", "x": "1"})
    first, wide = load_model("mine.py", {}, {}), load_model("mine.py:First:8", {}, {})
    assert (first.info.name, wide.info.dimensions) == ("first", 8)
    assert first.info.revision == wide.info.revision
    assert first.info.revision.startswith("1+")
    # Edited while a notebook runs: the new code, under another revision.
    written("mine.py", MODEL.replace('"first"', '"other"'))
    again = load_model("mine.py", {}, {})
    assert again.info.name == "other"
    assert again.info.revision != first.info.revision


def test_another_process_makes_the_same_from_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("mine.py", MODEL)
    spec = pickle.dumps(ModelSpec(resolve_model("mine.py", {})[0]))
    monkeypatch.chdir(tmp_path.parent)
    made = pickle.loads(spec).load()
    assert type(pickle.loads(pickle.dumps(made))) is type(made)


def test_of_several_one_is_named() -> None:
    written("two.py", MODEL + SECOND)
    with pytest.raises(OptionError, match=r"two\.py has several classes with `encode`: First, Second; say which"):
        load_model("two.py", {}, {})
    assert load_model("two.py:Second", {}, {}).info.name == "first"
    assert load_model("two.py:third", {}, {}).info.dimensions == 3
    with pytest.raises(UnknownNameError, match=r"no class or function in two\.py named 'Fist'\. Did you mean 'First'"):
        load_model("two.py:Fist", {}, {})
    assert readable_parts("two.py:Second:5") == ("two-Second", "5")
    assert readable_parts("st:a/b.py") == ("st", "a/b.py")  # a registered name's VALUE may be a file


def test_what_lies_beside_it_can_be_imported_and_hides_nothing() -> None:
    written("plain/random.py", "1 / 0")
    written("plain/layers.py", MODEL)
    written("plain/numpy_2.0.py", "import random\nfrom layers import First\nclass Own(First): ...")
    assert load_model("plain/numpy_2.0.py", {}, {}).info.name == "first"
    written("house/__init__.py", "")
    written("house/room/__init__.py", "")
    written("house/tools.py", MODEL)
    written("house/room/model.py", "from ..tools import First\nclass Own(First): ...")
    assert load_model("house/room/model.py", {}, {}).info.name == "first"
    with pytest.raises(UnknownNameError, match=r"Did you mean 'house/room/model\.py'\?"):
        load_model("house/room", {}, {})


@pytest.mark.parametrize(
    ("code", "model", "kind", "message"),
    [
        (None, "mine.py", OptionError, r"model 'mine\.py': there is no file /.*mine\.py$"),
        (None, "mine", UnknownNameError, "no model named 'mine'"),
        (MODEL, "mine", UnknownNameError, r"Did you mean 'mine\.py'\?"),
        ("x = 1", "mine.py", ModelError, r"mine\.py has no class with a method `encode`; of a function that makes"),
        ("x = 1", "mine.py:x", ModelError, r"mine\.py:x is not callable"),
        ("import nix", "mine.py", ModelError, r"mine\.py can't be imported: No module named 'nix'"),
        ("def f(:", "mine.py", PluginError, r"can't be imported: SyntaxError: invalid syntax \(mine\.py, line"),
        ("{}['key']", "mine.py", PluginError, r"can't be imported: KeyError: 'key' \(mine\.py:1, in <module>\)"),
        (MODEL + "\n    info = property(lambda self: 3)", "mine.py", PluginError, "AttributeError"),
        (MODEL, "mine.py:First:wide", OptionError, "--model-arg width: 'wide' is not an integer"),
        (FIXED, "mine.py", ModelError, r"`info` of First can't be set .*: set `self\.info` in `__init__`"),
    ],
)
def test_what_is_no_model_is_one_line(code: str | None, model: str, kind: type[HarnessError], message: str) -> None:
    if code is not None:
        written("mine.py", code)
    with pytest.raises(kind, match=message) as raised:
        load_model(model, {}, {})
    assert "\n" not in str(raised.value)
