"""Plugins that can't be imported, hold what isn't asked for, or try to end the process."""

from __future__ import annotations

from tests.faults.fault import Command, Fault, World

RUN: Command = ("mmeb-eval", "run", "--model", "random", "--tasks", "DocVQA", "--limit", "4")
MODELS: Command = ("mmeb-eval", "models")
TASKS: Command = ("mmeb-eval", "tasks")
USE_MODEL: Command = ("mmeb-eval", "run", "--model", "odd", "--tasks", "DocVQA", "--limit", "4")
USE_TASK: Command = ("mmeb-eval", "run", "--model", "random", "--tasks", "odd", "--limit", "4")

#: A task of one's own that can be used.
TASK = """
from pathlib import Path
from mmeb_harness import Item, Samples, Task

def read(data, frames):
    queries = (Item("q0", text="one"), Item("q1", text="two"))
    return Samples(queries, queries, {"q0": {"q0": 1.0}, "q1": {"q1": 1.0}})

def task(name="odd", modality="image", group="odd", metric="hit@1", load=read):
    return Task(name, modality, group, metric, load, annotations=("manifest.json",))

TASKS = (task(),)
"""


def install(world: World, code: str, models: str = "", tasks: str = "", name: str = "odd") -> None:
    """A package of one module, named as itself, that registers models and tasks: NAME = OBJECT, a line each."""
    metadata = world.folder / f"{name}_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1\n")
    groups = {"mmeb_harness.models": models, "mmeb_harness.tasks": tasks}
    (metadata / "entry_points.txt").write_text("".join(f"[{group}]\n{lines}\n" for group, lines in groups.items()))
    (world.folder / f"{name}.py").write_text(code)


def _broken(name: str, code: str, says: str, *, all_commands: bool = False) -> tuple[Fault, ...]:
    """A module that is a model's and a collection's: listings and other runs go on, its own use ends in one line."""

    def fault(what: str, last: Command, says: str, exit_code: int) -> Fault:
        def make(world: World) -> list[Command]:
            install(world, code, models="odd = odd:Odd", tasks="odd = odd")
            return [last]

        return Fault("plugins", f"{name}: {what}", make, (says,), exit_code)

    faults = (
        fault("models", MODELS, rf"odd +odd-package +broken: .*{says}", 0),
        fault("its task", USE_TASK, rf"no task named 'odd'.*Can't be used: .*{says}", 2),
        fault("tasks", TASKS, rf"can't be used: .*plugin 'odd' \(odd\).*{says}", 0),
        fault("another model", RUN, r"DocVQA: hit@1", 0),
        fault("its model", USE_MODEL, says, 2),
    )
    return faults if all_commands else faults[:2]


def _encodes(code: str) -> str:
    """A model that does something over each batch."""
    return (
        "import os\nimport numpy as np\nfrom mmeb_harness import EncodeResult, ModelInfo\nclass Odd:\n"
        f"    info = ModelInfo('odd', '1', 8)\n    def encode(self, items, role):\n        {code}\n"
        "        return EncodeResult(np.eye(8, dtype=np.float32)[np.arange(len(items)) % 8])\n"
    )


def _elsewhere(world: World) -> list[Command]:
    install(world, _encodes("os.chdir('/tmp')"), models="odd = odd:Odd")
    return [(*USE_MODEL, "--output", "out")]


def _is_there(world: World) -> None:
    assert (world.folder / "out" / "tasks" / "DocVQA.json").is_file()


def _model(
    name: str,
    code: str,
    says: str,
    last: Command = USE_MODEL,
    lines: str = "odd = odd:Odd",
    ends: int | None = None,
) -> Fault:
    def make(world: World) -> list[Command]:
        install(world, code, models=lines)
        return [last]

    return Fault("plugins", name, make, (says,), (0 if last in (MODELS, RUN) else 2) if ends is None else ends)


