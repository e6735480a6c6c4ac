"""`mmemb-r1` called in this process."""

from __future__ import annotations

from click.testing import CliRunner

from mmemb_r1_model.cli import cli


def call(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
