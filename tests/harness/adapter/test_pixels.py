"""Pixels stay bytes up to the device, and are there, to the last bit, what a processor makes of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from mmeb_baselines.pictures import levels_of, pixels_of
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmeb_harness import ModelError
from mmeb_harness.adapter.pixels import PatchShape, Pixels, clip_patches, picture_patches
from mmeb_harness.adapter.uploads import Uploads
from mmemb_r1_model.model import vision
from tests.pixel_numbers import numbers_of

MEANS = {"half": ([0.5] * 3, [0.5] * 3), "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MEANS)
def test_every_byte_is_the_number_that_dividing_gives(name: str, dtype: torch.dtype) -> None:
    mean, std = (np.array(values, dtype=np.float32) for values in MEANS[name])
    bytes_NC = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    expected = (bytes_NC.astype(np.float32) / np.float32(255) - mean) / std
    pixels = Pixels(bytes_NC[:, :, None, None], vision.levels_of(*MEANS[name]), frames=2)
    numbers = Uploads(torch, "cpu", str(dtype).removeprefix("torch.")).copy({"pixels": pixels})["pixels"]
    assert torch.equal(numbers, torch.from_numpy(np.repeat(expected, 2, axis=1)).to(dtype))


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize(("patch", "width", "height"), [(14, 56, 140), (16, 96, 32)])
def test_patches_are_the_processors_to_the_last_bit(name: str, patch: int, width: int, height: int) -> None:
    mean, std = MEANS[name]
    processor = Qwen2VLImageProcessorPil(patch_size=patch, image_mean=mean, image_std=std)
    shape = PatchShape(patch, processor.merge_size, processor.temporal_patch_size, levels_of(processor))
    frames = [noise(width, height, seed) for seed in range(3)]
    theirs = [processor(images=frame, do_resize=False, return_tensors="np") for frame in frames]
    for frame, expected in zip(frames, theirs, strict=True):
        patches = picture_patches(frame, shape)
        assert [list(patches.grid)] == expected["image_grid_thw"].tolist()
        assert np.array_equal(numbers_of(patches.pixels), expected["pixel_values"])
        assert patches.pixels.bytes.nbytes == 3 * width * height
    # A clip's patches have a frame each where a picture's have it twice; the last one is repeated.
    area = patch**2
    of_frames = [expected["pixel_values"].reshape(-1, 3, 2, area)[:, :, 0] for expected in theirs]
    pairs = ((0, 1), (2, 2))
    expected_clip = np.concatenate([np.stack([of_frames[place] for place in pair], axis=2) for pair in pairs])
    clip = clip_patches(frames, shape)
    assert clip.grid == (2, height // patch, width // patch)
    assert np.array_equal(numbers_of(clip.pixels), expected_clip.reshape(len(expected_clip), -1))


@pytest.mark.parametrize(
    "processor",
    [
        SiglipImageProcessorPil(size={"height": 24, "width": 24}),
        CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 24, "width": 24}),
        SiglipImageProcessorPil(size={"height": 24, "width": 24}, do_normalize=False),
    ],
)
def test_whole_pictures_are_the_processors_to_the_last_bit(processor: SiglipImageProcessorPil) -> None:
    pictures = [noise(40, 30), noise(30, 61, seed=1)]
    pixels = pixels_of(processor, pictures)
    assert pixels.bytes.dtype == np.uint8
    expected = processor(images=pictures, return_tensors="np")["pixel_values"]
    assert np.array_equal(numbers_of(pixels), expected)


def test_pictures_that_come_as_numbers_are_refused() -> None:
    class Floating(SiglipImageProcessorPil):  # type: ignore[misc]
        def resize(self, image: np.ndarray, *args: object, **named: object) -> np.ndarray:
            return np.asarray(image, dtype=np.float32)

    with pytest.raises(ModelError, match="Floating resizes pictures to float32, not to bytes"):
        pixels_of(Floating(), [noise(8, 8)])


def test_pixels_join_and_come_apart_again() -> None:
    shape = PatchShape(2, 2, 2, vision.levels_of(*MEANS["half"]))
    first, second = (picture_patches(noise(8, 4, seed), shape).pixels for seed in range(2))
    joined = Pixels.joined([first, second])
    assert len(joined) == len(first) + len(second) == 16
    assert np.array_equal(numbers_of(joined), np.concatenate([numbers_of(first), numbers_of(second)]))
    taken = joined[8:]
    assert np.array_equal(taken.bytes, second.bytes)
    assert not np.shares_memory(taken.bytes, joined.bytes)


def test_bytes_alone_cross_to_another_process() -> None:
    pixels = picture_patches(noise(64, 64), PatchShape(16, 2, 2, vision.levels_of(*MEANS["half"]))).pixels
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(pixels, protocol=5, buffer_callback=buffers.append)
    assert sum(len(buffer.raw()) for buffer in buffers) == 3 * 64 * 64 + pixels.levels.nbytes
    assert len(body) < 1000
