"""From a checkpoint folder or hub id to a usable model. Safetensors only; checked before the weights are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness import ModelError, OptionError
from mmemb_r1_model.prompt import REQUIRED_TOKENS, PromptTokenizer
from mmemb_r1_model.settings import Settings, SettingsError, read_settings
from mmemb_r1_model.vision import VisionShape

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "qwen3_vl"
EMBEDDED = Path(__file__).resolve().parent / "tiny"
_ENDS = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read and checked but for its weights.

    Attributes:
        name: as the user gave it; "tiny" for the embedded one.
        revision: hub commit, or a hash of the files.
    """

    name: str
    folder: Path
    revision: str
    settings: Settings
    vision: VisionShape
    hidden_size: int
    tokenizer: PromptTokenizer


def open_checkpoint(path: str | None, revision: str | None, required: Sequence[str] = REQUIRED_TOKENS) -> Checkpoint:
    """Open the embedded checkpoint (`None`), a local folder, or a hub id.

    Args:
        required: tokens that it must have.

    Raises:
        ModelError: not there, not a Qwen3-VL, no safetensors, or without a required token.
    """
    folder = EMBEDDED if path is None else _resolve(path, revision)
    config = _config(folder)
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"checkpoint {folder} has no .safetensors file; other formats can run code when loaded and are not read. "
            "Convert it: model.save_pretrained(folder, safe_serialization=True)"
        )
    tokenizer = _tokenizer(folder, required)
    try:
        settings = read_settings(folder)
    except SettingsError as error:
        raise ModelError(str(error)) from error
    return Checkpoint(
        name="tiny" if path is None else path,
        folder=folder,
        revision=_revision(folder),
        settings=settings,
        vision=_vision_shape(folder, config),
        hidden_size=int(config["text_config"]["hidden_size"]),
        tokenizer=tokenizer,
    )


def load_weights(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, attention: str, trust_remote_code: bool
) -> Any:
    """The model on `device`.

    Raises:
        ModelError: the weights don't fit the configuration or the device.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    try:
        model, report = Qwen3VLForConditionalGeneration.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        model = model.to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(
            f"{checkpoint.name} doesn't fit on {device} as {dtype}; try --dtype bfloat16 or another device"
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ModelError(f"can't load {checkpoint.folder}: {' '.join(str(error).split())[:500]}") from error
    missing = [name for name in report["missing_keys"] if name != "lm_head.weight"]
    if missing:
        raise ModelError(f"checkpoint {checkpoint.folder} lacks weights: {', '.join(sorted(missing)[:3])} …")
    return model


def resolve_place(device: str, dtype: str, setting: str) -> tuple[str, str]:
    """Device and dtype by name, `auto` resolved.

    Args:
        setting: what the device's setting is called, for messages.

    Raises:
        OptionError: a device or dtype that is none.
        ModelError: a GPU that this machine doesn't have.
    """
    import torch

    resolved = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(resolved).type
    except RuntimeError as error:
        raise OptionError(f"{setting} {device!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"{setting} {device}: this machine has no usable GPU; use {setting.split()[-1]} cpu")
    names = ("float32", "bfloat16", "float16")
    if dtype not in ("auto", *names):
        raise OptionError(f"--dtype {dtype!r} is not known; use auto, {', '.join(names)}")
    return resolved, ("bfloat16" if kind == "cuda" else "float32") if dtype == "auto" else dtype


def _resolve(path: str, revision: str | None) -> Path:
    local = Path(path).expanduser()
    if local.is_dir():
        return local.resolve()
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(f"checkpoint folder {path} does not exist")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt"]
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated classes, offline and online ones
        raise ModelError(
            f"checkpoint {path!r} is neither a local folder nor to be had from the hub ({type(error).__name__}). "
            f"With a network: hf download {path} --local-dir FOLDER, then --model-arg path=FOLDER"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} is no checkpoint folder: it has no config.json")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"checkpoint {folder} is of type {config.get('model_type')!r}; mmemb_r1 needs {MODEL_TYPE!r} (Qwen3-VL)"
        )
    return config


def _tokenizer(folder: Path, required: Sequence[str]) -> PromptTokenizer:
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"checkpoint {folder} has no tokenizer.json")
    tokenizer = PromptTokenizer.from_folder(folder)
    for token in required:
        if token not in tokenizer.added_tokens:
            raise ModelError(
                f"checkpoint {folder} has no {token} token: it is not an MMEmb-R1 checkpoint. "
                f"To start one from a Qwen3-VL: mmemb-r1 add-tokens {folder} NEW_FOLDER, then train it"
            )
    return tokenizer


def _vision_shape(folder: Path, config: dict[str, Any]) -> VisionShape:
    path = folder / "preprocessor_config.json"
    normalisation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    mean, std = (tuple(normalisation.get(name, (0.5, 0.5, 0.5))) for name in ("image_mean", "image_std"))
    vision = config["vision_config"]
    return VisionShape(int(vision["patch_size"]), int(vision["spatial_merge_size"]), mean, std)


def _revision(folder: Path) -> str:
    """The commit of a hub snapshot; else a hash over names, sizes, heads and tails of all files."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json"):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(_ENDS))
                if size > _ENDS:
                    file.seek(-_ENDS, os.SEEK_END)
                    digest.update(file.read(_ENDS))
    return digest.hexdigest()[:16]
