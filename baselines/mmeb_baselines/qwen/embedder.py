"""A family of Qwen-VL checkpoints: a recipe for prompts, one forward pass, the last token's state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from mmeb_baselines.cards import Card, find_pinned, read_config
from mmeb_baselines.embedder import ONE_SHOWN, Attention, Batch, CheckpointEmbedder, Loader, Place, UploadedBatch
from mmeb_baselines.pictures import levels_of
from mmeb_baselines.qwen.ears import ears_of
from mmeb_baselines.qwen.model import Pool, Positions, Side, collate, last_states
from mmeb_baselines.qwen.prompt import IMAGE_PAD, VIDEO_PAD, Prompt, Reader, Recipe
from mmeb_baselines.weights import load_backbone, speller_of
from mmeb_harness import Item, Medium, ModelInfo, OptionError, Profile, Role, Scalar, Vectors
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.pixels import PatchShape
from mmeb_harness.adapter.texts import Speller, cut_at, shortened
from mmeb_harness.adapter.weights import reading_files

CONFIG, PICTURES, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
_VISION = ("patch_size", "spatial_merge_size", "temporal_patch_size")


@dataclass(frozen=True)
class Family:
    """What one family's checkpoints have in common, in one profile of it.

    Attributes:
        cards: its known checkpoints; the first is the default. Their model is the registered name.
        recipe: how an item is written.
        positions: see `Positions`.
        positions_of_type: `model_type` of a checkpoint → its own, where they are others.
        max_length: tokens that are kept; `None`: all.
        max_text_tokens: of items without media, where they are others.
        keeps_template: of a text that is too long the item's own end goes; else whatever is at the end.
        load: weights; a language head on them is left alone.
        settings: further choices that can move a vector.
        pool: which states become a vector.
        pads: see `Reader`.
        media: see `ModelInfo`.
        hears: the token that stands for a piece of a sound; "" for families that take none.
        speller: how the checkpoint splits texts, where not as transformers loads its tokenizer.
    """

    cards: tuple[Card, ...]
    profile: Profile
    recipe: Recipe
    positions: Positions
    max_length: int | None = None
    max_text_tokens: int | None = None
    keeps_template: bool = False
    load: Loader = load_backbone
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    positions_of_type: Mapping[str, Positions] = field(default_factory=dict)
    pool: Pool = last_states
    pads: tuple[str, str] = (IMAGE_PAD, VIDEO_PAD)
    speller: Callable[[CheckpointFolder, Any], Speller] | None = None
    media: tuple[Medium, ...] = ("image", "video")
    hears: str = ""


@dataclass(frozen=True)
class QwenForm:
    """How a family's items become prompts, and prompts batches.

    Attributes:
        reader: of the checkpoint.
    """

    reader: Reader
    recipe: Recipe
    positions: Positions
    pool: Pool = last_states
    keeps_template: bool = False

    def cost(self, item: Item, role: Role) -> int:
        cost, limit = self.reader.cost(self.recipe(item, role)), self.reader.limit_of(item)
        return cost if limit is None or item.media else min(cost, limit)

    def prompts(self, items: Sequence[Item], role: Role) -> list[Prompt]:
        """Open, resize and tokenise."""
        return [self.prompt(item, role) for item in items]

    def prompt(self, item: Item, role: Role) -> Prompt:
        """One item's prompt, cut if it is too long.

        Raises:
            DataError: as `Reader.prompt`.
        """
        prompt, limit = self._laid_out(item, role), self.reader.max_text_tokens
        if self.keeps_template and not item.media and limit is not None and len(prompt.ids) > limit:
            short = shortened(item, lambda cut: len(self._laid_out(cut, role).ids), limit, self.reader.speller)
            return dataclasses.replace(self._laid_out(short, role), left_out=cut_at(limit))
        shown = self.reader.cut(item, prompt)
        return dataclasses.replace(shown, left_out=ONE_SHOWN) if 0 < len(shown.images) < len(item.images) else shown

    def _laid_out(self, item: Item, role: Role) -> Prompt:
        return self.reader.laid_out(self.recipe(item, role))

    def collate(self, prompts: Sequence[Prompt], side: Side = "right") -> list[Batch]:
        """Prompts as the model's inputs."""
        return collate(prompts, self.reader.tokenizer.pad_token_id, self.positions, side)

    def batches(self, items: Sequence[Item], role: Role) -> list[Batch]:
        return self.collate(self.prompts(items, role))

    def vectors(self, model: Any, batches: Sequence[UploadedBatch]) -> Vectors:
        """Vectors (n, d) of the prompts, by default their last tokens' states."""
        states = np.concatenate([self.pool(model, batch) for batch in batches])
        return states[np.argsort([row for batch in batches for row in batch.rows])]


QwenEmbedder: TypeAlias = CheckpointEmbedder[QwenForm]


def open_embedder(
    family: Family, checkpoint: CheckpointFolder, place: Place, base: CheckpointFolder | None = None
) -> QwenEmbedder:
    """The family's embedder on a checkpoint.

    Args:
        base: of an adapter: its configuration, tokenizer and picture settings count.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: a device or dtype that is none.
    """
    model, described = family.cards[0].model, base or checkpoint
    config = read_config(described, model)
    positions = family.positions_of_type.get(config["model_type"], family.positions)
    form = QwenForm(reader_of(described, family), family.recipe, positions, family.pool, family.keeps_template)
    settings = {"positions": positions, "max_length": family.max_length} | dict(family.settings)
    return CheckpointEmbedder(
        checkpoint, place, form, family.load, info_of(family, checkpoint, described, place, settings)
    )


