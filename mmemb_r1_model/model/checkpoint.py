"""From a checkpoint folder or hub id to a usable model. Safetensors only; checked before the weights are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CheckpointFolder, find_checkpoint
from mmeb_harness.adapter.weights import load_pretrained
from mmemb_r1_model.model.prompt import REQUIRED_TOKENS, PromptTokenizer
from mmemb_r1_model.model.settings import Settings, read_settings
from mmemb_r1_model.model.vision import VisionShape

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "qwen3_vl"
EMBEDDED = Path(__file__).resolve().parents[1] / "tiny"


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
    parameters: int | None
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
    stored = find_checkpoint(str(EMBEDDED) if path is None else path, revision)
    folder, config = stored.path, _config(stored)
    stored.require_safetensors()
    tokenizer = _tokenizer(folder, required)
    return Checkpoint(
        name="tiny" if path is None else path,
        folder=folder,
        revision=stored.revision,
        parameters=stored.parameters,
        settings=read_settings(folder),
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
    import transformers

    return load_pretrained(
        transformers,
        "Qwen3VLForConditionalGeneration",
        CheckpointFolder(checkpoint.name, checkpoint.folder, checkpoint.revision),
        str(device),
        str(dtype).removeprefix("torch."),
        attention,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )


def _config(folder: CheckpointFolder) -> dict[str, Any]:
    config = folder.json("config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"checkpoint {folder.path} is of type {config.get('model_type')!r}; mmemb_r1 needs {MODEL_TYPE!r} "
            "(Qwen3-VL)"
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
