"""One item alone through transformers' own parts, in the straightforward way: what adapters are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from mmeb_harness import Item
from tests.pixel_numbers import numbers_of


def noise(path: Path, size: tuple[int, int], seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 20, size[0] // 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@dataclass(frozen=True)
class Shown:
    """What a string's pads stand for: pictures, each its own; or one video, in equal parts, one a pad."""

    pictures: Sequence[Image.Image] = ()
    frames: Sequence[Image.Image] = ()


def plain_inputs(folder: Path, text: str, shown: Shown, bounds: tuple[int, int], spelled: str = "") -> dict[str, Any]:
    """One item alone through transformers' tokenizer and picture processor. Frames: of one size already.

    Args:
        spelled: a part of the text, between two special tokens, in which none is meant.
    """
    tokenizer, vision = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder).vision_config
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder, min_pixels=bounds[0], max_pixels=bounds[1])
    processor.patch_size = vision.patch_size
    inputs: dict[str, Any] = {}
    if shown.pictures:
        found = processor(images=list(shown.pictures), return_tensors="pt", patch_size=vision.patch_size)
        inputs = {"pixel_values": found["pixel_values"], "image_grid_thw": found["image_grid_thw"]}
        for grid in found["image_grid_thw"]:
            text = text.replace("<|image_pad|>", "<|mark|>" * int(grid.prod() // 4), 1)
        text = text.replace("<|mark|>", "<|image_pad|>")
    if shown.frames:
        inputs = as_video(shown.frames, vision.patch_size, processor)
        each = int(inputs["video_grid_thw"][0].prod() // 4) // text.count("<|video_pad|>")
        text = text.replace("<|video_pad|>", "<|video_pad|>" * each)
    before, spelled, after = text.partition(spelled) if spelled else (text, "", "")
    plain = tokenizer._encode_without_added_tokens(spelled)
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in (before, after)]
    ids = torch.tensor([[*parts[0], *plain, *parts[1]]])
    image, video = (tokenizer.convert_tokens_to_ids(pad) for pad in ("<|image_pad|>", "<|video_pad|>"))
    return {**inputs, "input_ids": ids, "mm_token_type_ids": (ids == image) * 1 + (ids == video) * 2}


def plain_vector(
    folder: Path, text: str, shown: Shown, bounds: tuple[int, int], *, mrope: bool
) -> np.ndarray[Any, Any]:
    """The same through its model: the last token's state."""
    inputs = plain_inputs(folder, text, shown, bounds)
    if not mrope:
        del inputs["mm_token_type_ids"]
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
    with torch.no_grad():
        state = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0, -1]
    return torch.nn.functional.normalize(state, dim=0).numpy()


def as_video(frames: Sequence[Image.Image], patch: int, processor: Any) -> dict[str, Any]:
    """Patches of a clip by the formula of the vision tower: time pairs, blocks of 2 x 2 patches."""
    from mmemb_r1_model.model.vision import PatchShape, levels_of, video_patches

    shape = PatchShape(patch, 2, 2, levels_of(processor.image_mean, processor.image_std))
    height, width = frames[0].height, frames[0].width
    assert height % (2 * patch) == width % (2 * patch) == 0
    found = video_patches(list(frames), shape, 1, 10**9)
    return {
        "pixel_values_videos": torch.from_numpy(numbers_of(found.pixels)),
        "video_grid_thw": torch.tensor([found.grid]),
    }


def opened(item: Item, size: tuple[int, int] | None = None) -> list[Image.Image]:
    pictures = [Image.open(path).convert("RGB") for path in item.media]
    return [picture.resize(size) for picture in pictures] if size else pictures


def fetched(picture: Image.Image) -> Image.Image:
    height, width = smart_resize(picture.height, picture.width, 28, 4 * 784, 16384 * 784)
    return picture.resize((width, height))
