"""Checkpoints by folder or hub id, what names them in results, and where they run. Nothing is loaded here."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmeb_harness.core.errors import ModelError, OptionError, leading, one_line
from mmeb_harness.core.files import LFS_POINTER, matching, readable_size
from mmeb_harness.core.waiting import Advance, progress_of

#: What a model is made of. Other formats than safetensors can run code when they are loaded.
CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
#: JSON files that libraries read of a checkpoint by themselves, without naming them where they are broken.
_READ_BY_LIBRARIES = (
    *("config.json", "generation_config.json", "adapter_config.json", "preprocessor_config.json"),
    *("processor_config.json", "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "chat_template.json"),
    *("model.safetensors.index.json", "modules.json", "config_sentence_transformers.json"),
)
#: A checkpoint of sentence-transformers has a folder for each of its modules.
_WEIGHTS = ("*.safetensors", "[0-9]_*/*.safetensors")
_SHARDS = "model-*-of-*.safetensors"
DTYPES = ("float32", "bfloat16", "float16")
_ENDS = 1 << 20
Value = TypeVar("Value")
_KINDS: dict[type, str] = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}


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
        headers = [_header(path) for path in matching(self.path, "*.safetensors")]
        return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values()) if headers else None

    @property
    def codes(self) -> list[str]:
        """Names of weights that are stored as whole numbers or in 8 bits: codes, that a quantisation gives a meaning.

        Raises:
            ModelError: a file is broken.
        """
        headers = [_header(path) for path in matching(self.path, "*.safetensors")]
        plain = ("F64", "F32", "F16", "BF16")
        tensors = [tensor for header in headers for tensor in header.items()]
        return [name for name, tensor in tensors if name.endswith(".weight") and tensor["dtype"] not in plain]

    def check_files(self) -> None:
        """Refuse what is cut, or stands for a file that wasn't fetched; by headers and sizes, no weight is read.

        Raises:
            ModelError: names the file.
        """
        for file in _READ_BY_LIBRARIES:
            if (self.path / file).exists():
                _parsed(self.path / file, list if file == "modules.json" else dict)
        for pattern in _WEIGHTS:
            for path in matching(self.path, pattern):
                _header(path)
        for path in matching(self.path, "*.bin"):
            _refuse_pointer(path)
        index = self.path / "model.safetensors.index.json"
        if not index.is_file() and not (self.path / "model.safetensors").exists() and matching(self.path, _SHARDS):
            raise ModelError(f"{index} is missing, which says what the shards beside it hold; get it")
        shards = self.value(index.name, "weight_map", kind=dict).values() if index.is_file() else ()
        if missing := sorted({str(shard) for shard in shards if not (self.path / str(shard)).is_file()}):
            raise ModelError(
                f"{index} names {len(missing)} files that aren't there: {leading(missing, 3)}; get the checkpoint again"
            )

    def require_safetensors(self) -> None:
        """Refuse a folder without weights before anything heavy is imported.

        Raises:
            ModelError: no .safetensors file.
        """
        if not matching(self.path, "*.safetensors"):
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
        if not path.exists():
            lora = path.with_name("adapter_config.json")
            if file == "config.json" and lora.is_file():
                base = self.json(lora.name).get("base_model_name_or_path")
                raise ModelError(
                    f"{self.path} has no config.json: it holds LoRA weights, to be added to {base or 'their base'}; "
                    "peft does that: PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(whole)"
                )
            raise ModelError(f"{self.path} is no checkpoint folder: it has no {file}")
        values: dict[str, Any] = _parsed(path, dict)
        return values

    def value(self, file: str, *keys: str, kind: type[Value]) -> Value:
        """A value of a JSON file of the checkpoint, by the keys that lead to it.

        Raises:
            ModelError: not there, or of another kind.
        """
        values: Any = self.json(file)
        for key in keys:
            values = values.get(key) if isinstance(values, dict) else None
        if not isinstance(values, kind) or isinstance(values, bool):
            raise ModelError(
                f"{self.path / file}: {'.'.join(keys)} is {values!r:.60}, not {_KINDS.get(kind, kind.__name__)}; get "
                "the file again"
            )
        return values

    def numbers(self, file: str, *keys: str, count: int) -> tuple[float, ...]:
        """So many numbers of a JSON file of the checkpoint, by the keys that lead to them.

        Raises:
            ModelError: there are others, or something else.
        """
        values, key = self.value(file, *keys, kind=list), ".".join(keys)
        if len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise ModelError(f"{self.path / file}: {key} is {values!r:.60}, not {count} numbers; get the file again")
        return tuple(values)


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
        folder = local.resolve()
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        is_there = "is a file; name its folder" if local.exists() else "does not exist"
        raise ModelError(f"checkpoint folder {name} {is_there}")
    else:
        folder = _from_hub(name, revision, files)
    checkpoint = CheckpointFolder(name, folder, revision_of(folder))
    checkpoint.check_files()
    return checkpoint


def _parsed(path: Path, kind: type) -> Any:
    """What a JSON file holds.

    Raises:
        ModelError: not readable, or of another kind.
    """
    _refuse_pointer(path)
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} can't be read: {one_line(error)}; get it again") from error
    if not isinstance(values, kind):
        raise ModelError(f"{path} is no JSON {'object' if kind is dict else 'list'}; get it again")
    return values


def _refuse_pointer(path: Path) -> None:
    """Git without its LFS extension leaves a line in place of a large file.

    Raises:
        ModelError: this is one, or nothing that can be read.
    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}; get it again") from error
    if is_pointer:
        raise ModelError(
            f"{path} is no whole {path.suffix} file: get it again. It is a git-lfs pointer: `git lfs pull`"
        )


def _header(path: Path) -> dict[str, Any]:
    """A .safetensors file begins with the length of a JSON header, which has every tensor's dtype, shape and place.

    Raises:
        ModelError: it isn't one, or ends too early.
    """
    _refuse_pointer(path)
    try:
        with path.open("rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
            header = json.loads(file.read(min(length, size)))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        if 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0) != size:
            raise ValueError("cut, or longer than its tensors")
        if not all(isinstance(tensor["dtype"], str) and math.prod(tensor["shape"]) >= 0 for tensor in tensors.values()):
            raise ValueError("tensors of no kind or shape")
        return tensors
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"{path} is no whole .safetensors file: get it again") from error


def revision_of(folder: Path) -> str:
    """The commit of a hub snapshot; else a hash over names, sizes, heads and tails of all files, also in subfolders."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in matching(folder, "**/*"):
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
        with progress_of(f"fetching {name}") as advance:
            wanted = {"revision": revision, "allow_patterns": list(files)}
            return Path(snapshot_download(name, **wanted, tqdm_class=_telling(advance)))
    except Exception as error:  # the hub client raises a dozen unrelated classes, offline and online ones
        raise ModelError(_explained(error, name, revision)) from error


def _telling(advance: Advance) -> type:
    """What the hub's client counts files and bytes with: shows nothing itself, and has the bytes told."""
    from tqdm import tqdm

    of_bytes: list[Any] = []  # what has arrived, and what is written of it; the total of the first grows with it

    class Telling(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *values: Any, **options: Any) -> None:
            super().__init__(*values, **{**options, "disable": True})
            self.counts_bytes = options.get("unit") == "B"
            if self.counts_bytes:
                of_bytes.append(self)

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.counts_bytes:
                here, total = max(bar.n for bar in of_bytes), min(bar.total for bar in of_bytes)
                advance(0, note=f"{readable_size(here)} of {readable_size(total)}")

    return Telling


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
