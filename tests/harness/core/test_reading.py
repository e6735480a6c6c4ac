"""Values come into dataclasses as they are, or one line says where, what and what would fit."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mmeb_harness import (
    HarnessError,
    JsonFile,
    ModelError,
    OptionError,
    UnknownNameError,
    build_config,
    parse_yaml,
    read_yaml,
)
from mmeb_harness.core.items import Scalar


@dataclass(frozen=True, slots=True)
class Inner:
    rate: float
    kind: Literal["plain", "the task's own"] = "plain"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    count: int | None = None
    shown: bool = False
    schema_version: int = 1


FILE = JsonFile(
    Outer, "a box", 1, "fetch it", "mend it", mark="name", added=frozenset({"count", "kind"}), error=ModelError
)


def test_a_configuration_is_what_it_says() -> None:
    values = {
        "name": "a",
        "inner": {"rate": 1},
        "several": [{"rate": 0.1, "kind": "the task's own"}],
        "pair": [1e-5, 2],
        "count": None,
        "shown": True,
    }
    assert build_config(Outer, values) == Outer(
        "a", Inner(1.0), (Inner(0.1, "the task's own"),), (1e-5, 2.0), count=None, shown=True
    )
    assert build_config(Outer, {"name": "a"}) == Outer("a")


def test_scalars_stay_what_they_are() -> None:
    """A model's fingerprint tells 1 from 1.0, and both from true."""
    settings = {"int": 1, "float": 1.0, "bool": True, "text": "1", "none": None, "small": 1e-320, "large": 10**30}
    read = build_config(Outer, {"name": "a", "settings": settings}).settings
    assert json.dumps(read) == json.dumps(settings)


def test_yaml_reads_some_numbers_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: 1e-4\ninner: {rate: 1e-4}\npair: [-2E3, 1.0e-4]\n")
    assert build_config(Outer, read_yaml(tmp_path / "a.yaml")) == Outer("1e-4", Inner(1e-4), pair=(-2000.0, 1e-4))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("off", "Yes", "on", "n", "0012345", "1_000", "0x1F", "0o17", "12:30:45", "1e3")),
        *((word, word) for word in ("2026-01-31", "2026-01-31 10:00:00", "=", "None", "1.", "+", "9" * 41)),
        *(("null", None), ("~", None), ("", None), ("true", True), ("FALSE", False), ("12", 12), ("-3", -3)),
        *(("1.5", 1.5), ("-.5", -0.5), ("1.0e-4", 1e-4), (".inf", float("inf")), ("'12'", "12"), ("!!str 12", "12")),
    ],
)
def test_a_word_of_yaml_is_more_than_text_only_where_all_agree(text: str, value: object) -> None:
    read = parse_yaml(f"key: {text}")["key"]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("word", ["off", "0012345", "1e3", "1_000", "2026-01-31", "010", "12", "1.50", "true", "null"])
