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


def without_a_process(words: Sequence[str]) -> None:
    """What `python -m MODULE WORDS…` does, here: a process of its own would import torch first, for seconds."""
    _, _, module, *arguments = words
    code: object = 0
    with patch("sys.argv", [module, *arguments]), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    assert not code, words
