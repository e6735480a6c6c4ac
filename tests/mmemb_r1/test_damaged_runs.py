"""What the stages of a run leave for each other, damaged; and numbers that a configuration can't mean."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from mmeb_harness import Column, DataError, HarnessError, OptionError
from mmemb_r1_model.data.rationales import RationaleRow
from mmemb_r1_model.data.suite import ANSWER, RIGHT, TEXT, read_labels, worker_rows
from mmemb_r1_model.disk.config import named_config, read_yaml
from mmemb_r1_model.disk.files import replacing_folder
from mmemb_r1_model.disk.jsonl import read_records
from mmemb_r1_model.pipeline import PipelineConfig, read_pipeline
from mmemb_r1_model.selection.rule import Chosen, Judged
from mmemb_r1_model.selection.stage import JudgedSide, SelectedSide

JUDGED = Judged("a", 0, "red", 0.5, 0.25, 0.25)
RECORDS = (
    RationaleRow("toy", "1", "query", "a", 0, "red", None, None, "stop"),
    JudgedSide("toy", "1", "query", 0.25, (JUDGED,)),
    SelectedSide("toy", "1", "query", 0.25, (Chosen(**vars(JUDGED), chance=1.0),), direct_only=False),
)
#: What a cell of JSON may hold instead.
ODD = (None, True, -3, 2.5, float("nan"), 10**400, "", "\ud800", [], [None], {}, {"a": 1})


def _values(record: object) -> Any:
    return dataclasses.asdict(record)  # type: ignore[call-overload]


def _damaged(values: Any) -> Iterator[Any]:
    """The same with one value after another replaced, left out, or in company."""
    places = [values, *(inner for value in values.values() if isinstance(value, tuple) for inner in value)]
    for number, place in enumerate(places):
        for name in place:
            for odd in (*ODD, KeyError):
                changed = copy.deepcopy(values)
                inner = changed if not number else changed["judged"][number - 1]
                if odd is KeyError:
                    del inner[name]
                else:
                    inner[name] = odd
                yield changed
    yield from ({**values, "more": 1}, None, [], [values, values], "x")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_line_is_what_it_says_or_is_named(record: object, tmp_path: Path) -> None:
    kind, path = type(record), tmp_path / "lines.jsonl"
    whole = json.dumps(_values(record))
    held = 0
    for values in _damaged(_values(record)):
        path.write_text(f"{whole}\n\n{json.dumps(values)}\n{whole}\n")
        said = ""
        try:
            read = list(read_records(path, kind, "delete it"))
        except DataError as error:
            said = str(error)
        if said:
            assert f"{path}, line 3" in said
            assert said.endswith("; delete it")
        else:  # another value of the right kind, or one that has a default
            assert read[0] == read[2] == record
            held += 1
    assert 0 < held < 40
    for line in (b"\xff\n", b"{}{}\n", whole.encode() + b"," + whole.encode() + b"\n", b"[" * 9_000 + b"\n"):
        path.write_bytes(line)
        with pytest.raises(DataError, match=r"lines\.jsonl, line 1.*; delete it"):
            list(read_records(path, kind, "delete it"))
    path.write_text(f"{whole}\n{whole[:20]}")
    assert list(read_records(path, kind, "")) == [record]  # what a killed writer left


@pytest.mark.parametrize("chances", [(0.5, 0.25), (-1.0, 2.0), (0.0, 0.0)])
def test_chances_add_up(chances: tuple[float, ...]) -> None:
    judged = tuple(Chosen(**vars(JUDGED), chance=chance) for chance in chances)
    with pytest.raises(ValueError, match="expected some that add up to 1"):
        SelectedSide("toy", "1", "query", 0.25, judged, direct_only=False)
    if not any(chances):
        assert SelectedSide("toy", "1", "query", 0.25, judged, direct_only=True)


@pytest.mark.parametrize(
    ("file", "read", "odd", "expected"),
    [
        ("query_labels", lambda data: read_labels(data), {ANSWER: pa.nulls(2, pa.string())}, "row 0, column 'answer'"),
        ("query_labels", lambda data: read_labels(data), {ANSWER: None}, "lack the column 'answer'"),
        ("worker_rationales", lambda data: list(worker_rows(data, TEXT, RIGHT)), {RIGHT: pa.array(["yes", "no"])},
         "column 'right' holds 'yes' .*expected true or false"),
        ("worker_rationales", lambda data: list(worker_rows(data, TEXT, RIGHT)), {TEXT: pa.array([1, 2])},
         "column 'text' holds 1 "),
    ],
)  # fmt: skip
def test_tables_beside_a_suite_are_read_typed(
    file: str, read: Callable[[Path], object], odd: dict[Column[Any], pa.Array | None], expected: str, tmp_path: Path
) -> None:
    texts = {name: pa.array(["a", "b"]) for name in ("task", "query_id", "side", "worker", "text", "answer")}
    columns = {**texts, "right": pa.array([True, False]), **{column.name: cells for column, cells in odd.items()}}
    path = tmp_path / f"{file}.parquet"
    with pytest.raises(DataError, match=r"\.parquet is missing"):
        read(tmp_path)
    pq.write_table(pa.table({name: cells for name, cells in columns.items() if cells is not None}), path)
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def _numbers(config: object, place: str = "") -> Iterator[str]:
    """Dotted places of all numbers of a configuration, as `--set` names them."""
    if isinstance(config, tuple):
        for number, part in enumerate(config):
            yield from _numbers(part, f"{place}[{number}]")
    elif dataclasses.is_dataclass(config):
        for name, value in vars(config).items():
            yield from _numbers(value, f"{place}.{name}".lstrip("."))
    elif isinstance(config, int | float) and not isinstance(config, bool):
        yield place


def _set(values: Any, place: str, value: object) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    *steps, last = place.replace("]", "").replace("[", ".").split(".")
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = value
    return changed


#: Numbers that may be below zero. Bounds of the workers' are the rationale stage's own.
ANY_SIGN = ("select.rule.minimum",)
OWN = "rationales."


def test_a_configuration_has_no_number_without_bounds() -> None:
    whole = json.loads(json.dumps(dataclasses.asdict(read_pipeline(read_yaml(named_config("miniworld"))))))
    places = [place for place in _numbers(read_pipeline(whole)) if not place.startswith(OWN)]
    assert len(places) > 80
    for place in places:
        if place not in ANY_SIGN:
            with pytest.raises(OptionError, match="must be"):
                read_pipeline(_set(whole, place, -1))
        with pytest.raises(HarnessError):
            read_pipeline(_set(whole, place, float("nan")))
    assert isinstance(read_pipeline(whole), PipelineConfig)


def _by_torch(folder: Path) -> None:
    with (folder / "state.pt").open("wb") as file:
        torch.save({"weights": torch.ones(10_000)}, file)


def _by_safetensors(folder: Path) -> None:
    save_file({"weights": torch.ones(10_000)}, folder / "model.safetensors")


@pytest.mark.parametrize("write", [_by_torch, _by_safetensors])
def test_a_checkpoint_that_finds_no_room_names_the_systems_error(write: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "before").touch()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="final") as error, replacing_folder(folder) as temporary:
            write(temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["before", "final"]
    with pytest.raises(KeyError), replacing_folder(folder):  # a fault of the code's own stays itself
        raise KeyError("weights")