def info_of(
    family: Family,
    checkpoint: CheckpointFolder,
    described: CheckpointFolder,
    place: Place,
    settings: Mapping[str, Scalar],
) -> ModelInfo:
    """What a family's embedder on a checkpoint is.

    Raises:
        ModelError: its config.json doesn't say how wide the vectors are.
    """
    limit = family.max_length if family.max_text_tokens is None else family.max_text_tokens
    return ModelInfo(
        name=family.cards[0].model,
        revision=checkpoint.revision,
        dimensions=_of_text(described, "hidden_size"),
        settings={"attention": place.attention} | dict(settings),
        profile=dataclasses.replace(family.profile, max_text_tokens=limit),
        media=family.media,
        parameters=described.parameters,
    )


def limited(family: Family, max_text_tokens: int | None) -> Family:
    """A family whose texts without media have at most so many tokens; `None`: as many as it takes by itself.

    Raises:
        OptionError: less than one.
    """
    if max_text_tokens is None:
        return family
    if max_text_tokens < 1:
        raise OptionError(f"max_text_tokens must be at least 1, not {max_text_tokens}")
    settings = {**family.settings, "max_text_tokens": max_text_tokens}
    return dataclasses.replace(family, max_text_tokens=max_text_tokens, settings=settings)


def loader(family: Family, doc: str) -> Callable[..., QwenEmbedder]:
    """What is registered for a family.

    Args:
        doc: its docstring, whose first line `mmeb-eval models` shows.
    """

    def load(
        path: str | None = None,
        revision: str | None = None,
        max_text_tokens: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: Attention = "auto",
    ) -> QwenEmbedder:
        checkpoint = find_pinned(family.cards, path, revision)
        return open_embedder(limited(family, max_text_tokens), checkpoint, Place(device, dtype, attention))

    load.__doc__ = doc
    return load


def profiled_loader(own: Family, leaderboard: Family, doc: str) -> Callable[..., QwenEmbedder]:
    """What is registered for a family whose prompts on MMEB-V2's leaderboard were others than its own."""

    def load(
        path: str | None = None,
        revision: str | None = None,
        profile: Literal["own", "leaderboard"] = "own",
        max_text_tokens: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: Attention = "auto",
    ) -> QwenEmbedder:
        family = limited(own if profile == "own" else leaderboard, max_text_tokens)
        checkpoint = find_pinned(family.cards, path, revision)
        return open_embedder(family, checkpoint, Place(device, dtype, attention))

    load.__doc__ = doc
    return load


def reader_of(folder: CheckpointFolder, family: Family) -> Reader:
    """Tokenizer and picture settings.

    Raises:
        ModelError: they are not in the folder.
        OptionError: texts of more tokens than the model reads.
    """
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    with reading_files(folder, "usable tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        speller = family.speller(folder, tokenizer) if family.speller else speller_of(tokenizer)
    patch, merge, temporal = (folder.value(CONFIG, "vision_config", name, kind=int) for name in _VISION)
    processor = Qwen2VLImageProcessorPil(
        image_mean=list(folder.numbers(*picture_settings(folder), "image_mean", count=3)),
        image_std=list(folder.numbers(*picture_settings(folder), "image_std", count=3)),
    )
    positions = _of_text(folder, "max_position_embeddings")
    ears = ears_of(folder, picture_settings(folder)[0], family.hears) if family.hears else None
    if family.max_text_tokens is not None and family.max_text_tokens > positions:
        raise OptionError(
            f"max_text_tokens must be at most {positions}, which the model reads: {family.max_text_tokens}"
        )
    limits = family.max_length, family.max_text_tokens
    shape = PatchShape(patch, merge, temporal, levels_of(processor))
    return Reader(tokenizer, speller, shape, positions, *limits, family.pads, ears)


def picture_settings(folder: CheckpointFolder) -> tuple[str, ...]:
    """File and keys of a checkpoint's settings for pictures: beside those for texts and videos since transformers 5."""
    return (PICTURES,) if (folder.path / PICTURES).is_file() else (PROCESSOR, "image_processor")


def picture_bounds(folder: CheckpointFolder) -> tuple[int, int]:
    """The smallest and the largest area in pixels that a checkpoint's settings allow a picture.

    Raises:
        ModelError: they don't say.
    """
    file, *keys = picture_settings(folder)
    sized = isinstance(
        folder.value(file, *keys, kind=dict).get("size") if keys else folder.json(file).get("size"), dict
    )
    names = (("size", "shortest_edge"), ("size", "longest_edge")) if sized else (("min_pixels",), ("max_pixels",))
    low, high = (folder.value(file, *keys, *name, kind=int) for name in names)
    return low, high


def _of_text(folder: CheckpointFolder, name: str) -> int:
    """A number of the language model's settings, which older families have beside the vision tower's."""
    place = ("text_config",) if "text_config" in folder.json(CONFIG) else ()
    return folder.value(CONFIG, *place, name, kind=int)