def test_a_models_argument_is_its_own_text(word: str) -> None:
    assert parse_yaml(f"model_args: {{a: {word}}}\nb: {{a: 1}}", ("model_args",)) == {
        "model_args": {"a": word},
        "b": {"a": 1},
    }
    assert parse_yaml("model_args: {a: , b: ~, c: '~'}", ("model_args",))["model_args"] == {
        "a": "none",
        "b": "none",
        "c": "~",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shown: yes", None),
        ("count: 1_000", None),
        ("count: 010", "count must be int, not '010'"),
        ("count: 0x10", "count must be int, not '0x10'"),
        ("inner: {rate: 010}", "inner.rate must be float, not '010'"),
        ("inner: {rate: 1:30}", "inner.rate must be float, not '1:30'"),
        ("inner: {rate: 1_000}", None),
    ],
)
def test_a_field_takes_what_its_text_spells(text: str, message: str | None) -> None:
    values = {"name": "a", **parse_yaml(text)}
    if message is None:
        assert build_config(Outer, values) in (
            Outer("a", shown=True),
            Outer("a", count=1000),
            Outer("a", Inner(1000.0)),
        )
    else:
        with pytest.raises(OptionError, match=message):
            build_config(Outer, values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nam": "b"}, r"no setting in a\.yaml named 'nam'\. Did you mean 'name'\?"),
        ({"inner": {"rte": 1}}, r"no setting in a\.yaml: inner named 'rte'\. Did you mean 'rate'\?"),
        ({"several": [{"rate": 1}, {}]}, r"a\.yaml: several\[1\] lacks 'rate'"),
        ({"name": 1}, r"a\.yaml: name must be str, not 1"),
        ({"inner": 1}, r"a\.yaml: inner must be a mapping, not 1"),
        ({"inner": {"rate": "much"}}, r"a\.yaml: inner\.rate must be float, not 'much'"),
        ({"inner": {"rate": True}}, r"a\.yaml: inner\.rate must be float, not True"),
        ({"inner": {"rate": 1, "kind": "x"}}, r"inner\.kind must be one of plain, the task's own, not 'x'"),
        ({"several": "x"}, r"a\.yaml: several must be a list, not 'x'"),
        ({"several": None}, r"a\.yaml: several must be a list, not None"),
        ({"pair": [1]}, r"a\.yaml: pair must have 2 values, not 1"),
        ({"pair": [1, 2, 3]}, r"a\.yaml: pair must have 2 values, not 3"),
        ({"pair": [1, "x"]}, r"a\.yaml: pair\[1\] must be float, not 'x'"),
        ({"pair": [1, float("inf")]}, r"a\.yaml: pair\[1\] is inf, expected a finite number"),
        ({"settings": []}, r"a\.yaml: settings must be a mapping, not \[\]"),
        ({"settings": {"a": [1]}}, r"a\.yaml: settings\.a must be str or int or float or bool, not \[1\]"),
        ({"count": "5"}, r"a\.yaml: count must be int, not '5'"),
        ({"count": True}, r"a\.yaml: count must be int, not True"),
        ({"count": 5.0}, r"a\.yaml: count must be int, not 5\.0"),
        ({"shown": 1}, r"a\.yaml: shown must be bool, not 1"),
        ({"name": datetime.date(2026, 1, 1)}, r"a\.yaml: 2026-01-01 is read as a date; put it in quotes"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=f"^{message}$|{message}") as error:
        build_config(Outer, {"name": "a", **changes}, "a.yaml")
    assert "\n" not in str(error.value)


def test_what_is_no_mapping_at_all() -> None:
    with pytest.raises(OptionError, match=r"^the configuration must be a mapping, not 3$"):
        build_config(Outer, 3)
    with pytest.raises(OptionError, match=r"^the configuration lacks 'name'$"):
        build_config(Outer, {})
    with pytest.raises(UnknownNameError, match=r"^no setting in the configuration named 'nam'. Did you mean 'name'"):
        build_config(Outer, {"nam": "a"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "^can't read configuration .*a.yaml: while parsing"),
        ("\x00", "^can't read configuration .*a.yaml: unacceptable character"),
        ("- a", "^configuration .*a.yaml must be a mapping of names to values$"),
        ("", "must be a mapping of names to values$"),
        ("a: 1\nb: 2\na: 3", "key 'a' is there twice, in line 1 and below; write it as YAML, in UTF-8$"),
        ("a: &a [*a]", "nested more than 50 levels deep, or holds itself"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("- " * 3000, "nested too deep"),
        (
            "a: &a [x, x]\n"
            + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for m, n in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)),
            "aliases stand for more than 20,000 values",
        ),
        ("a: !!python/object:os.system x", "line 1 has the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !!bool maybe", "line 1 has the tag"),
        ('a: "\\ud800"', r"text with half a character, U\+D800"),
        ("x" * (1 << 21), "2.1 MB are no configuration"),
    ],
)
def test_what_is_no_configuration(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_yaml(tmp_path / "a.yaml")


WHOLE = {
    "name": "a",
    "inner": {"rate": 0.5},
    "several": [],
    "pair": [0, 1],
    "settings": {},
    "shown": False,
    "schema_version": 1,
}


def test_a_file_may_lack_only_what_was_added_later(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(WHOLE))
    assert FILE.read(path) == Outer("a", Inner(0.5), pair=(0.0, 1.0))
    for name in ("inner", "several", "settings", "shown"):
        path.write_text(json.dumps({key: value for key, value in WHOLE.items() if key != name}))
        with pytest.raises(ModelError, match=rf"it lacks '{name}'\); mend it$"):
            FILE.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a\.json is not valid JSON \(.*\); mend it$"),
        ('{"name": "a", "name": "b"}', r"a\.json is not valid JSON \(key 'name' is there twice\); mend it$"),
        ("[" * 500 + "]" * 500, r"a\.json is not valid JSON \(nested more than 100 levels deep\); mend it$"),
        ("[" * 50_000, r"nested more than 100 levels deep\); mend it$"),
        ('{"name": ' + "9" * 400 + "}", r"\(a whole number of 400 digits\); mend it$"),
        ('{"name": "\\ud800"}', r"\(text with half a character, U\+D800\); mend it$"),
        ("[]", r"a\.json is not a box of this harness; fetch it$"),
        ('{"schema_version": 1}', r"a\.json is not a box of this harness; fetch it$"),
        ('{"name": "a", "schema_version": true}', r"a\.json is not a box of this harness; fetch it$"),
        (
            '{"name": "a", "schema_version": 2}',
            r"schema version 2, this release reads up to 1: upgrade .*, or fetch it$",
        ),
        ('{"name": "a", "schema_version": 0}', r"older release \(schema version 0, this one writes 1\); fetch it$"),
        (json.dumps({**WHOLE, "name": 1}), r"is not a box of schema version 1 \(name must be str, not 1\); mend it$"),
        (json.dumps({**WHOLE, "pair": [0, "1e-4"]}), r"\(pair\[1\] must be float, not '1e-4'\); mend it$"),
        (json.dumps({**WHOLE, "nam": 1}), r"\(no setting in it named 'nam'\. Did you mean 'name'\?\); mend it$"),
    ],
)
def test_a_file_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        FILE.read(tmp_path / "a.json")
    with pytest.raises(ModelError, match=r"^can't read .*b\.json: No such file"):
        FILE.read(tmp_path / "b.json")
