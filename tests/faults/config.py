"""Configuration files that say what nobody can mean, and words of YAML that mean what they say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.faults.fault import Command, Fault, World

RUN = ("mmeb-eval", "run", "--config", "run.yaml", "--tasks", "DocVQA", "--limit", "2")
PIPELINE = ("mmemb-r1", "pipeline", "--config", "run.yaml", "--output", "out")


def _file(name: str, write: Callable[[Path], object], *says: str, command: Command = RUN, code: int = 2) -> Fault:
    """The row of one configuration file; what needs torch takes some seconds."""

    def make(world: World) -> list[Command]:
        write(world.folder / "run.yaml")
        return [command]

    return Fault("config", name, make, says, code, slow=command[0] == "mmemb-r1")


def _config(text: bytes, *says: str, code: int = 2) -> Fault:
    return _file(repr(text[:40]), lambda path: path.write_bytes(text), *(r"run\.yaml", *says)[code == 0 :], code=code)


def _argument(scalar: str, *says: str, name: str = "seed", code: int = 2) -> Fault:
    """What a file and the command line make of one argument of the model."""
    text = f"model: random\nmodel_args: {{{name}: {scalar}}}\n"
    return _file(f"model_args: {name}: {scalar}", lambda path: path.write_text(text), *says, code=code)


def _set(value: str, *says: str) -> Fault:
    command = (*PIPELINE, "--set", value)
    return _file(f"--set {value[:40]}", lambda path: path.write_text("a: 1\n"), *says, command=command)


def _refused() -> tuple[Fault, ...]:
    bomb = b"a: &a [x, x, x, x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % m] * 9))
        for m, n in zip(b"abcdefghij", b"bcdefghijk", strict=True)
    )
    return (
        _config(b"model: random\nworkers: many\n", "workers must be int"),
        _config(b"", "must be a mapping"),
        _config(b"- random\n", "must be a mapping"),
        _config(b"model: random\nseed: 1\nmodel: clip\n", "'model' is there twice"),
        _config("model: r\xe4ndom\n".encode("latin-1"), "in UTF-8"),
        _config("model: random\n".encode("utf-32"), "in UTF-8"),
        _config(b"model: ran\x00dom\n", "special characters"),
        _config(bomb, "aliases stand for more than"),
        _config(b"model: &m [*m]\n", "holds itself"),
        _config(b"[" * 20_000, "nested too deep"),
        _config(b"model: random\nlimit: " + b"9" * 5_000, "limit must be int"),
        _config(b"model: random\nlimit: 010\n", "limit must be int, not '010'"),
        _config(b"model: random\nfresh: maybe\n", "fresh must be bool"),
        _config(b"model: !!python/object:os.system x\n", "write the value without it"),
        _config(b"model: random\n# " + b"x" * (2 << 20), "are no configuration"),
        _file("a pipe", lambda path: os.mkfifo(path), r"run\.yaml", "named pipe"),
        _file("a folder", lambda path: path.mkdir(), r"run\.yaml"),
        _file("a link to itself", lambda path: path.symlink_to(path), r"run\.yaml"),
        _file("nothing there", lambda path: None, r"run\.yaml"),
        _file("a pipeline of another kind", lambda path: path.write_text("train: [off]\n"), "lacks 'data'",
              command=PIPELINE),
        _set("train.loop.steps=[", "--set"),
        _set("a=&x [*x]", "holds itself"),
        _set("train.loop.steps=" + "[" * 3_000, "nested too deep"),
    )  # fmt: skip


FAULTS = (
    *_refused(),
    _config(b"model: random\nfresh: off\nlimit: 1_000\n", "DocVQA", code=0),
    _argument("off", "'off' is not an integer"),
    _argument("1e3", "'1e3' is not an integer"),
    _argument("2026-01-31", "'2026-01-31' is not an integer"),
    _argument("true", "'true' is not an integer"),
    _argument("0012", "DocVQA", code=0),
    _argument("1_0", "DocVQA", code=0),
    _argument("[1]", r"model_args\.seed must be str, not \[1\]"),
    _argument("off", "no argument of model 'random' named 'on'", name="on"),
)
