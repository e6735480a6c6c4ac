"""What a command does once a library is imported: pyarrow learns of pandas when there is one, and not before.

pyarrow imports pandas for the first array that it makes, to know a frame when it sees one: 0.3 s of a short command.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(name: str, then: Callable[[], object]) -> None:
    """Call `then` after a module is imported, by whomever; never, where that has happened."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _Watch(name, then))


def spare_pandas() -> None:
    """Let pyarrow make arrays without pandas, until somebody imports that. For a process that is a command alone."""
    when_imported("pyarrow", _hide_pandas)


class _Watch(MetaPathFinder):
    """Finds nothing, but hears what is looked for."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        if (spec := importlib.util.find_spec(fullname)) is None or (loader := spec.loader) is None:
            return None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module")
            execute(module)
            self._then()

        vars(loader)["exec_module"] = exec_module
        return spec


class _Hidden(MetaPathFinder):
    """Says in one thread that there is no such module."""

    def __init__(self, name: str, thread: int) -> None:
        self._name, self._thread = name, thread

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def _hide_pandas() -> None:
    """pyarrow looks once; for what can't do without, such as `to_pandas`, it looks again."""
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    hidden = _Hidden("pandas", threading.get_ident())
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
    when_imported("pandas", _show_pandas)


def _show_pandas() -> None:
    import pyarrow as pa

    pa.nulls(0).to_pandas()
