"""What a release is made of, as far as it can be read without making one: docs/release.md has the rest."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from mmeb_harness import __version__
from tests.test_architecture import ROOT, TOP_LEVEL

DOCKERFILE = ROOT / "docs" / "container" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def joined_lines(text: str) -> str:
    """As Docker reads them."""
    return text.replace("\\\n", "")


def test_the_image_installs_the_projects_requirements_and_what_it_copies_is_sent(tmp_path: Path) -> None:
    text = joined_lines(DOCKERFILE.read_text())
    (command,) = re.findall(r"^RUN (python3 -c .*> requirements\.txt)", text, re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)", text, re.MULTILINE)
    subprocess.run(["sh", "-c", f"EXTRAS={extras}; {command}"], cwd=tmp_path, check=True)
    optional = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras.split(",") for name in optional[extra])]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted

    sent = {line[1:] for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied == sent
    packages = {Path(package).parts[0] for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert packages < copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_version_stands_in_one_place() -> None:
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{__version__}"' in source.read_text()
    assert "version" not in PROJECT["project"]


def test_the_sdist_has_all_that_lies_at_the_top() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert {*included, "pyproject.toml", ".gitignore"} == TOP_LEVEL - {".ci"}  # the two always are
