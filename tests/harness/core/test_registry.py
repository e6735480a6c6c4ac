"""Names are found, nearly right names are suggested, arguments are parsed by annotation."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from mmeb_harness import ModelError, OptionError, UnknownNameError
from mmeb_harness.core import registry
from mmeb_harness.core.registry import (
    BENCHMARK,
    RegisteredTask,
    choose_tasks,
    load_model,
    load_tasks,
    model_names,
    parse_value,
    resolve_model,
    select_tasks,
    with_tasks,
)
from tests.toy import toy_task


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no model named 'randm'\. Did you mean 'random'\?"):
        load_model("randm", {}, {})
    known = load_tasks()
    with pytest.raises(UnknownNameError, match=r"no task named 'docvqa'\. Did you mean 'DocVQA'\?"):
        select_tasks(known, ["docvqa"])
    with pytest.raises(UnknownNameError, match=r"Did you mean 'ImageNet-1K', 'ImageNet-A' or 'ImageNet-R'\?$"):
        select_tasks(known, ["ImageNet"])
    with pytest.raises(UnknownNameError, match=r"Did you mean one of 'ViDoRe_arxivqa', .*, .*, .*, .* and 9 more\?$"):
        select_tasks(known, ["vidore"])
    with pytest.raises(UnknownNameError, match=r"no group named 'I-CLSS'\. Did you mean 'I-CLS'\?"):
        select_tasks(known, groups=["I-CLSS"])
    with pytest.raises(UnknownNameError, match=r"no modality named 'sound'\. Known: image, video, visdoc"):
        select_tasks(known, modalities=["sound"])


@pytest.mark.parametrize(
    "selection",
    [{"tasks": ["text/BRIGHT/biology"]}, {"groups": ["A-TOOL"]}, {"modalities": ["text"]}],
    ids=lambda selection: "".join(selection),
)
def test_what_only_another_edition_has_says_which(selection: dict[str, list[str]]) -> None:
    with pytest.raises(UnknownNameError, match=r"no \w+ named '.*'\. It is in --edition v3 or v3-unfixed\.$"):
        choose_tasks(None, **selection)
    chosen, _ = choose_tasks("v3", **selection)
    assert chosen
    assert {registered.task.edition for registered in chosen} == {"v3"}


def test_built_in_models_come_by_entry_point() -> None:
    assert {"random", "bag_of_features", "mmemb_r1"} <= set(model_names())


def test_selection_is_a_union_in_registry_order() -> None:
    known = {name: RegisteredTask(toy_task(name), "mine") for name in ("a", "b", "c")}
    assert [one.task.name for one in select_tasks(known, ["c", "a"])] == ["a", "c"]
    assert [one.task.name for one in select_tasks(known, ["c"], ["I-CLS"])] == ["a", "b", "c"]


def test_agent_is_three_modalities_of_mmeb_v3() -> None:
    assert len(choose_tasks("v3", modalities=["agent"])[0]) == 47
    with pytest.raises(UnknownNameError, match=r"no modality named 'tool'\. It is in --edition v3 or v3-unfixed"):
        choose_tasks(None, modalities=["agent"])


def test_a_modality_is_the_benchmarks_own_and_so_is_the_default() -> None:
    """Other collections have data of their own: they are named, or their group is."""
    known = load_tasks()
    others = [one.task.name for one in known.values() if one.collection != BENCHMARK]
    assert others
    every = select_tasks(known, modalities=["image", "video", "visdoc"])
    assert len(every) == 78
    assert every == select_tasks(known)
    assert {one.task.group for one in select_tasks(known, groups=["miniworld"])} == {"miniworld"}
    both = select_tasks(known, [others[0]], modalities=["video"])
    assert [one.task.name for one in both if one.collection != BENCHMARK] == [others[0]]


def test_model_arguments_are_parsed_and_checked() -> None:
    assert load_model("random", {"dimensions": "8", "seed": "3"}, {"reasoning": None}).info.dimensions == 8
    with pytest.raises(UnknownNameError, match=r"no argument of model 'random' named 'dimension'\. Did you mean 'dim"):
        load_model("random", {"dimension": "8"}, {})
    with pytest.raises(OptionError, match="--model-arg dimensions: 'eight' is not an integer"):
        load_model("random", {"dimensions": "eight"}, {})
    with pytest.raises(OptionError, match="model 'random' has no option --reasoning; leave it out"):
        load_model("random", {}, {"reasoning": "always"})


def test_a_value_after_the_name_is_the_first_argument() -> None:
    assert load_model("random:8", {"seed": "3"}, {}).info.dimensions == 8
    assert resolve_model("random", {"seed": "3"}) == ("random", {"seed": "3"})
    assert resolve_model("random:8", {"seed": "3"}) == ("random", {"dimensions": "8", "seed": "3"})
    assert resolve_model("mmemb_r1:/a:b/c", {}) == ("mmemb_r1", {"path": "/a:b/c"})


@pytest.mark.parametrize(
    ("model", "args", "kind", "message"),
    [
        ("randm:8", {}, UnknownNameError, r"no model named 'randm'\. Did you mean 'random'\?"),
        ("random:", {}, OptionError, "model 'random:': no value of 'dimensions' after the colon"),
        ("random:x", {}, OptionError, "--model-arg dimensions: 'x' is not an integer"),
        ("random:8", {"dimensions": "8"}, OptionError, "'dimensions' is given twice, in 'random:8' and as --model-arg"),
    ],
)
def test_a_value_that_cannot_be_one(model: str, args: dict[str, str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        load_model(model, args, {})


def test_a_model_without_arguments_takes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = EntryPoint("plain", "builtins:object", registry.MODELS_GROUP)
    monkeypatch.setattr(registry, "_registered", lambda group, path: [plain])
    with pytest.raises(OptionError, match="model 'plain' takes no argument, so nothing can follow in 'plain:x'"):
        load_model("plain:x", {}, {})


def test_a_missing_argument_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = EntryPoint("needy", "builtins:object", registry.MODELS_GROUP)
    monkeypatch.setattr(registry, "_registered", lambda group, path: [needy])

    def factory(path: str, size: int, seed: int = 0) -> None: ...

    monkeypatch.setattr(EntryPoint, "load", lambda self: factory)
    with pytest.raises(OptionError, match="model 'needy' needs 'path': --model needy:VALUE, or --model-arg path=VALUE"):
        load_model("needy", {}, {})
    with pytest.raises(OptionError, match="model 'needy' needs 'size': --model-arg size=VALUE"):
        load_model("needy:x", {}, {})


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("0.5", float, 0.5),
        ("False", bool, False),
        ("yes", bool, True),
        ("none", int | None, None),
        ("7", int | None, 7),
        ("never", Literal["never", "always"], "never"),
        ("/a=b", str, "/a=b"),
    ],
)
def test_values_parse(text: str, annotation: object, value: object) -> None:
    assert parse_value("x", text, annotation) == value


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("maybe", bool, "'maybe' is not true or false"),
        ("1.5", int, "'1.5' is not an integer"),
        ("some", Literal["never", "always"], "'some' is not 'never' or 'always'"),
    ],
)
def test_values_that_do_not_parse_say_what_would(text: str, annotation: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_value("x", text, annotation)


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_package:Model", registry.MODELS_GROUP)
    monkeypatch.setattr(registry, "_registered", lambda group, path: [broken])
    with pytest.raises(ModelError, match=r"plugin 'broken' .* can't be imported: No module named 'no_such_package'"):
        load_model("broken", {}, {})


def registering(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """These entry points besides those that there are."""
    there = registry._registered
    monkeypatch.setattr(
        registry, "_registered", lambda group, path: [*there(group, path), *(p for p in points if p.group == group)]
    )


def test_a_run_of_the_benchmarks_tasks_imports_no_other_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    registering(monkeypatch, EntryPoint("mine", "no_such_module", registry.TASKS_GROUP))
    loaded: list[str] = []
    load = registry._load
    monkeypatch.setattr(registry, "_load", lambda point: (loaded.append(point.name), load(point))[1])
    chosen, known = choose_tasks(None, ["DocVQA"])
    assert [standing.task.name for standing in chosen] == ["DocVQA"]
    assert len(known) == 78
    assert len(choose_tasks(None, modalities=["video"])[0]) == 18
    assert loaded == [BENCHMARK, BENCHMARK]
    assert [standing.task.name for standing in choose_tasks(None, ["miniworld-text"])[0]] == ["miniworld-text"]
    assert set(loaded) == {BENCHMARK, "miniworld", "mixed", "mine"}


def test_names_that_are_none_are_looked_for_everywhere_and_broken_plugins_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registering(monkeypatch, EntryPoint("mine", "no_such_module", registry.TASKS_GROUP))
    told = (
        r"Did you mean 'miniworld-text'\? Can't be used: plugin 'mine' \(no_such_module\) can't be imported: No module"
    )
    with pytest.raises(UnknownNameError, match=told):
        choose_tasks(None, ["miniworld-txt"])
    with pytest.raises(UnknownNameError, match=r"no group named 'miniwrld'\. Did you mean 'miniworld'\? Can't be used"):
        choose_tasks(None, groups=["miniwrld"])


def test_a_broken_plugin_that_nobody_asks_for_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group may be missing tasks of it; the benchmark's own names can't be."""
    registering(monkeypatch, EntryPoint("mine", "no_such_module", registry.TASKS_GROUP))
    choose_tasks(None, ["DocVQA"])
    assert capsys.readouterr() == ("", "")
    assert len(choose_tasks(None, groups=["I-VG"])[0]) == 4
    told = "can't be used, and isn't asked for by name: plugin 'mine' (no_such_module) can't be imported"
    assert capsys.readouterr().err.startswith(told)


