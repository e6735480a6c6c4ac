"""`python -m tests.rooms`: the rooms of the two large packages, who imports whom, and what one run walks through.

A room is a folder of a package, or a file that stands beside the folders. An arrow is an import between two rooms,
late and type-only imports included. A floor is the length of the longest way down to a room that imports no other.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PACKAGES = ("mmeb_harness", "mmemb_r1_model")

Arrows = Mapping[str, Mapping[str, set[str]]]

#: Runs one evaluation under a profile function and prints the modules of ours in which a function ran.
WALK = """
import inspect, sys, threading
ran = set()
def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<"):
        ran.add(frame.f_globals.get("__name__", ""))
threading.setprofile(note)
sys.setprofile(note)
from mmeb_harness.cli import cli
cli(sys.argv[1:], standalone_mode=False)
sys.setprofile(None)
ours = ("mmeb_harness", "mmeb_tasks", "mmeb_baselines", "mmemb_r1_model")
print("WALKED", *sorted(name for name in ran if name.split(".")[0] in ours))
"""


def room_of(module: str, root: Path) -> str:
    """The room in which a module stands: the folders of its dotted name, or the file at the top."""
    folder, rooms = root / module.split(".")[0], []
    for part in module.split(".")[1:]:
        folder /= part
        if not folder.is_dir():
            break
        rooms.append(part)
    return ".".join(rooms or module.split(".")[1:2])


@functools.cache
def imports_in(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """What a file imports, wherever in it the import stands; each file is parsed once."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported_modules(path: Path, root: Path) -> Iterator[str]:
    """Dotted names of what a file imports."""
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.module:
            for alias in node.names:
                inner = root.joinpath(*node.module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def file_of(module: str, root: Path) -> str:
    """The file in which a module stands: each is a place of its own."""
    return module


def arrows_of(package: str, root: Path = ROOT, place_of: Callable[[str, Path], str] = room_of) -> Arrows:
    """Room → room it imports → the imports, as "module -> module". The package's own file is no room.

    Args:
        place_of: module, root → what counts as a room.
    """
    arrows: dict[str, dict[str, set[str]]] = {}
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if module == package:
            continue
        room = place_of(module, root)
        arrows.setdefault(room, {})
        for imported in imported_modules(path, root):
            if imported.split(".")[0] == package and imported != package and place_of(imported, root) != room:
                arrows[room].setdefault(place_of(imported, root), set()).add(f"{module} -> {imported}")
    return arrows


def circles_of(arrows: Arrows) -> list[list[str]]:
    """Groups of rooms that can reach each other."""
    reach = {room: _reachable(room, arrows) for room in arrows}
    groups = {tuple(sorted(other for other in reach[room] if room in reach.get(other, ()))) for room in arrows}
    return [list(group) for group in sorted(groups) if group]


def _reachable(room: str, arrows: Arrows) -> set[str]:
    reached: set[str] = set()
    waiting = list(arrows.get(room, ()))
    while waiting:
        if (other := waiting.pop()) not in reached:
            reached.add(other)
            waiting += arrows.get(other, ())
    return reached


def floors_of(arrows: Arrows) -> dict[str, int]:
    """Room → its floor, from 1; rooms of one circle stand on one floor."""
    reach = {room: _reachable(room, arrows) for room in arrows}
    floors: dict[str, int] = {}
    for room in sorted(arrows, key=lambda room: len(reach[room])):
        below = [floors[other] for other in reach[room] if other in floors and room not in reach[other]]
        floors[room] = 1 + max(below, default=0)
    return floors


def walked_modules(root: Path = ROOT) -> list[str]:
    """Modules of ours in which a function ran during `run --model random --tasks DocVQA`."""
    paths = ":".join(str(root / folder) for folder in (".", "tasks", "baselines"))
    command = [sys.executable, "-c", WALK, "run", "--model", "random", "--tasks", "DocVQA"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--output", f"{folder}/run"]
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("WALKED")).split()[1:]


@click.command()
@click.option("--checkout", type=click.Path(exists=True, path_type=Path), default=ROOT, help="Another checkout.")
@click.option("--list", "listed", is_flag=True, help="Every arrow, and every module walked through.")
def main(checkout: Path, listed: bool) -> None:
    """Print what was counted."""
    root = checkout.resolve()
    for package in PACKAGES:
        arrows = arrows_of(package, root)
        floors = floors_of(arrows)
        count = sum(len(imported) for imported in arrows.values())
        circles = circles_of(arrows)
        click.echo(
            f"{package}: {len(arrows)} rooms, {max(floors.values())} floors, {count} arrows, {len(circles)} circles"
        )
        for room in sorted(arrows, key=lambda room: (floors[room], room)) if listed else ():
            click.echo(f"  {floors[room]}  {room}: {', '.join(sorted(arrows[room])) or '-'}")
    walked = walked_modules(root)
    click.echo(f"run --model random --tasks DocVQA: a function ran in {len(walked)} modules of ours")
    if listed:
        click.echo("  " + "\n  ".join(walked))


if __name__ == "__main__":
    main()
