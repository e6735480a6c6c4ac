"""RzenEmbed: Qwen2-VL in GME's template, the instruction before the text, every frame a small image.

Source: rzen_embed_inference.py of 360CVGroup/RzenEmbed. It hands the text model embeddings alone: plain positions.
There, a video anywhere in a batch makes the batch's images as small as frames; here an image has its own bounds.
"""

from __future__ import annotations

import dataclasses

from mmeb_baselines import ops_mm
from mmeb_baselines.cards import Card
from mmeb_baselines.gme import FETCHED
from mmeb_baselines.qwen.embedder import Family, loader
from mmeb_baselines.qwen.prompt import DEFAULT_SYSTEM, END_OF_TEXT, Parts, between_vision_tokens, chat, pictures
from mmeb_baselines.qwen.sizes import TOKEN, within
from mmeb_harness import Item, Role

IMAGE_SIZES = (FETCHED, within(256 * TOKEN, 1280 * TOKEN, 28))
FRAME_SIZES = (FETCHED, within(160 * TOKEN, 180 * TOKEN, 28))
MAX_LENGTH = 2000

CARDS = (
    Card(
        *("qihoo360/RzenEmbed", "ea95c339008f9639420fcb33ba2ba606ea94be78", 8_291_375_616, 3584),
        model="rzen_embed",
        prompt="chat: user images, INSTRUCTION TEXT, <|endoftext|> after the answer's opening",
        pooling="<|endoftext|>, after the final norm",
        resolution="256 to 1,280 tokens of 28 x 28; a frame 160 to 180",
        frames="8, an image each",
        license="MIT",
        source="360CVGroup/RzenEmbed, rzen_embed_inference.py",
        published="RzenEmbed-8B",
        unsure="whether version 1 has another template",
    ),
)
PROFILE = dataclasses.replace(ops_mm.PROFILE, name="rzen_embed", instruction="user text")


def parts(item: Item, role: Role) -> Parts:
    """Both sides alike. Its code joins instruction and text as they are; its own instructions end in a space."""
    shown = between_vision_tokens(pictures(item, FRAME_SIZES if item.frames else IMAGE_SIZES))
    text = " ".join(part for part in (item.instruction, item.text) if part)
    return chat(DEFAULT_SYSTEM, [*shown, text], END_OF_TEXT)


FAMILY = Family(CARDS, PROFILE, parts, positions="sequential", max_length=MAX_LENGTH)
load = loader(FAMILY, "RzenEmbed on Qwen2-VL 7B.")
