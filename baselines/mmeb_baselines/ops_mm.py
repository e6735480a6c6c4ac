"""Ops-MM-embedding: Qwen2-VL in GME's template, the instruction in the system turn, every frame an image.

Source: ops_mm_embedding_v1.py of OpenSearch-AI/Ops-MM-embedding-v1-*, and mteb's wrapper of it (8 frames).
"""

from __future__ import annotations

import dataclasses
from functools import partial

from mmeb_baselines import gme
from mmeb_baselines.cards import Card
from mmeb_baselines.qwen.embedder import Family, loader
from mmeb_baselines.qwen.prompt import DEFAULT_SYSTEM, END_OF_TEXT, Parts, between_vision_tokens, chat, pictures
from mmeb_baselines.qwen.sizes import TOKEN, clipped, within
from mmeb_harness import Frames, Item, Role

SIZES = (clipped(within(256 * TOKEN, 1280 * TOKEN, 28)),)

_card = partial(
    Card,
    model="ops_mm",
    prompt="chat: system INSTRUCTION, user images and TEXT, <|endoftext|> after the answer's opening",
    pooling="<|endoftext|>, after the final norm",
    resolution="256 to 1,280 tokens of 28 x 28, frames too",
    frames="8, an image each",
    license="apache-2.0",
    source="ops_mm_embedding_v1.py; mteb, ops_mm_models.py",
    unsure="which instructions its publisher's MMEB-V2 scores had on the candidates' side",
)
CARDS = (
    _card("OpenSearch-AI/Ops-MM-embedding-v1-2B", "69c23ac5595bb7fb3a9959df96fe155b3650c01e", 2_208_985_600, 1536),
    _card(
        *("OpenSearch-AI/Ops-MM-embedding-v1-7B", "e9179f601f9bf21d2fd20136c11eb4ae2ea42859", 8_291_375_616, 3584),
        published="Ops-MM-embedding-v1-8B",
    ),
)
PROFILE = dataclasses.replace(gme.PROFILE, name="ops_mm", candidate_instruction="the task's own", frames=Frames())


def parts(item: Item, role: Role) -> Parts:
    """Both sides alike; a bare label has no instruction and gets the template's default."""
    shown = between_vision_tokens(pictures(item, SIZES))
    return chat(item.instruction or DEFAULT_SYSTEM, [*shown, item.text], END_OF_TEXT)


FAMILY = Family(CARDS, PROFILE, parts, positions="multimodal", keeps_template=True)
load = loader(FAMILY, "Ops-MM-embedding-v1 on Qwen2-VL 2B and 7B.")
