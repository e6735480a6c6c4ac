"""LamRA-Ret: Qwen2-VL or Qwen2.5-VL asked to sum up what it sees in one word; the state that would begin the answer.

Source: code-kunkun/LamRA, models/qwen2_vl.py, datasets and collators; the leaderboard's profile from VLM2Vec's
src/model/baseline_backbone/lamra, one file for either backbone. LamRA reads the state just before its <emb>: the model
is causal, so nothing from there on matters and <emb> is not needed. They call the text model with embeddings alone:
plain positions. Only LamRA's own code for Qwen2.5-VL, of which forks alone could be read, takes the model's (M-RoPE).
"""

from __future__ import annotations

import dataclasses
from functools import partial

from mmeb_baselines.cards import Card
from mmeb_baselines.gme import FETCHED, middle_picture
from mmeb_baselines.official_text import OFFICIAL_TEXT_TOKENS, official_pieces, official_text_without_media_tokens
from mmeb_baselines.qwen.embedder import Family, profiled_loader
from mmeb_baselines.qwen.prompt import DEFAULT_SYSTEM, Parts, between_vision_tokens, chat, pictures, video
from mmeb_baselines.qwen.sizes import TOKEN, Resize, within
from mmeb_harness import Item, Profile, Role

#: Its own copy of Qwen's picture code: at most 300 tokens, in training and evaluation.
OWN: tuple[Resize, ...] = (within(4 * TOKEN, 300 * TOKEN, 28),)
LEADERBOARD: tuple[Resize, ...] = (FETCHED, within(256 * TOKEN, 1280 * TOKEN, 28))

_card = partial(
    Card,
    model="lamra",
    prompt="chat: user image, INSTRUCTION TEXT and 'Summarize above … in one word: '",
    pooling="newline that opens the answer, after the final norm",
    resolution="4 to 300 tokens of 28 x 28 (leaderboard: 256 to 1,280)",
    frames="own: 8, as a video; leaderboard: the middle frame",
    license="MIT (repository)",
)
CARDS = (
    _card(
        *("code-kunkun/LamRA-Ret", None, 8_291_375_616, 3584),
        source="LamRA, models/qwen2_vl.py; VLM2Vec, src/model/baseline_backbone/lamra",
        published="LamRA-Ret",
        unsure="its own repository was read in a fork's first commit",
    ),
    _card(
        *("code-kunkun/LamRA-Ret-Qwen2.5VL-7b", None, 8_292_166_656, 3584),
        source="VLM2Vec, src/model/baseline_backbone/lamra/lamra_qwen25_inference.py; forks of LamRA",
        published="LamRA-Ret-Qwen2.5VL-7b",
        unsure="its own code: positions and picture sizes, read in forks",
    ),
)
PROFILE = Profile(
    name="lamra",
    instruction="user text",
    candidate_instruction="none",
    whitespace="kept",
    pooling="newline that opens the answer, after the final norm",
    min_pixels=4 * TOKEN,
    max_pixels=300 * TOKEN,
)


def own_parts(item: Item, role: Role) -> Parts:
    """As LamRA's own data sets write it. A frame list has the bounds of pictures, each frame."""
    spoken = [item.instruction, item.text] if role == "query" else [item.text]
    text = " ".join(part for part in spoken if part)
    shown = [video(item, OWN)] if item.frames else pictures(item, OWN)
    kinds = ["video"] if item.frames else ["image"] if item.images else []
    kinds += ["sentence"] if text or not kinds else []
    return chat(
        DEFAULT_SYSTEM,
        [*between_vision_tokens(shown), f"{text}\nSummarize above {' and '.join(kinds)} in one word: "],
    )


def leaderboard_parts(item: Item, role: Role) -> Parts:
    """As VLM2Vec's wrapper writes it: a text without a picture ends in one more newline."""
    shown = between_vision_tokens(middle_picture(item, LEADERBOARD))
    text = [*official_pieces(item, official_text_without_media_tokens), "" if shown else "\n"]
    closing = "<emb>.<|im_end|>\n<|im_start|>assistant\n"
    return chat(DEFAULT_SYSTEM, [*shown, text], closing)


FAMILY = Family(
    cards=CARDS,
    profile=PROFILE,
    recipe=own_parts,
    positions="sequential",
    positions_of_type={"qwen2_5_vl": "multimodal"},
    settings={"frames": "a video"},
    keeps_template=True,
)
LEADERBOARD_FAMILY = dataclasses.replace(
    FAMILY,
    profile=dataclasses.replace(
        PROFILE,
        name="lamra leaderboard",
        candidate_instruction="the task's own",
        whitespace="official",
        pooling="newline after '<emb>.', after the final norm",
        min_pixels=256 * TOKEN,
        max_pixels=1280 * TOKEN,
    ),
    recipe=leaderboard_parts,
    positions_of_type={},
    max_text_tokens=OFFICIAL_TEXT_TOKENS,
    settings={"frames": "the middle one"},
)
load = profiled_loader(
    FAMILY,
    LEADERBOARD_FAMILY,
    """LamRA-Ret on Qwen2-VL 7B or Qwen2.5-VL 7B; its own prompts, or those behind its rows on MMEB-V2's leaderboard.

    Args:
        profile: own: "Summarize above … in one word", candidates without instruction, frames as a video. leaderboard:
            the official strings, a video's middle frame, and the last token after "<emb>.", which is text there.
    """,
)
