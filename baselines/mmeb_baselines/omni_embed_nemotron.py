"""omni-embed-nemotron: the thinker of Qwen2.5-Omni, reading both ways, its states' mean.

Source: the checkpoint's modeling code and config_sentence_transformers.json as quoted in public repositories (attention
in both directions, "query: " and "passage: "), mteb 2.26 (bounds of frames, 2 frames a second), 1_Pooling/config.json
(mean, over the prompt too). The chat template is the checkpoint's own. Its code calls itself `nvomniembed`, which
transformers doesn't know: it is a subclass of Qwen2_5OmniThinkerForConditionalGeneration without further weights.
The leaderboard's profile from VLM2Vec's evaluation of MMEB-V3, src/model/processor.py at 44f991d: what is shown and
heard comes before the text, which is the official string without media tokens and with single blanks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

from mmeb_baselines.cards import Card, find_pinned
from mmeb_baselines.embedder import Attention, Place, UploadedBatch
from mmeb_baselines.official_text import OFFICIAL_TEXT_TOKENS, official_text
from mmeb_baselines.qwen.embedder import Family, QwenEmbedder, limited, open_embedder, picture_bounds
from mmeb_baselines.qwen.model import mean_of
from mmeb_baselines.qwen.prompt import Parts, Slot, SoundSlot, heard, pictures, video
from mmeb_baselines.qwen.sizes import within
from mmeb_harness import Frames, Item, ModelError, Profile, Role, Vectors
from mmeb_harness.adapter.checkpoints import CHECKPOINT_FILES, CheckpointFolder
from mmeb_harness.adapter.texts import Template
from mmeb_harness.adapter.weights import HEAD, load_pretrained

PREFIXES: dict[Role, str] = {"query": "query: ", "candidate": "passage: "}
IMAGE, VIDEO, AUDIO = "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>"
PADS = (IMAGE, VIDEO, AUDIO)
FACTOR = 28
FRAME_MIN_PIXELS, FRAME_MAX_PIXELS = 32 * 14 * 14, 64 * 28 * 28
SECONDS_PER_PAIR = 1.0  # two frames a second, two frames a patch
NUM_FRAMES = 64
TEMPLATES = ("chat_template.jinja", "chat_template.json")
#: Where a text stands in a rendered template.
_MARK = "\ue000"

CARDS = (
    Card(
        *("nvidia/omni-embed-nemotron-3b", "e0e93aaaa65d2422a8a0c1284116e71f7a0fe966", 4_703_464_448, 2048),
        model="omni_embed_nemotron",
        prompt='chat, by its own template: user "query: TEXT" (candidates: "passage: TEXT"), then the image or sound; '
        "leaderboard: image or sound, then the official string",
        pooling="mean of all tokens, after the final norm",
        resolution="as its preprocessor_config.json says; a frame 6,272 to 50,176 pixels",
        frames="64, as a video of 2 a second",
        license="NVIDIA's own, non-commercial (by mteb 2.26: its LICENSE on the hub)",
        source="its modeling code (quoted in public repositories); mteb 2.26 (revision, parameters, frames)",
        unsure="its files: chat template and bounds of pictures are read from them; which instructions its authors "
        "used on MMEB (here none); where a sound stands (here last); the bounds of its pictures on the leaderboard "
        "(here its own)",
    ),
)
PROFILE = Profile(
    name="omni_embed_nemotron",
    instruction="none",
    candidate_instruction="none",
    whitespace="kept",
    pooling="mean of all tokens, after the final norm",
    frames=Frames(video=NUM_FRAMES, clip=8),
)
LEADERBOARD = dataclasses.replace(
    PROFILE,
    name="omni_embed_nemotron leaderboard",
    instruction="user text",
    candidate_instruction="the task's own",
    whitespace="official",
    frames=Frames(),
)


def load(
    path: str | None = None,
    revision: str | None = None,
    profile: Literal["own", "leaderboard"] = "own",
    max_text_tokens: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
) -> QwenEmbedder:
    """omni-embed-nemotron 3B on Qwen2.5-Omni; its own prompts, or those behind its rows on MMEB-V3's leaderboard.

    Args:
        profile: own: "query: " and "passage: ", then what is shown or heard; 64 frames a video. leaderboard: what is
            shown or heard, then the official strings; 8 frames.
    """
    checkpoint = find_pinned(CARDS, path, revision, (*CHECKPOINT_FILES, "chat_template.jinja"))
    low, high = picture_bounds(checkpoint)
    stated = PROFILE if profile == "own" else LEADERBOARD
    family = Family(
        cards=CARDS,
        profile=dataclasses.replace(stated, min_pixels=low, max_pixels=high),
        recipe=recipe(chat_template(checkpoint), low, high, leaderboard=profile == "leaderboard"),
        positions="multimodal",
        load=load_thinker,
        pool=mean_states,
        pads=(IMAGE, VIDEO),
        media=("image", "video", "audio"),
        hears=AUDIO,
        # Officially a text loses the end of the template with its own.
        max_text_tokens=OFFICIAL_TEXT_TOKENS if profile == "leaderboard" else None,
        keeps_template=True,
    )
    return open_embedder(limited(family, max_text_tokens), checkpoint, Place(device, dtype, attention))


def chat_template(checkpoint: CheckpointFolder) -> str:
    """The checkpoint's own.

    Raises:
        ModelError: it has none.
    """
    jinja, in_json = (checkpoint.path / name for name in TEMPLATES)
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    if in_json.is_file():
        return checkpoint.value(in_json.name, "chat_template", kind=str)
    raise ModelError(f"checkpoint {checkpoint.path} has neither {' nor '.join(TEMPLATES)}; get it whole")


def recipe(template: str, low: int, high: int, *, leaderboard: bool) -> Callable[[Item, Role], Parts]:
    """How an item is written: its text first, then what is shown or heard; on the leaderboard the other way round."""
    image, frame = within(low, high, FACTOR), within(FRAME_MIN_PIXELS, FRAME_MAX_PIXELS, FACTOR)

    def parts(item: Item, role: Role) -> Parts:
        slots = [video(item, [frame])] if item.frames else pictures(item, [image])
        shown = ("video",) if item.frames else ("image",) * len(slots)
        shown += ("audio",) if item.sound else ()
        rest: Iterator[Slot | SoundSlot] = iter([*slots, *heard(item)])
        text = _official_words(item) if leaderboard else PREFIXES[role] + item.text
        joined: Parts = []
        for piece in _rendered(template, shown, text_last=leaderboard):
            if piece in PADS:
                joined.append(next(rest))
            else:
                joined.append((Template(piece),) if piece != _MARK else (text,))
        return joined

    return parts


def _official_words(item: Item) -> str:
    """The official string without its media tokens, every stretch of blanks as one."""
    return " ".join(official_text(item, "", "").split())


@lru_cache
def _rendered(template: str, shown: tuple[str, ...], *, text_last: bool) -> list[str]:
    """A user's turn of a text and of such media, split at both.

    Raises:
        ModelError: the template leaves one out.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    content = [{"type": "text", "text": _MARK}, *({"type": kind, kind: "-"} for kind in shown)]
    content = [*content[1:], content[0]] if text_last else content
    rendered = render_jinja_template([[{"role": "user", "content": content}]], chat_template=template)
    text = rendered[0][0] if isinstance(rendered, tuple) else rendered[0]
    pieces = [piece for piece in re.split(f"({'|'.join(map(re.escape, (_MARK, *PADS)))})", text) if piece]
    if pieces.count(_MARK) != 1 or sum(piece in PADS for piece in pieces) != len(shown):
        raise ModelError(f"the checkpoint's chat template writes a text and {len(shown)} media as {text!r:.200}")
    return pieces


