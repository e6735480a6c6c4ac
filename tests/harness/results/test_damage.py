"""Whatever happens to the JSON of a run: a reader ends in one line, or in the very same scores."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmeb_harness import HarnessError
from mmeb_harness.core.reading import parse_yaml
from mmeb_harness.data.folder import MANIFEST, describe
from mmeb_harness.data.lock import read_lock
from mmeb_harness.results.official_files import read_folder
from mmeb_harness.results.scores import load_scores, read_run, save_scores, scores_of_run
from tests.harness.made_runs import mini_run

ROOT = Path(__file__).parents[2]
#: What stands in place of any value: other types, numbers that are none, texts that aren't text.
ODD = st.sampled_from(
    [None, True, "x", "", "\ud800", -1, 0, 2, 1.5, 10**39, 10**300, float("nan"), float("inf"), [], [1], {}, {"a": 1}]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = ODD | st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "run"
    mini_run(cache, folder, ["DocVQA"], "random")
    return folder


def attempt(read: Callable[[], object]) -> tuple[object, str]:
    """What a reader makes of something, or how it refuses; nothing else may come of it."""
    try:
        return read(), ""
    except HarnessError as error:
        return None, str(error)


@st.composite
def changed(draw: st.DrawFn, values: Any) -> Any:
    """The values with one place, anywhere, set to something else, dropped, or given under another name."""
    inner = values = json.loads(json.dumps(values))
    while True:
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = draw(st.sampled_from(places))
        if isinstance(inner[place], (dict, list)) and inner[place] and draw(st.booleans()):
            inner = inner[place]
            continue
        match draw(st.sampled_from(["set", "drop", "rename"])):
            case "set":
                inner[place] = draw(ANYTHING)
            case "drop":
                del inner[place]
            case _ if isinstance(inner, dict):
                inner[draw(st.text(max_size=4))] = inner.pop(place)
        return values


def flipped(content: bytes, place: int, bit: int) -> bytes:
    spoilt = bytearray(content)
    spoilt[place % len(spoilt)] ^= 1 << bit
    return bytes(spoilt)


@pytest.mark.parametrize("file", ["run.json", "tasks/DocVQA.json"])
@given(data=st.data())
def test_a_run_whose_json_is_damaged(file: str, data: st.DataObject, run: Path) -> None:
    whole = (run / file).read_bytes()
    spoilt = data.draw(
        st.builds(flipped, st.just(whole), st.integers(0, len(whole)), st.integers(0, 7))
        | changed(json.loads(whole)).map(lambda values: json.dumps(values).encode())
        | st.integers(0, len(whole)).map(lambda length: whole[:length])
    )
    expected = scores_of_run(run)
    (run / file).write_bytes(spoilt)
    scores, problem = attempt(lambda: scores_of_run(run))
    (run / file).write_bytes(whole)
    assert scores == expected or (file in problem and "\n" not in problem)


@given(data=st.data())
def test_a_run_without_checksums_whose_task_is_damaged(data: st.DataObject, run: Path) -> None:
    """It is recomputed: no other score comes out of it."""
    paths = [run / "run.json", run / "tasks/DocVQA.json"]
    whole = {path: path.read_bytes() for path in paths}
    marks = ("checksum", "checksums", "tables")
    bare = {path: {k: v for k, v in json.loads(text).items() if k not in marks} for path, text in whole.items()}
    for path in paths:
        path.write_text(json.dumps(bare[path]))
    expected = [result.metrics for result in read_run(run)[1]]
    paths[1].write_text(json.dumps(data.draw(changed(bare[paths[1]]))))
    metrics, problem = attempt(lambda: [result.metrics for result in read_run(run)[1]])
    for path in paths:
        path.write_bytes(whole[path])
    assert metrics == expected or "DocVQA" in problem


@given(data=st.data())
def test_other_files_that_are_damaged(data: st.DataObject, run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A scores file, a folder's manifest, a lock file, official scores."""
    folder = tmp_path_factory.mktemp("others")
    save_scores(folder / "scores.json", scores_of_run(run))
    shutil.copy(ROOT / "golden" / "release_0_1" / "mmeb-data.lock.json", folder / "lock.json")
    manifest = {"schema_version": 1, "name": "n", "synthetic": True, "revision": "1", "num_queries": {"DocVQA": 24}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / "OK-VQA_score.json").write_text(json.dumps({"hit@1": 0.5, "num_pred": 3, "num_data": 3}))
    readers: dict[str, Callable[[Path], object]] = {
        "scores.json": load_scores,
        "lock.json": read_lock,
        MANIFEST: lambda path: describe(path.parent),
        "OK-VQA_score.json": lambda path: read_folder(path.parent, {}),
    }
    for name, read in readers.items():
        values = data.draw(changed(json.loads((folder / name).read_text())))
        (folder / name).write_text(json.dumps(values))
        _, problem = attempt(partial(read, folder / name))
        assert not problem or (name.partition("_")[0] in problem and "\n" not in problem)


@given(text=st.text(alphabet="ab:-[]{}&*!?|>'\"#%@,\n \t<~.0123456789eE", max_size=40))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text)
