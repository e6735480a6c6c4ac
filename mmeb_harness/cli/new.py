"""`mmeb-eval new`: writes a filled-in example of one's own that runs at once, to be changed from there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from mmeb_harness.cli.options import PATH
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.terminal import say

#: What is written, under the names it has there; docs/plugins.md shows the same.
EXAMPLES = Path(__file__).with_name("new_files")


@click.group()
def new() -> None:
    """Write an example of your own that runs at once."""


@new.command()
@click.argument("folder", type=PATH)
@click.option("--reasons", is_flag=True, help="One that may write a rationale before it embeds.")
def model(folder: Path, reasons: bool) -> None:
    """Write a model of your own into FOLDER, and what installs it; both are called as FOLDER is.

    Pictures, clips, mixed items, roles and instructions; with --reasons gates and rationales. It passes `mmeb-eval
    check` and runs; put your network where its random one is.
    """
    example, shown = ("my_reasoner", "MyReasoner") if reasons else ("my_model", "MyModel")
    name = module_name(folder)
    code, project = (_example(f"{file}.txt") for file in (f"{example}.py", "pyproject.toml"))
    files = {
        f"{name}.py": code.replace(example, name),
        "pyproject.toml": project.replace("MyModel", shown).replace("my_model", name),
    }
    write_new(folder, files)
    file = shlex.quote(str(folder / f"{name}.py"))
    say(f"next: mmeb-eval check {file}")
    say(f"      mmeb-eval run --model {file}")
    say(f"      pip install -e {shlex.quote(str(folder))}   # then its name, {name}, does")


def module_name(folder: Path) -> str:
    """A folder's name as that of a module.

    Raises:
        OptionError: nothing of it can be, or a model that is registered is called so.
    """
    from mmeb_harness.core.registry import model_names

    name = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower()
    if not name or name[0].isdigit():
        raise OptionError(f"{folder}: a model is called as its folder is; name one that begins with a letter")
    if name in model_names():
        raise OptionError(f"{folder}: a model {name!r} is registered already; name another folder")
    return name


def write_new(folder: Path, files: dict[str, str]) -> None:
    """Write files, by name, into a folder; none of them if one is there.

    Raises:
        OptionError: one is.
    """
    from mmeb_harness.core.files import make_folder, write_text

    if there := [name for name in files if (folder / name).exists()]:
        raise OptionError(f"{folder / there[0]} is there already; name another folder")
    make_folder(folder)
    for name, text in files.items():
        write_text(folder / name, text)
    say(f"written: {', '.join(str(folder / name) for name in files)}")


def _example(name: str) -> str:
    return (EXAMPLES / name).read_text(encoding="utf-8")


@new.command()
@click.argument("folder", type=PATH)
def dataset(folder: Path) -> None:
    """Write an example of each form of own data into FOLDER, a sub-folder each.

    Any of them runs at once: mmeb-eval run --data FOLDER/retrieval. Replace its rows by yours, and
    mmeb-eval check --data says what is wrong with them, with file and line.
    """
    from mmeb_harness.core.errors import DataError
    from mmeb_harness.core.files import make_folder
    from mmeb_harness.core.registry import folder_formats

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already and not an empty folder; name another one")
    for form in folder_formats():
        make_folder(folder / form.name)
        form.write_example(folder / form.name)
        say(f"{folder / form.name}: {form.files}")
    example = shlex.quote(str(folder / "retrieval"))
    say(f"next: mmeb-eval run --model bag_of_features --data {example}, and mmeb-eval check --data {example}")