def test_results_of_other_collections_make_them_known() -> None:
    _, known = choose_tasks(None, ["DocVQA"])
    assert with_tasks(known, {"DocVQA"}, None) is known
    assert "miniworld-text" in with_tasks(known, {"DocVQA", "miniworld-text"}, None)


def test_a_plugin_that_takes_long_is_waited_for_only_by_who_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slow_tasks.py").write_text(
        "import time\nfor _ in range(3):\n    try: time.sleep(0.1)\n    except Exception: pass\n"
        "from tests.toy import toy_task\nTASKS = (toy_task('slow'),)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "IMPORT_SECONDS", 0.1)
    registering(monkeypatch, EntryPoint("mine", "slow_tasks", registry.TASKS_GROUP))
    survey = registry.survey_tasks(seconds=0.1)
    assert "DocVQA" in survey.tasks
    assert "slow" not in survey.tasks
    assert "ImportTimeout: takes longer than 0.1 s (slow_tasks.py:3" in survey.problems[0]
    assert [standing.task.name for standing in choose_tasks(None, ["slow"])[0]] == ["slow"]


def test_what_a_plugin_prints_while_it_is_imported_is_no_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud_tasks.py").write_text(
        "print('hello')\nfrom tests.toy import toy_task\nTASKS = (toy_task('loud'),)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registering(monkeypatch, EntryPoint("mine", "loud_tasks", registry.TASKS_GROUP))
    assert "loud" in load_tasks()
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("name", ["../a", "a/../b", "a/./b", "/a", "a/", "a//b", "a  b", "a\n", "a:b"])
def test_names_by_which_no_file_of_a_run_can_be_called_are_refused(name: str) -> None:
    mine = EntryPoint("mine", "my_package", registry.TASKS_GROUP)
    assert "with single spaces and / between" in str(registry._problem_of(toy_task(name), mine, {}))
    assert registry._problem_of(toy_task("text/Legal Document/TUTSound(hard)"), mine, {}) is None
