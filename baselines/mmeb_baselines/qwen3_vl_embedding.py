"""Qwen3-VL-Embedding: the instruction in the system turn, the state that would begin the answer.

Source: QwenLM/Qwen3-VL-Embedding, src/models/qwen3_vl_embedding.py and src/evaluation/mmeb_v2, with qwen-vl-utils
0.0.14. The layout of videos is that of transformers 4.57, with which the published scores were made: a time before each
pair of frames, no further vision tokens around the whole (5.10 and later add them). Times are those of 2 frames a
second, whatever the video's own rate: frame lists carry none.
"""

from __future__ import annotations

import unicodedata
from functools import partial

from mmeb_baselines.cards import Card
from mmeb_baselines.qwen.embedder import Family, loader
from mmeb_baselines.qwen.prompt import Parts, Slot, between_vision_tokens, chat, pictures
from mmeb_baselines.qwen.sizes import Resize, within
from mmeb_harness import Frames, Item, Profile, Role

DEFAULT_INSTRUCTION = "Represent the user's input."
FACTOR = 32
TOKEN = FACTOR * FACTOR
MIN_PIXELS, MAX_PIXELS = 4 * TOKEN, 1800 * TOKEN
VIDEO_PIXELS = 7_864_320  # of all frames of a video
FRAME_MIN_PIXELS, FRAME_MAX_PIXELS = 128 * TOKEN, 768 * TOKEN
FRAMES_PER_SECOND = 2.0
NUM_FRAMES = 64
MAX_LENGTH = 8192

_card = partial(
    Card,
    model="qwen3_vl_embedding",
    prompt='chat: system INSTRUCTION, user video, image, TEXT; candidates: "Represent the user\'s input."',
    pooling="newline that opens the answer, after the final norm",
    resolution="4,096 to 1,843,200 pixels; a video 7,864,320 in all",
    frames="64, as a video with times",
    license="apache-2.0",
    matryoshka=64,
    source="QwenLM/Qwen3-VL-Embedding (read in forks), qwen-vl-utils 0.0.14",
)
CARDS = (
    _card(
        *("Qwen/Qwen3-VL-Embedding-2B", "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda", 2_127_532_032, 2048),
        published="Qwen3-VL-Embedding-2B",
    ),
    _card(
        *("Qwen/Qwen3-VL-Embedding-8B", "2c4565515e0f265c6511776e7193b22c0968ddc7", 8_144_793_840, 4096),
        published="Qwen3-VL-Embedding-8B",
    ),
)
PROFILE = Profile(
    name="qwen3_vl_embedding",
    instruction="system turn",
    candidate_instruction="one for all",
    whitespace="kept",
    pooling="newline that opens the answer, after the final norm",
    frames=Frames(video=NUM_FRAMES, clip=8),
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
    video_max_pixels=VIDEO_PIXELS,
)


def parts(item: Item, role: Role) -> Parts:
    """Media, then text, nothing between."""
    shown = _video(item) if item.frames else between_vision_tokens(pictures(item, [IMAGE_SIZE], white=True))
    return chat(instruction_of(item, role), [*shown, item.text])


def instruction_of(item: Item, role: Role) -> str:
    """A query's own, ended by a full stop unless by any punctuation; one for all candidates."""
    own = item.instruction.strip() if role == "query" else ""
    if not own:
        return DEFAULT_INSTRUCTION
    return own if unicodedata.category(own[-1]).startswith("P") else own + "."


IMAGE_SIZE = within(MIN_PIXELS, MAX_PIXELS, FACTOR)


def video_sizes(num_frames: int) -> tuple[Resize, Resize]:
    """A frame's sizes: as a picture on a grid of 64 pixels (so in qwen-vl-utils 0.0.14), then by the video's budget."""
    even = num_frames + num_frames % 2
    most = max(min(FRAME_MAX_PIXELS, VIDEO_PIXELS * 2 // even), int(FRAME_MIN_PIXELS * 1.05))
    grid = 2 * FACTOR
    return within(4 * grid**2, 16384 * grid**2, grid), within(FRAME_MIN_PIXELS, most, FACTOR)


def _video(item: Item) -> Parts:
    """A time before each pair of frames, each pair between vision tokens."""
    steps = video_sizes(len(item.frames))
    shown: Parts = []
    for start in range(0, len(item.frames), 2):
        seconds = (start + 0.5) / FRAMES_PER_SECOND
        slot = Slot(item.frames[start : start + 2], True, steps, white=True)
        shown += [f"<{seconds:.1f} seconds>", *between_vision_tokens([slot])]
    return shown


FAMILY = Family(CARDS, PROFILE, parts, positions="multimodal", max_length=MAX_LENGTH)
load = loader(
    FAMILY, "Qwen3-VL-Embedding 2B and 8B: 64 frames, instruction in the system turn, Matryoshka (64 or more, --dim)."
)
