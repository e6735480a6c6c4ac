"""Machines without what libraries take for granted: a home, a name, a folder, memory, descriptors, tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from tests.faults.fault import Command, Fault, World
from tests.faults.under import under
from tests.test_architecture import PACKAGES

_RUN = ("run", "--model", "random", "--tasks", "SUN397", "--limit", "1", "--output", "out")
_NO_NAME = """
import pwd
def unknown(number): raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"): os.environ.pop(name, None)
"""
_NO_CACHE = "os.environ.pop('MMEB_CACHE', None); os.environ.pop('XDG_CACHE_HOME', None)\n"
_GONE = "os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())"
#: As a container sets it, which counts what is there already.
_LITTLE_MEMORY = """
held = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (held + {more}, held + {more}))
"""


def _row(
    name: str,
    conditions: str,
    *says: str,
    code: int = 2,
    words: Sequence[str] = _RUN,
    environment: Mapping[str, str] | None = None,
    holds: Callable[[World], None] | None = None,
    anew: bool = False,
) -> Fault:
    def make(world: World) -> list[Command]:
        return [under(world, conditions, words, anew=anew)]

    return Fault("environment", name, make, says=says, code=code, environment=environment or {}, holds=holds, slow=anew)


def _fine(name: str, conditions: str, **more: Mapping[str, str]) -> Fault:
    """A run that goes well all the same."""
    return _row(name, conditions, r"results: out", code=0, holds=_is_whole, **more)  # type: ignore[arg-type]


def _is_whole(world: World) -> None:
    assert (world.folder / "out" / "run.json").is_file()
    assert not list(world.folder.glob("~*")), "a folder of that name was made"


def _tool(name: str, program: str, conditions: str = "") -> Fault:
    """A driver's tool that is none."""

    def make(world: World) -> list[Command]:
        tool = world.folder / "nvidia-smi"
        tool.write_text(program)
        tool.chmod(0o755)
        paths = f"os.environ['PATH'] = {str(world.folder)!r} + ':' + os.environ['PATH']\n"
        return [under(world, paths + conditions, _RUN)]

    return Fault("environment", name, make, says=(r"results: out",), code=0, holds=_is_whole)


def _beside_the_code() -> Fault:
    """Package folders may be read-only: nothing is written there."""
    before: list[set[str]] = []

    def there() -> set[str]:
        files = (path for package in PACKAGES.values() for path in package.rglob("*"))
        return {str(path) for path in files if "__pycache__" not in path.parts}

    def make(world: World) -> list[Command]:
        before.append(there())
        return [("mmeb-eval", *_RUN)]

    def holds(world: World) -> None:
        assert there() == before[-1]

    return Fault("environment", "package folders that can't be written", make, (r"results: out",), 0, holds=holds)


_IN_A_FILE = ("run", "--model", "random", "--tasks", "SUN397", "--output")

FAULTS = (
    _row("no home, no name, no cache", _NO_NAME + _NO_CACHE, r"no home folder is known.*HOME.*MMEB_CACHE"),
    _row("a data folder below no home", _NO_NAME, r"no home folder", words=(*_RUN, "--data", "~/data")),
    _fine("no home, no name", _NO_NAME),
    _row("a home that is a file", _NO_CACHE, r"/dev/null.*MMEB_CACHE", environment={"HOME": "/dev/null"}),
    _row("a cache that can't be made", "", r"/proc/none.*MMEB_CACHE", environment={"MMEB_CACHE": "/proc/none"}),
    _row("a cache of XDG that can't be made", "os.environ.pop('MMEB_CACHE')", r"/proc/none.*MMEB_CACHE", environment={"XDG_CACHE_HOME": "/proc/none"}),
    _row("a folder that is gone", _GONE, r"folder .* is gone; cd to one that exists"),
    _row("a folder that is gone, for a list", _GONE, r"is gone; cd", words=("tasks",)),
    _row("no temporary folder", "import tempfile; tempfile.tempdir = None; tempfile._candidate_tempdir_list = lambda: ['/proc/none']", r"set TMPDIR", words=("check", "random")),
    _fine("TMPDIR that is missing", "", environment={"TMPDIR": "/proc/none"}),
    _row("few descriptors", "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))", r"ulimit -n"),
    _row("files of 600 bytes at most", "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))", r"(ulimit -f|File too large|space)"),
    _row("no memory to begin with", "resource.setrlimit(resource.RLIMIT_AS, (60 << 20,) * 2)", r"error: .*ulimit -v.*128", anew=True),
    _row("no memory for numpy", "resource.setrlimit(resource.RLIMIT_AS, (135 << 20,) * 2)", r"error: .*ulimit -v", anew=True),
    _row("no memory for tables", "resource.setrlimit(resource.RLIMIT_AS, (220 << 20,) * 2)", r"error: .*ulimit -v", anew=True),
    _row("no memory for torch", "resource.setrlimit(resource.RLIMIT_AS, (600 << 20,) * 2)", r"error: .*ulimit -v", anew=True, words=("run", "--model", "mmemb_r1", "--tasks", "SUN397")),
    _row("an output below a file", "open('file', 'w')", r"file/out", words=(*_IN_A_FILE, "file/out")),
    _row("an output on a system's own disk", "", r"/proc/out", words=(*_IN_A_FILE, "/proc/out")),
    _row("vectors below a file", "open('file', 'w')", r"file/v", words=(*_RUN, "--vectors", "file/v")),
    _row("a name longer than a disk takes", "", r"name", words=(*_IN_A_FILE, "x" * 300)),
    _row("an output that is a loop of links", "os.symlink('b', 'a'); os.symlink('a', 'b')", r"\ba\b", words=(*_IN_A_FILE, "a/out")),
    _row("an output whose name is no UTF-8", "", r"no UTF-8: rename it", words=(*_IN_A_FILE, "x\udcff")),
    _fine("no programs at all", "", environment={"PATH": "/proc/none"}),
    _tool("a driver's tool that hangs", "#!/bin/sh\nexec sleep 30\n", "from mmeb_harness.core import environment\nenvironment.TOOL_SECONDS = 0.2"),
    _tool("a driver's tool that is no program", "\x7fELF"),
    _tool("a driver's tool that prints no text", "#!/bin/sh\nprintf '\\377\\376'\n"),
    _tool("a driver's tool that fails", "#!/bin/sh\necho broken >&2; exit 9\n"),
    _beside_the_code(),
    dataclasses.replace(_row("Python without docstrings", "os.environ['PYTHONOPTIMIZE'] = '2'", r"mmemb_r1 ", code=0, words=("models",), anew=True)),
    _row("a locale without letters beyond ASCII", "os.environ.update(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')", r"PYTHONUTF8=1", words=(*_IN_A_FILE, "é漢", "--limit", "1"), anew=True),
)  # fmt: skip
