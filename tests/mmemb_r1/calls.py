"""`mmemb-r1` called in this process, and what it starts as well."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections.abc import Sequence
from unittest.mock import patch

from click.testing import CliRunner

from mmemb_r1_model.cli import cli


def call(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run_module(module: str, arguments: Sequence[str]) -> None:
    """What `python -m MODULE ARGUMENTS…` does, in this process."""
    code: object = 0
    with patch("sys.argv", [module, *arguments]):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    assert not code, (module, arguments)


def without_a_process(words: Sequence[str]) -> None:
    """A Python command, run here: a process of its own would import torch first, for seconds."""
    _, _, module, *arguments = words
    with contextlib.redirect_stdout(io.StringIO()):
        run_module(module, arguments)