def _task(
    name: str,
    code: str,
    says: str,
    last: Command = USE_TASK,
    lines: str = "odd = odd",
    *,
    works: bool = False,
    slow: bool = False,
) -> Fault:
    def make(world: World) -> list[Command]:
        install(world, TASK + code, tasks=lines)
        return [last]

    return Fault("plugins", name, make, (says,), 0 if works or last in (TASKS, RUN) else 2, slow=slow)


def _twice(name: str, last: Command, says: str, code: int) -> Fault:
    def make(world: World) -> list[Command]:
        install(world, TASK, models="same = odd:task", tasks="first = odd")
        install(world, TASK, models="same = other:task", tasks="second = other", name="other")
        return [last]

    return Fault("plugins", name, make, (says,), code)


def _unreadable(name: str, last: Command, says: str, code: int) -> Fault:
    """A file of entry points with a line that is none."""

    def make(world: World) -> list[Command]:
        install(world, "Odd = 3", models="odd")
        return [last]

    return Fault("plugins", name, make, (says,), code)


_TRACEBACK = r"MMEB_TRACEBACK=1 before the command shows the traceback"
FAULTS = (
    _unreadable(
        "entry points that can't be read, listed", MODELS, r"\? +\? +broken: entry points in .*odd_package-1", 0
    ),
    _unreadable("entry points that can't be read, another run", RUN, "DocVQA: hit@1", 0),
    _unreadable(
        "entry points that can't be read, its model", USE_MODEL, "no model named 'odd'.*odd_package-1.*again", 2
    ),
    _model("no place of a model", "", "what it registers is no MODULE:OBJECT", lines="odd = !!!"),
    _model("memory that ran out at import", "raise MemoryError", "broken: .*memory ran out", MODELS),
    _model(
        "an error whose text raises",
        "class Odd(Exception):\n    def __str__(self): 1 / 0\n    def __init__(self): raise self",
        r"can't be made: Odd \(odd\.py",
    ),
    _model(
        "half a character in its name",
        "from mmeb_harness import ModelInfo\nclass Odd:\n    info, encode = ModelInfo('\\ud800', '1', 8), print",
        "is no Embedder: half a character",
    ),
    _model(
        "a setting of queries that is none",
        "from mmeb_harness import ModelInfo\nclass Odd:\n    encode = print\n"
        "    info = ModelInfo('odd', '1', 8, query_settings=('mood',))",
        r"is no Embedder: query_settings \['mood'\] of its `info` are no names of settings",
    ),
    *_broken(
        "raises at import",
        "raise ValueError('no weights')",
        rf"ValueError: no weights \(odd\.py:1.*{_TRACEBACK}",
        all_commands=True,
    ),
    *_broken("sys.exit(0) at import", "import sys\nsys.exit(0)", r"called sys\.exit\(0\) \(odd\.py:2"),
    *_broken("a syntax error", "def f(:", r"SyntaxError: invalid syntax \(odd\.py, line 1\)"),
    *_broken(
        "a missing package", "import no_such_package", "No module named 'no_such_package'; is its package complete"
    ),
    _model(
        "KeyboardInterrupt at import", "raise KeyboardInterrupt", r"broken: .*KeyboardInterrupt \(odd\.py:1", MODELS
    ),
    _model(
        "an exit within a thread of imports",
        "from concurrent.futures import *\nimport sys\nThreadPoolExecutor().submit(sys.exit, 0).result()",
        r"broken: .*called sys\.exit\(0\)",
        MODELS,
    ),
    _model("no such name in it", "x = 1", "has no attribute 'Odd'; is its package complete"),
    _model("no factory", "Odd = 3", "entry point of model 'odd' is not callable"),
    _model("no factory, listed", "Odd = 3", "broken: not callable", MODELS),
    _model("makes None", "def Odd(): ...", "model 'odd' is no Embedder: NoneType has to have an `info`"),
    _model(
        "raises when made",
        "def Odd():\n    {}['key']",
        r"model 'odd' can't be made: KeyError: 'key' \(odd\.py:2, in Odd\)",
    ),
    _model("sys.exit(0) when made", "import sys\ndef Odd():\n    sys.exit(0)", r"can't be made: called sys\.exit\(0\)"),
    _model("annotations nobody knows", "def Odd(x: 'Nowhere' = 1): ...", "NameError: name 'Nowhere' is not defined"),
    _model("takes a name of ours", "raise ValueError", "DocVQA: hit@1", RUN, "random = odd:Odd"),
    _model(
        "dimensions that are no number",
        "from mmeb_harness import ModelInfo\nclass Odd:\n    info, encode = ModelInfo('odd', '1', '8'), print",
        "'8' dimensions; its `info` has to say how many",
    ),
    _model(
        "a medium that is none",
        "from mmeb_harness import ModelInfo\n"
        "class Odd:\n    info, encode = ModelInfo('odd', '1', 8, media=('images',)), print",
        r"media \('images',\) of its `info`: a tuple of image, video, audio, or of none",
    ),
    _model(
        "an info that exits",
        "import sys\nclass Odd:\n    @property\n    def info(self):\n        sys.exit(0)\n    def encode(self): ...",
        r"model 'odd' can't be made: called sys\.exit\(0\) \(odd\.py:5, in info\)",
    ),
    _model("os._exit(0) over items", _encodes("os._exit(0)"), r"called os\._exit\(0\) \(odd\.py:7, in encode\)"),
    _model("os._exit(0) at import", "import os\nos._exit(0)", r"called os\._exit\(0\) \(odd\.py:2", MODELS, ends=2),
    Fault("plugins", "another folder", _elsewhere, (r"results: out",), 0, holds=_is_there),
    _task("no tasks in it", "TASKS = ()", r"can't be used: task plugin 'odd' \(odd\) holds no Task", TASKS),
    _task("something else among its tasks", "TASKS = (task(), 3)", "holds no Task, TASKS or sequence", TASKS),
    _task(
        "a list of tasks that raises",
        "class Rows(tuple):\n    def __iter__(self): 1 / 0\nTASKS = Rows((1,))",
        r"can't be used: ZeroDivisionError",
        TASKS,
    ),
    _task("a name of the benchmark", "TASKS = (task('DocVQA'),)", "'DocVQA' is registered twice, by 'mmeb-v2'", TASKS),
    _task("a name of the benchmark, run", "TASKS = (task('DocVQA'),)", "DocVQA: hit@1", RUN),
    _task(
        "a modality that is none",
        "TASKS = (task(modality='smell'),)",
        "modality 'smell' is none of image, video",
        TASKS,
    ),
    _task("a metric that is none", "TASKS = (task(metric='acc'),)", r"Can't be used: .*metric 'acc' is none of hit@1"),
    _task("a name that is none", "TASKS = (task('a//b'),)", "task name 'a//b'", TASKS),
    _task("a name twice in one plugin", "TASKS = (task(), task())", "'odd' is registered twice, by 'odd' and 'odd'"),
    _task("takes the benchmark's collection", "raise ValueError", "DocVQA: hit@1", RUN, "mmeb-v2 = odd"),
    _task(
        "a reader that exits",
        "import sys\nTASKS = (task(load=lambda *_: sys.exit(0)),)",
        r"task 'odd' can't be read: called sys\.exit\(0\)",
    ),
    _task(
        "a reader that raises",
        "TASKS = (task(load=lambda *_: {}['a']),)",
        r"task 'odd' can't be read: KeyError: 'a' \(odd",
    ),
    _task("a reader that returns nothing", "TASKS = (task(load=lambda *_: None),)", "its reader returned NoneType"),
    _task("prints at import", "print('hello')", "odd: hit@1", works=True),
    _task(
        "takes long to import",
        "import time\ntime.sleep(60)",
        r"ImportTimeout: takes longer than 10 s \(odd",
        TASKS,
        slow=True,
    ),
    _twice("a task of two plugins", USE_TASK, "'odd' is registered twice, by 'first' and 'second'; uninstall", 2),
    _twice("a model of two plugins", MODELS, "same .*broken: model 'same' is registered more than once", 0),
)
