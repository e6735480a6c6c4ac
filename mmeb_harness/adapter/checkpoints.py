"""Checkpoints by folder or hub id, what names them in results, and where they run. Nothing is loaded here."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb_harness.core.errors import ModelError, OptionError, one_line

#: What a model is made of. Other formats than safetensors can run code when they are loaded.
CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
DTYPES = ("float32", "bfloat16", "float16")
_ENDS = 1 << 20


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint in a folder on disk.

    Attributes:
        name: as the user gave it.
        revision: the hub commit, or a hash of the files.
    """

    name: str
    path: Path
    revision: str

    @property
    def label(self) -> str:
        """What results call it: a hub id whole, of a folder its name alone. Where that lies is nobody's business."""
        named = Path(self.name)
        return named.name if named.expanduser().is_dir() else self.name

    @property
    def parameters(self) -> int | None:
        """How many numbers the weight files hold, by their headers; `None` without a .safetensors file.

        Raises:
            ModelError: a file is broken.
        """
        counts = [_count_numbers(path) for path in sorted(self.path.glob("*.safetensors"))]
        return sum(counts) if counts else None

    def require_safetensors(self) -> None:
        """Refuse a folder without weights before anything heavy is imported.

        Raises:
            ModelError: no .safetensors file.
        """
        if not list(self.path.glob("*.safetensors")):
            raise ModelError(
                f"checkpoint {self.path} has no .safetensors file; other formats can run code when loaded and are not "
                "read. Convert it: model.save_pretrained(folder)"
            )

    def json(self, file: str) -> dict[str, Any]:
        """A JSON file of the checkpoint.

        Raises:
            ModelError: not there, or not a JSON object.
        """
        path = self.path / file
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"{self.path} is no checkpoint folder: it has no {file}") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} can't be read: {one_line(error)}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path} is no JSON object")
        return values


def find_checkpoint(
    name: str, revision: str | None = None, files: Sequence[str] = CHECKPOINT_FILES
) -> CheckpointFolder:
    """A local folder, or a hub id: from the hub's cache if it is there, else downloaded.

    Args:
        files: glob patterns of what is downloaded.

    Raises:
        ModelError: neither; says what to download, and where it was looked for.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        return CheckpointFolder(name, local.resolve(), revision_of(local.resolve()))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"checkpoint folder {name} does not exist")
    folder = _from_hub(name, revision, files)
    return CheckpointFolder(name, folder, revision_of(folder))


def _count_numbers(path: Path) -> int:
    """A .safetensors file begins with the length of a JSON header, which has every tensor's shape."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is no whole .safetensors file: get it again") from error


def revision_of(folder: Path) -> str:
    """The commit of a hub snapshot; else a hash over names, sizes, heads and tails of all files, also in subfolders."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".bin", ".json") and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(_ENDS))
                if size > _ENDS:
                    file.seek(-_ENDS, os.SEEK_END)
                    digest.update(file.read(_ENDS))
    return digest.hexdigest()[:16]


def resolve_place(torch: Any, device: str, dtype: str, setting: str = "--device") -> tuple[str, str]:
    """Device and dtype by name, `auto` resolved: a GPU if there is one, bfloat16 on it, float32 on a CPU.

    Args:
        torch: the module; handed in, since the harness doesn't import it.
        setting: what the device's setting is called, for messages.

    Raises:
        OptionError: a device or dtype that is none.
        ModelError: a GPU that this machine doesn't have.
    """
    resolved = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(resolved).type
    except RuntimeError as error:
        raise OptionError(f"{setting} {device!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"{setting} {device}: this machine has no usable GPU; use {setting.split()[-1]} cpu")
    if dtype not in ("auto", *DTYPES):
        raise OptionError(f"--dtype {dtype!r} is not known; use auto, {', '.join(DTYPES)}")
    return resolved, ("bfloat16" if kind == "cuda" else "float32") if dtype == "auto" else dtype


def _from_hub(name: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the hub client raises a dozen unrelated classes, offline and online ones
        raise ModelError(_explained(error, name, revision)) from error


def _explained(error: Exception, name: str, revision: str | None) -> str:
    """What kept a checkpoint from being fetched, and the way out."""
    from huggingface_hub import constants, errors

    at = f" --revision {revision}" if revision else ""
    get = f"Where there is a network: hf download {name}{at} --local-dir FOLDER, then name FOLDER instead of {name}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is gated: accept its terms at https://huggingface.co/{name}, then `hf auth login`, or put a "
            "token of that account into $HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name} is neither a local folder nor a model on the hub (a private one needs `hf auth login`)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(error.__cause__ or error).__name__
        return (
            f"{name} is not in the hub's cache ({constants.HF_HUB_CACHE}), and the hub can't be reached ({why}). {get}"
        )
    return (
        f"checkpoint {name!r} can't be had from the hub ({type(error).__name__}: {one_line(error)}); looked for in "
        f"{constants.HF_HUB_CACHE}. {get}"
    )
