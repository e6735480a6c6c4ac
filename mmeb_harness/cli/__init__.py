"""The command line: options become values, values become a table or a page. One file a group of commands."""

from mmeb_harness.cli.commands import cli, main

__all__ = ["cli", "main"]
