"""A model of one's own by its file, `FILE.py`, `FILE.py:CLASS` or `FILE.py:CLASS:VALUE`: no package, nothing installed.

What the file holds is part of the model's revision, so that results of an earlier version of it don't count.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import ModelError, OptionError, UnknownNameError
from mmeb_harness.core.plugins import importing

_MODEL = re.compile(r"(?P<path>[^:]+\.py)(?::(?P<rest>.*))?", re.DOTALL)


def is_file_model(model: str) -> bool:
    """Whether a model is named by a file; names of plugins never end so."""
    return _MODEL.fullmatch(model) is not None


def split_file_model(model: str) -> tuple[str, str, str]:
    """`PATH:CLASS` with an absolute path and the class that is meant, a colon or "", and VALUE.

    Raises:
        OptionError: no such file, or more than one class that may be meant.
        ModelError: as `importing`; or it holds no model.
    """
    path, rest = _path_and_rest(model)
    attribute, colon, value = rest.partition(":")
    return f"{path}:{attribute or _only_model(path)}", colon, value


def readable_parts(model: str) -> tuple[str, str]:
    """NAME and VALUE to name a folder of results by; of a file NAME is STEM-CLASS."""
    if not is_file_model(model):
        name, _, value = model.partition(":")
        return name, value
    named, _, value = split_file_model(model)
    path, attribute = _path_and_rest(named)
    return f"{path.stem}-{attribute}", value


def file_factory(model: str) -> Any:
    """What makes the model of `PATH:CLASS`.

    Raises:
        UnknownNameError: nothing in the file has that name; the nearest is suggested.
        ModelError: as `importing`.
    """
    path, attribute = _path_and_rest(model)
    module = _module_of(path)
    names = vars(module)
    if attribute not in names:
        own = (name for name, value in names.items() if _is_of(value, module) and not name.startswith("_"))
        raise UnknownNameError(f"class or function in {path.name}", attribute, own)
    return names[attribute]


def content_mark(model: str) -> str:
    """Short hash of what the model's file holds; "" of a model that is registered."""
    return _digest(_path_and_rest(model)[0].read_bytes()) if is_file_model(model) else ""


def sign(embedder: Embedder, mark: str) -> None:
    """Add what the model's file held when it was read to its revision.

    Raises:
        ModelError: its `info` can't be set.
    """
    signed = dataclasses.replace(embedder.info, revision=f"{embedder.info.revision}+{mark}")
    try:
        setattr(embedder, "info", signed)  # noqa: B010 - a property to who reads it
    except AttributeError as error:
        raise ModelError(
            f"`info` of {type(embedder).__name__} can't be set ({error}): set `self.info` in `__init__`, since what "
            "its file holds becomes part of the revision"
        ) from error


def files_like(name: str) -> list[str]:
    """Files of Python that may be meant by a name that no model has."""
    entries = sorted(os.listdir(name)) if os.path.isdir(name) else []
    inside = [os.path.join(name, entry) for entry in entries if entry.endswith(".py") and entry[0] != "_"]
    return [path for path in (f"{name}.py", *inside) if os.path.isfile(path)]


def _path_and_rest(model: str) -> tuple[Path, str]:
    match = _MODEL.fullmatch(model)
    assert match is not None
    path = Path(match["path"]).expanduser().resolve()
    if not path.is_file():
        raise OptionError(f"model {model!r}: there is no file {path}")
    return path, match["rest"] or ""


def _only_model(path: Path) -> str:
    """The one class with `encode` that the file itself defines."""
    module, file = _module_of(path), path.name
    names = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and _is_of(value, module) and callable(getattr(value, "encode", None))
    ]
    if len(names) == 1:
        return names[0]
    if names:
        raise OptionError(f"{file} has several classes with `encode`: {', '.join(names)}; say which: {file}:{names[0]}")
    raise ModelError(f"{file} has no class with a method `encode`; of a function that makes the model: {file}:FUNCTION")


def _is_of(value: object, module: ModuleType) -> bool:
    """Whether a module defines it, not only imports it."""
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:8]


def _packages(path: Path) -> list[Path]:
    """The packages that the file is in, the outermost first: folders with an `__init__.py`."""
    inner = path.parent
    return [*_packages(inner), inner] if (inner / "__init__.py").is_file() else []


def _module_of(path: Path) -> ModuleType:
    return _module_with(path, path.read_bytes())


@functools.cache
def _module_with(path: Path, source: bytes) -> ModuleType:
    """The file as a module; modules beside it, and relative ones of its package, can be imported.

    Its name is its own, whatever else is called so, and the same in every process. It is compiled here: by the time of
    its last change Python would take what it compiled a moment before.
    """
    packages = _packages(path)
    name = ".".join([*(folder.name for folder in packages), f"{path.stem.replace('.', '_')}_{_digest(source)}"])
    if (folder := str([*packages, path][0].parent)) not in sys.path:
        sys.path.append(folder)  # last: no module of the harness is hidden by one that lies there
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with importing(f"{path.name} can't be imported"):
        sys.modules[name] = module
        try:
            exec(compile(source, str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return module
