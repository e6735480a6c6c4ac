"""From a checkpoint folder or hub id to a usable model. Safetensors only; checked before the weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CheckpointFolder, find_checkpoint
from mmeb_harness.adapter.pixels import PatchShape
from mmeb_harness.adapter.weights import HEAD, load_pretrained, reading_files
from mmemb_r1_model.model.prompt import REQUIRED_TOKENS, PromptTokenizer
from mmemb_r1_model.model.settings import Settings, read_settings
from mmemb_r1_model.model.vision import TEMPORAL_PATCH, levels_of

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "qwen3_vl"
ARCHITECTURE = "Qwen3VLForConditionalGeneration"
EMBEDDED = Path(__file__).resolve().parents[1] / "tiny"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read and checked but for its weights.

    Attributes:
        name: as the user gave it; "tiny" for the embedded one.
        revision: hub commit, or a hash of the files.
        positions: tokens that the model can tell apart, at most.
    """

    name: str
    folder: Path
    revision: str
    parameters: int | None
    settings: Settings
    vision: PatchShape
    hidden_size: int
    positions: int
    tokenizer: PromptTokenizer


def open_checkpoint(path: str | None, revision: str | None, required: Sequence[str] = REQUIRED_TOKENS) -> Checkpoint:
    """Open the embedded checkpoint (`None`, or "tiny" where no folder has that name), a local folder, or a hub id.

    Args:
        required: tokens that it must have.

    Raises:
        ModelError: not there, not a Qwen3-VL, no safetensors, or without a required token.
    """
    if path == EMBEDDED.name and not Path(path).exists():
        path = None
    stored = find_checkpoint(str(EMBEDDED) if path is None else path, revision)
    folder = stored.path
    check_type(stored)
    stored.require_safetensors()
    return Checkpoint(
        name=EMBEDDED.name if path is None else path,
        folder=folder,
        revision=stored.revision,
        parameters=stored.parameters,
        settings=read_settings(folder),
        vision=_vision_shape(stored),
        hidden_size=stored.value("config.json", "text_config", "hidden_size", kind=int),
        positions=stored.value("config.json", "text_config", "max_position_embeddings", kind=int),
        tokenizer=_tokenizer(stored, required),
    )


def load_weights(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
    trust_remote_code: bool = False,
    *,
    writes: bool = True,
) -> Any:
    """The model on `device`.

    Args:
        writes: whether its language head is used; else that may be missing, and is NaN then.

    Raises:
        ModelError: weights are missing, or don't fit the configuration or the device.
    """
    import transformers

    return load_pretrained(
        transformers,
        ARCHITECTURE,
        CheckpointFolder(checkpoint.name, checkpoint.folder, checkpoint.revision),
        str(device),
        str(dtype).removeprefix("torch."),
        attention,
        unused=() if writes else HEAD,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )


def check_type(folder: CheckpointFolder) -> None:
    """Refuse another architecture.

    Raises:
        ModelError: it is no Qwen3-VL, or has no config.json.
    """
    config = folder.json("config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"checkpoint {folder.path} is of type {config.get('model_type')!r}; mmemb_r1 needs {MODEL_TYPE!r} "
            "(Qwen3-VL)"
        )


def _tokenizer(checkpoint: CheckpointFolder, required: Sequence[str]) -> PromptTokenizer:
    folder = checkpoint.path
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"checkpoint {folder} has no tokenizer.json")
    with reading_files(checkpoint, "usable tokenizer.json"):
        tokenizer = PromptTokenizer.from_folder(folder)
    for token in required:
        if token not in tokenizer.added_tokens:
            raise ModelError(
                f"checkpoint {folder} has no {token} token: it is not an MMEmb-R1 checkpoint. "
                f"To start one from a Qwen3-VL: mmemb-r1 add-tokens {folder} NEW_FOLDER, then train it"
            )
    return tokenizer


def _vision_shape(folder: CheckpointFolder) -> PatchShape:
    sides = ("patch_size", "spatial_merge_size")
    patch, merge = (folder.value("config.json", "vision_config", name, kind=int) for name in sides)
    pictures = "preprocessor_config.json"
    settings = folder.json(pictures) if (folder.path / pictures).exists() else {}
    mean, std = (
        folder.numbers(pictures, name, count=3) if name in settings else (0.5, 0.5, 0.5)
        for name in ("image_mean", "image_std")
    )
    return PatchShape(patch, merge, TEMPORAL_PATCH, levels_of(mean, std))
