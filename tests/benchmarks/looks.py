"""`python -m tests.benchmarks.looks`: what it costs to see that none of a million media files was changed.

Writes them into a temporary folder, which is removed, and prints, as medians of repeats that take turns: the seconds
that `MediaList.content` takes, those that a bare loop of os.stat over the same paths takes in the same process, and the
ratio; by the clock and, which is what an idle core would need, of the processor.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mmeb_harness import Item
from mmeb_harness.store.media_lists import MediaList

#: After which a file's times tell its next change, on a file system that knows whole seconds only.
SETTLED = 2.5


def write_files(folder: Path, files: int, a_folder: int) -> list[Path]:
    """That many small files, in folders of equal size."""
    paths = [folder / f"images-{index // a_folder:05}" / f"{index:07}.jpg" for index in range(files)]
    for parent in dict.fromkeys(path.parent for path in paths):
        parent.mkdir()
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"x")
    return paths


@dataclass(frozen=True)
class Seconds:
    """How long a call took, by the clock and of the processor."""

    clock: float
    processor: float


def seconds_of(what: Callable[[], object], files: int) -> Seconds:
    """The seconds a million files that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    what()
    scale = 1e6 / files
    return Seconds((time.perf_counter() - clock) * scale, (time.process_time() - processor) * scale)


def look_at_all(paths: Sequence[str]) -> None:
    """The bare loop."""
    for path in paths:
        os.stat(path)


def said(values: Sequence[float]) -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


@click.command(help=__doc__)
@click.option("--files", default=1_000_000, show_default=True)
@click.option("--a-folder", default=1_000, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the temporary folder is made: which disk.")
def main(files: int, a_folder: int, repeats: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="mmeb-looks-", dir=folder) as temporary:
        paths = write_files(Path(temporary), files, a_folder)
        time.sleep(SETTLED)
        listed = MediaList(Path(temporary), "benchmark")
        listed.write((Item(path.name, images=(path,)) for path in paths), "content")
        assert listed.content() == "content"
        texts = [str(path) for path in paths]
        looks: list[Seconds] = []
        bare: list[Seconds] = []
        for _ in range(repeats):
            looks.append(seconds_of(listed.content, files))
            bare.append(seconds_of(lambda: look_at_all(texts), files))
        for name, seconds in {"MediaList.content": looks, "a loop of os.stat": bare}.items():
            clock, processor = ([getattr(each, kind) for each in seconds] for kind in ("clock", "processor"))
            click.echo(
                f"{name}, seconds a million files: {said(processor)} of the processor, {said(clock)} by the clock"
            )
        ratios = [ours.processor / theirs.processor for ours, theirs in zip(looks, bare, strict=True)]
        click.echo(f"ratio, of the processor: {said(ratios)}")
        with open(paths[-1], "ab") as file:
            file.write(b"y")
        assert listed.content() is None


if __name__ == "__main__":
    main()
