"""A Qwen-VL checkpoint as an embedder: a recipe for prompts, one forward pass, the last token's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mmeb_baselines.cards import Card, find_pinned
from mmeb_baselines.families import read_config
from mmeb_baselines.qwen.prompt import Prompt, Reader, Recipe
from mmeb_baselines.weights import load_weights
from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, Profile, Role, Scalar, one_line
from mmeb_harness.adapter.checkpoints import CheckpointFolder, resolve_place
from mmeb_harness.adapter.memory import peak_device_memory
from mmeb_harness.adapter.uploads import Uploads

if TYPE_CHECKING:
    from mmeb_baselines.qwen.model import Batch, Positions, Side, UploadedBatch

Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
#: Folder, device, dtype, attention → a model; a language head on it is left alone.
Loader = Callable[[CheckpointFolder, str, str, str], Any]


@dataclass(frozen=True)
class Family:
    """What one family's checkpoints have in common, in one profile of it.

    Attributes:
        model: the registered name.
        cards: its known checkpoints; the first is the default.
        recipe: how an item is written.
        positions: see `Positions`.
        positions_of_type: `model_type` of a checkpoint → its own, where they are others.
        max_length: tokens that are kept; `None`: all.
        load: weights; `None`: the bare model of transformers.
        settings: further choices that can move a vector.
    """

    model: str
    cards: tuple[Card, ...]
    profile: Profile
    recipe: Recipe
    positions: Positions
    max_length: int | None = None
    load: Loader | None = None
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    positions_of_type: Mapping[str, Positions] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where and how the weights run; device and dtype may be "auto"."""

    device: str
    dtype: str
    attention: str


def open_embedder(family: Family, path: str | None, revision: str | None, place: Place) -> QwenEmbedder:
    """The family's embedder on a folder or hub id.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: a device or dtype that is none.
    """
    checkpoint = find_pinned(family.cards, path, revision)
    return QwenEmbedder(family, checkpoint, checkpoint, place)


def loader(family: Family, doc: str) -> Callable[..., QwenEmbedder]:
    """What is registered for a family.

    Args:
        doc: its docstring, whose first line `mmeb-eval models` shows.
    """

    def load(
        path: str | None = None,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: Attention = "auto",
    ) -> QwenEmbedder:
        return open_embedder(family, path, revision, Place(device, dtype, attention))

    load.__doc__ = doc
    return load


def profiled_loader(own: Family, leaderboard: Family, doc: str) -> Callable[..., QwenEmbedder]:
    """What is registered for a family whose prompts on MMEB-V2's leaderboard were others than its own."""

    def load(
        path: str | None = None,
        revision: str | None = None,
        profile: Literal["own", "leaderboard"] = "own",
        device: str = "auto",
        dtype: str = "auto",
        attention: Attention = "auto",
    ) -> QwenEmbedder:
        family = own if profile == "own" else leaderboard
        return open_embedder(family, path, revision, Place(device, dtype, attention))

    load.__doc__ = doc
    return load


class QwenEmbedder:
    """Loads the weights when the first item comes: what is already done needs none."""

    def __init__(self, family: Family, checkpoint: CheckpointFolder, described: CheckpointFolder, place: Place) -> None:
        """Read what describes it.

        Args:
            described: whose configuration, tokenizer and picture settings count: its own, or of an adapter's base.

        Raises:
            ModelError: the checkpoint can't be used.
            OptionError: a device or dtype that is none.
        """
        import torch

        config = read_config(described, family.model)
        self._family, self._checkpoint, self._attention = family, checkpoint, place.attention
        self._positions = family.positions_of_type.get(config["model_type"], family.positions)
        self._device, self._dtype = resolve_place(torch, place.device, place.dtype)
        self._uploads = Uploads(torch, self._device, self._dtype)
        self._reader = _reader(described, config, family.max_length)
        self._model: Any = None
        self.info = ModelInfo(
            name=family.model,
            revision=checkpoint.revision,
            dimensions=int(config.get("text_config", config)["hidden_size"]),
            settings={
                "checkpoint": checkpoint.label,
                "device": self._device.split(":")[0],
                "dtype": self._dtype,
                "attention": place.attention,
                "positions": self._positions,
                "max_length": family.max_length,
                **family.settings,
            },
            profile=family.profile,
            parameters=described.parameters,
        )

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, a class of transformers."""
        return self._reader.tokenizer

    @property
    def model(self) -> Any:
        """The model with its weights, which the first call loads."""
        if self._model is None:
            load = self._family.load or _backbone
            self._model = load(self._checkpoint, self._device, self._dtype, self._attention)
        return self._model

    def warm_up(self) -> None:
        """Load the weights, and run them once."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def cost(self, item: Item, role: Role) -> int:
        """Estimated tokens, from the text's length and the pictures' headers."""
        return self._reader.cost(self._family.recipe(item, role))

    def prompts(self, items: Sequence[Item], role: Role) -> list[Prompt]:
        """Open, resize and tokenise."""
        return [self._reader.prompt(item, self._family.recipe(item, role)) for item in items]

    def collate(self, prompts: Sequence[Prompt], side: Side = "right") -> list[Batch]:
        """Prompts as the model's inputs."""
        from mmeb_baselines.qwen.model import collate

        return collate(prompts, self._reader.tokenizer.pad_token_id, self._positions, side)

    def prepare(self, items: Sequence[Item], role: Role) -> list[Batch]:
        """Open, resize, tokenise and collate; on the CPU."""
        return self.collate(self.prompts(items, role))

    def peak_device_memory(self) -> int | None:
        """Bytes that tensors took at most since the last call, as `MemoryEmbedder` asks for."""
        import torch

        return peak_device_memory(torch, self._device)

    def upload(self, prepared: list[Batch]) -> list[UploadedBatch]:
        """The inputs, on their way to the model."""
        from mmeb_baselines.qwen.model import uploaded

        return uploaded(prepared, self._uploads)

    def encode_prepared(self, prepared: list[Batch] | list[UploadedBatch]) -> EncodeResult:
        """States of the prompts' last tokens, of unit length."""
        import numpy as np

        from mmeb_baselines.qwen.model import last_states, uploaded

        vectors = np.empty((sum(len(batch.rows) for batch in prepared), self.info.dimensions), dtype=np.float32)
        for batch in uploaded(prepared, self._uploads):
            vectors[batch.rows] = last_states(self.model, batch).numpy()
        return EncodeResult(vectors)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same in one call."""
        return self.encode_prepared(self.prepare(items, role))


def _backbone(checkpoint: CheckpointFolder, *place: str) -> Any:
    """The bare model, without a language head."""
    from transformers import AutoModel

    return load_weights(AutoModel, checkpoint, *place)


def _reader(folder: CheckpointFolder, config: Mapping[str, Any], max_length: int | None) -> Reader:
    """Tokenizer and picture settings.

    Raises:
        ModelError: they are not in the folder.
    """
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder.path} has no usable tokenizer: {one_line(error)}") from error
    pictures, vision = folder.json("preprocessor_config.json"), config["vision_config"]
    processor = Qwen2VLImageProcessorPil(
        patch_size=int(vision["patch_size"]),
        merge_size=int(vision["spatial_merge_size"]),
        temporal_patch_size=int(vision["temporal_patch_size"]),
        image_mean=pictures["image_mean"],
        image_std=pictures["image_std"],
    )
    return Reader(tokenizer, processor, int(vision["spatial_merge_size"]), max_length)
