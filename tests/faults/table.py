"""All rows: each other file here but these few holds those of one kind as FAULTS."""

from __future__ import annotations

import importlib
import pkgutil

import tests.faults
from tests.faults.fault import Fault

_NO_KIND = ("fault", "table", "kills", "under", "__main__")


def all_faults() -> tuple[Fault, ...]:
    """The rows of every kind."""
    names = sorted(module.name for module in pkgutil.iter_modules(tests.faults.__path__))
    kinds = [name for name in names if name not in _NO_KIND and not name.startswith(("test_", "property_"))]
    return tuple(fault for kind in kinds for fault in importlib.import_module(f"tests.faults.{kind}").FAULTS)