def load_thinker(checkpoint: CheckpointFolder, device: str, dtype: str, attention: str) -> Any:
    """The model without its language head, every token seeing every other.

    Raises:
        ModelError: weights are missing, don't fit, or not into memory.
    """
    import transformers

    own_names = ("model_type", "architectures", "auto_map")
    values = {name: value for name, value in checkpoint.json("config.json").items() if name not in own_names}
    config = transformers.Qwen2_5OmniThinkerConfig.from_dict(values)
    config.text_config.is_causal = False  # transformers then makes the mask of a padded batch from it
    architecture = "Qwen2_5OmniThinkerForConditionalGeneration"
    place = (checkpoint, device, dtype, attention)
    model = load_pretrained(transformers, architecture, *place, unused=HEAD, config=config).model
    for layer in model.language_model.layers:
        layer.self_attn.is_causal = False
    return model


def mean_states(model: Any, batch: UploadedBatch) -> Vectors:
    """Mean state (n, d) of each prompt's tokens, of unit length."""
    import torch

    inputs = {name: value for name, value in batch.inputs.ready().items() if name != "mm_token_type_ids"}
    if (grids := inputs.get("video_grid_thw")) is not None:
        inputs["video_second_per_grid"] = torch.full((len(grids),), SECONDS_PER_PAIR, device=grids.device)
    with torch.inference_mode():
        states = model(**inputs, use_cache=False).last_hidden_state
        return mean_of(states, inputs["attention_mask"])
