"""Options that several commands of `mmeb-eval` share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mmeb_harness.core.embedder import MODES
from mmeb_harness.core.errors import OptionError, UnknownNameError
from mmeb_harness.core.terminal import say
from mmeb_harness.core.trackers import TRACKERS

#: Modes of reasoning, as they are listed.
MODE_NAMES = tuple(sorted(MODES))

PATH = click.Path(path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any])


def names(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Comma-separated names, of an option that may be repeated; none at all would mean all there are."""
    named = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    if values and not named:
        raise click.BadParameter(f"{values[0]!r} names nothing; leave the option out, or name some")
    return named


def modes(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Comma-separated modes of reasoning, each once.

    Raises:
        UnknownNameError: one that isn't there.
    """
    named = names(_context, _parameter, values)
    if unknown := next((mode for mode in named if mode not in MODE_NAMES), None):
        raise UnknownNameError("mode", unknown, MODE_NAMES)
    return tuple(dict.fromkeys(named))


def arguments(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` pairs, one a word or several behind commas; dashes in a key become underscores.

    A comma that no KEY= follows belongs to the value.
    """
    pairs: dict[str, str] = {}
    for pair in (pair for value in values for pair in re.split(r",(?=[A-Za-z_][\w-]*=)", value)):
        key, equals, text = pair.partition("=")
        key = key.replace("-", "_")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        if pairs.setdefault(key, text) != text:
            raise click.BadParameter(f"{key!r} is given twice, as {pairs[key]!r} and as {text!r}")
    return pairs


#: What commands read of a folder: a run's files, and an official evaluation's.
_READ = ("run.json", "tasks/**/*", "queries/**/*", "candidates/**/*", "**/*_score.json", "**/*_pred.jsonl")


def check_not_read(option: str, output: Path | None, inputs: Iterable[Path]) -> None:
    """Refuse to write over what the same command reads.

    Args:
        inputs: files, and folders of runs or of official results.

    Raises:
        OptionError: the output is one of them, or a file in one that is read.
    """
    read = (file for path in inputs for file in (path, *(file for name in _READ for file in path.glob(name))))
    if output is not None and (same := [file for file in read if file.resolve() == output.resolve()]):
        raise OptionError(f"{option} {output} would overwrite {same[0]}, which is read; name another file")


def options(*wanted: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(wanted):
            command = option(command)
        return command

    return decorate


selection_options = options(
    click.option("--tasks", multiple=True, callback=names, help="Task names, comma-separated; these options add up."),
    click.option("--groups", multiple=True, callback=names, help="Groups, e.g. I-CLS,V-QA."),
    click.option(
        "--modality", "modalities", multiple=True, callback=names, help="E.g. image,visdoc; text is in --edition v3."
    ),
    click.option("--edition", help="page-fixed (default), v2.0.0 for old tables, v3 (MMEB-V3) or v3-unfixed."),
)

model_options = options(
    click.option(
        "--model-arg",
        "--model-args",
        "model_args",
        multiple=True,
        callback=arguments,
        metavar="KEY=VALUE[,…]",
        help="Arguments of the model itself, e.g. path=…,size=2; may be repeated.",
    ),
    click.option(
        "--reasoning",
        multiple=True,
        callback=modes,
        metavar="MODE[,…]",
        help="When queries write a rationale first: never, always, adaptive; of several each is run.",
    ),
    click.option("--candidate-reasoning", type=click.Choice(MODE_NAMES), help="The same for candidates."),
    click.option("--device", help="auto, cpu, cuda, cuda:1 …"),
    click.option("--dtype", help="auto, float32, bfloat16, float16."),
    click.option("--trust-remote-code", is_flag=True, default=None, help="Let a checkpoint run its own Python code."),
)


track_option = click.option(
    "--track",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Give the run's summary to a tracker as well; may be repeated. Default: to none.",
)

#: Wherever runs are shown by their names.
label_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="RUN=NAME",
    help="Show a run, by its folder or its name, as NAME; may be repeated.",
)

#: What is evaluated, and on what.
run_options = options(
    click.option("--model", help="NAME or NAME:VALUE of `mmeb-eval models`, or FILE.py. Default: mmemb_r1."),
    model_options,
    selection_options,
    click.option("--data", metavar="FOLDER", help="Data folder. Default: the mini suite, made on first use."),
    click.option("--frames", type=int, metavar="N", help="Frames of a video to show. Default: the model's own choice."),
    click.option(
        "--audio-seconds",
        type=float,
        metavar="S",
        help="Seconds of a sound, from its start. Default: the model's, or 30.",
    ),
)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned plain text: fits a pipe as well as a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
