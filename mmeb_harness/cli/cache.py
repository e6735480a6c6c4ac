"""`mmeb-eval cache show | check | prune`: stored vectors, which runs share.

As in `cli`: options become values, and heavy imports stay inside the commands.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import print_table
from mmeb_harness.core.errors import OptionError, UnknownNameError, counted
from mmeb_harness.core.files import readable_size
from mmeb_harness.core.terminal import say

if TYPE_CHECKING:
    from mmeb_harness.store.description import Description
    from mmeb_harness.store.upkeep import ModelStore

DEFAULT_VECTORS = "runs/.vectors"

_vectors_option = click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    default=DEFAULT_VECTORS,
    show_default=True,
    metavar="FOLDER",
    help="Where runs keep their vectors.",
)
_model_option = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Of this model only: its name, or a fingerprint as `show` prints it; may be repeated.",
)


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show, check and prune stored vectors. Without a command: show those in runs/.vectors."""
    if context.invoked_subcommand is None:
        context.invoke(show)


@cache.command()
@_vectors_option
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="The same, to a file.")
def show(vectors: Path, json_file: Path | None) -> None:
    """List the models whose vectors are kept, and what they take."""
    from mmeb_harness.core.files import write_json
    from mmeb_harness.store.upkeep import model_folders, survey

    stores = [survey(folder, description) for folder, description in model_folders(vectors).items()]
    if stores:
        header = ("model", "revision", "fingerprint", "items", "size", "chunks", "written", "")
        print_table(header, [_row(store) for store in stores])
    items = sum(store.items or 0 for store in stores)
    size = readable_size(sum(store.size for store in stores))
    say(f"{counted(len(stores), 'model')}, {counted(items, 'item')}, {size} in {vectors}")
    if json_file is not None:
        write_json(json_file, [_values(store) for store in stores])


@cache.command()
@_vectors_option
@_model_option
def check(vectors: Path, models: Sequence[str]) -> None:
    """Read all vectors: can they be read, are they what was written, finite, and of unit length?

    Exit code 1 if anything is wrong.
    """
    from mmeb_harness.store.upkeep import check as check_store
    from mmeb_harness.store.upkeep import check_media, survey

    wrong = 0
    for folder, description in _chosen(vectors, models).items():
        store = survey(folder, description)
        if not store.is_current:
            say(f"other  {folder}: store version {store.description.version}, not read by this release")
            continue
        problems = check_store(store)
        mark = "WRONG" if problems else "ok   "
        say(
            f"{mark}  {folder}: {_name(store)}, {counted(store.items or 0, 'item')} in {counted(store.chunks, 'chunk')}"
        )
        for problem in problems:
            say(f"       {problem}")
        wrong += len(problems)
    for problem in check_media(vectors):
        say(f"WRONG  {problem}")
        wrong += 1
    if wrong:
        say(f"mend: mmeb-eval cache prune --broken --vectors {vectors}")
        sys.exit(1)


@cache.command()
@_vectors_option
@_model_option
@click.option("--older-than", type=click.FloatRange(0), metavar="DAYS", help="Models that no run used for DAYS.")
@click.option("--broken", is_flag=True, help="What `check` finds wrong, runs set aside, or killed processes left.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(vectors: Path, models: Sequence[str], older_than: float | None, broken: bool, dry_run: bool) -> None:
    """Delete vectors: what the options name, of the models named (default: of all). --model alone: all of its vectors.

    What a run is using is left alone, and the exit code is then 1. What is deleted is encoded again when it is needed.
    """
    from mmeb_harness.store.upkeep import prune as prune_stores
    from mmeb_harness.store.upkeep import prune_media

    if older_than is not None and math.isnan(older_than):
        raise OptionError("--older-than nan is no number of days; write e.g. --older-than 30")
    if older_than is None and not broken:
        if not models:
            raise OptionError("nothing to prune: name a --model, or say --older-than DAYS or --broken")
        older_than = 0.0
    pruned = list(prune_stores(_chosen(vectors, models), unused_days=older_than, broken=broken, dry_run=dry_run))
    if broken and not models:
        pruned += prune_media(vectors, dry_run=dry_run)
    for part in pruned:
        verb = "skipped" if part.in_use else "would go" if dry_run else "pruned"
        say(f"{verb}: {part.what}" + ("" if part.in_use else f" ({readable_size(part.size)})"))
    freed = readable_size(sum(part.size for part in pruned))
    say(f"{freed} {'would be free' if dry_run else 'freed'} in {vectors}")
    if any(part.in_use for part in pruned):
        sys.exit(1)


def _chosen(vectors: Path, models: Sequence[str]) -> dict[Path, Description]:
    """The folders of the named models; all if none is named.

    Raises:
        UnknownNameError: of a name that none has.
    """
    from mmeb_harness.store.upkeep import model_folders

    folders = model_folders(vectors)
    names = {folder: {folder.name, description.name} - {""} for folder, description in folders.items()}
    known = set().union(*names.values())
    for name in models:
        if name not in known:
            raise UnknownNameError("model with vectors here", name, known)
    return {folder: folders[folder] for folder in folders if not models or names[folder] & set(models)}


def _row(store: ModelStore) -> tuple[str, ...]:
    remarks = [f"{len(store.broken)} broken files"] if store.broken else []
    remarks += [f"{store.set_aside} set aside as broken"] if store.set_aside else []
    remarks += [] if store.is_current else [f"store version {store.description.version}: not used by this release"]
    return (
        _name(store),
        store.description.revision[:12],
        store.folder.name,
        "-" if store.items is None else f"{store.items:,}",
        readable_size(store.size),
        f"{store.chunks:,}",
        _day(store.written),
        ", ".join(remarks),
    )


def _values(store: ModelStore) -> dict[str, Any]:
    described = store.description
    return {
        "folder": str(store.folder),
        "store_version": described.version,
        "model": described.name,
        "revision": described.revision,
        "dimensions": described.dimensions,
        "similarity": described.similarity,
        "items": store.items,
        "bytes": store.size,
        "chunks": store.chunks,
        "broken": list(store.broken),
        "set_aside": store.set_aside,
        "written": store.written,
        "used": store.used,
    }


def _name(store: ModelStore) -> str:
    return store.description.name or "(unnamed)"


def _day(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
