"""GME: Qwen2-VL with an <|endoftext|> after the answer's opening, whose state is the vector.

Source: modeling_gme_qwen2vl.py of Alibaba-NLP/gme-Qwen2-VL-*; the leaderboard's profile from VLM2Vec's
src/model/baseline_backbone/gme. Both call the text model with embeddings alone, so that positions are plain. The
vendor's code needs transformers below 4.52; the weights are those of an ordinary Qwen2-VL and load without it.

That code shows one picture an item. Several stand one after another before the text here, as frames do; the
leaderboard's wrapper shows the middle one of them, as of a video's frames, and the result counts these items.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from mmeb_baselines.cards import Card
from mmeb_baselines.official_text import official_pieces, official_text_without_media_tokens
from mmeb_baselines.qwen.embedder import Family, profiled_loader
from mmeb_baselines.qwen.prompt import DEFAULT_SYSTEM, END_OF_TEXT, Parts, Slot, between_vision_tokens, chat, pictures
from mmeb_baselines.qwen.sizes import TOKEN, Resize, clipped, within
from mmeb_harness import Frames, Item, Profile, Role

#: First the bounds of Qwen2-VL's own `fetch_image`, then the model's.
FETCHED = clipped(within(4 * TOKEN, 16384 * TOKEN, 28))
OWN: tuple[Resize, ...] = (FETCHED, within(256 * TOKEN, 1280 * TOKEN, 28))
#: The wrapper computes a lower bound of 256 tokens too, and doesn't use it.
LEADERBOARD: tuple[Resize, ...] = (FETCHED, within(4 * TOKEN, 1280 * TOKEN, 28))
MAX_LENGTH = 1800
#: Of a video, our choice, since the model has none: as many of its smallest pictures as its length holds, and a text.
NUM_FRAMES = 6
FRAME_TOKENS = 1600

_card = partial(
    Card,
    model="gme",
    prompt="chat: system INSTRUCTION, user image and TEXT, <|endoftext|> after the answer's opening",
    pooling="<|endoftext|>, after the final norm",
    resolution="256 to 1,280 tokens of 28 x 28",
    frames="own: 6 images (our choice: it has no video); leaderboard: the middle frame",
    license="apache-2.0",
    source="modeling_gme_qwen2vl.py; VLM2Vec, src/model/baseline_backbone/gme",
    unsure="names of its weights on the hub",
)
CARDS = (
    _card(
        *("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "ce765ae71b8cdb208203cd8fb64a170b1b84293a", 2_208_985_600, 1536),
        published="GME-2B",
    ),
    _card(
        *("Alibaba-NLP/gme-Qwen2-VL-7B-Instruct", "477027a6480f8630363be77751f169cc3434b673", 8_291_375_616, 3584),
        published="GME-7B",
    ),
)
PROFILE = Profile(
    name="gme",
    instruction="system turn",
    candidate_instruction="none",
    whitespace="kept",
    pooling="<|endoftext|>, after the final norm",
    frames=Frames(video=NUM_FRAMES, clip=NUM_FRAMES),
    min_pixels=256 * TOKEN,
    max_pixels=1280 * TOKEN,
)


def own_parts(item: Item, role: Role) -> Parts:
    """As the model's own code writes it: an image, then the text, nothing between."""
    system = (item.instruction if role == "query" else "") or DEFAULT_SYSTEM
    shown = pictures(item, _frame_sizes(len(item.frames)) if item.frames else OWN)
    return chat(system, [*between_vision_tokens(shown), item.text], END_OF_TEXT)


def _frame_sizes(count: int) -> tuple[Resize, ...]:
    """A picture's, but together they fit, if they are few enough."""
    return FETCHED, within(256 * TOKEN, min(1280, max(256, FRAME_TOKENS // count)) * TOKEN, 28)


def leaderboard_parts(item: Item, role: Role) -> Parts:
    """As VLM2Vec's wrapper writes it."""
    shown = between_vision_tokens(middle_picture(item, LEADERBOARD))
    return chat(DEFAULT_SYSTEM, [*shown, official_pieces(item, official_text_without_media_tokens)], END_OF_TEXT)


def middle_picture(item: Item, steps: tuple[Resize, ...]) -> list[Slot]:
    """The image; of several, or of a video's frames, the one that VLM2Vec's wrappers show."""
    return [Slot((item.media[len(item.media) // 2],), False, steps)] if item.media else []


FAMILY = Family(
    cards=CARDS,
    profile=PROFILE,
    recipe=own_parts,
    positions="sequential",
    max_length=MAX_LENGTH,
    settings={"frames": "an image each"},
)
LEADERBOARD_FAMILY = dataclasses.replace(
    FAMILY,
    profile=dataclasses.replace(
        PROFILE,
        name="gme leaderboard",
        instruction="user text",
        candidate_instruction="the task's own",
        whitespace="official",
        frames=Frames(),
        min_pixels=4 * TOKEN,
    ),
    recipe=leaderboard_parts,
    settings={"frames": "the middle one"},
)
load = profiled_loader(
    FAMILY,
    LEADERBOARD_FAMILY,
    """GME on Qwen2-VL 2B and 7B; its own prompts, or those behind its rows on MMEB-V2's leaderboard.

    Args:
        profile: own: the query's instruction in the system turn, candidates without one, all frames as images.
            leaderboard: the official strings in the user's turn, a video's middle frame.
    """,
)
