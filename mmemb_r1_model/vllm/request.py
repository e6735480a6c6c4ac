"""How vLLM is asked to write behind a prompt of ours, and what its answers must hold. No torch, no connection.

A request is a chat whose last turn is <think>, to be continued as it stands. Ids are the server's own, never those of
text that is tokenised again. Stage 2's rollouts (`vllm.rollouts`) and an evaluation's rationales (`embed.served`)
are asked for in this form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from PIL import Image

from mmeb_harness.adapter.pictures import data_url
from mmeb_harness.adapter.remote import RefusedError
from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.model.chat_template import BARE_VIDEO
from mmemb_r1_model.model.chat_template import PATH as TEMPLATE
from mmemb_r1_model.model.items import clip_size
from mmemb_r1_model.model.prompt import system_turn, words_behind
from mmemb_r1_model.model.settings import THINK, Settings
from mmemb_r1_model.model.vision import TEMPORAL_PATCH

#: What becomes JSON, or was some.
Json: TypeAlias = dict[str, Any]

CHAT_PATH = "chat/completions"
#: How a clip may have to be asked for, so that the server lays it out as we do: see `model.chat_template`.
CLIP_FORMS: tuple[Json, ...] = ({}, {"chat_template_kwargs": BARE_VIDEO})
#: The least that vLLM takes, for tokens that can't be written: e^-100 of what they had is left.
BIAS_OF_BANNED = -100.0
#: Tokens behind a rationale: </think> and <emb>.
CLOSING_TOKENS = 2


class UnfitError(Exception):
    """An answer without what is needed: what is wrong with it, to be read behind the server's name."""


def chat(item: Item, settings: Settings, factor: int) -> Json:
    """What of a request depends on the item: its turns, media as data URLs, and how to read these.

    A picture is sent as it is. The frames of a clip are sent in the size in which they are read, since transformers
    resizes clips by torchvision alone, which gives other pixels than Pillow.

    Args:
        factor: side of a visual token, in pixels.

    Raises:
        DataError: a picture that can't be read.
    """
    size = clip_size(item, settings, factor)[::-1] if item.frames else None  # width first, as Pillow has it
    asked = item.between(after=words_behind(settings, item.text))
    return {
        "messages": [
            {"role": "system", "content": system_turn(settings, item.instruction)},
            {"role": "user", "content": _parts(asked, size)},
            {"role": "assistant", "content": THINK},
        ],
        "add_generation_prompt": False,
        "continue_final_message": True,
        **_media_settings(item, settings, size),
    }


def texts_of(chat: Json) -> list[str]:
    """The words of a request's turns but the last, which is the reader's own."""
    contents = [turn["content"] for turn in chat["messages"][:-1]]
    parts = [[{"text": content}] if isinstance(content, str) else content for content in contents]
    return [part["text"] for some in parts for part in some if "text" in part]


def shows_clip(asked: Json) -> bool:
    """Whether what `chat` gave has a clip."""
    return "media_io_kwargs" in asked


def two_frames(folder: Path) -> Item:
    """A clip of two grey frames, by which a server can show how it lays out clips; they are written to `folder`."""
    path = folder / "frame.png"
    Image.new("RGB", (64, 64), "grey").save(path)
    return Item("two frames", frames=(path, path))


def sampling(temperature: float, max_new_tokens: int, banned: Iterable[int], ends: Sequence[int]) -> Json:
    """How the server chooses tokens, and where it stops.

    Args:
        max_new_tokens: of the rationale; what closes it is allowed for.
        banned: tokens that can't be written.
        ends: tokens that end the answer, and are part of it.
    """
    return {
        "max_tokens": max_new_tokens + CLOSING_TOKENS,
        # All of them: what is left out, vLLM takes from the checkpoint's generation_config.json.
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": {str(token): BIAS_OF_BANNED for token in sorted(banned)},
        "stop_token_ids": list(ends),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
    }


def choices_of(reply: Mapping[str, Any], count: int, item_id: str) -> list[Json]:
    """The answers of a reply.

    Raises:
        UnfitError: not as many as were asked for.
    """
    choices = reply.get("choices")
    if isinstance(choices, list) and not all(isinstance(choice, dict) for choice in choices):
        raise UnfitError(f"gives choices of item {item_id!r} that are no objects: it must be vLLM")
    if not isinstance(choices, list) or len(choices) != count:
        num_found = len(choices) if isinstance(choices, list) else 0
        raise UnfitError(
            f"gives {num_found} of {count} choices for item {item_id!r}: it doesn't heed `n`, as vLLM does; a proxy in "
            "between may drop it"
        )
    return choices


def ids_of(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """The tokens of an answer.

    Raises:
        UnfitError: there are none.
    """
    ids = choice.get("token_ids")
    if not _are_tokens(ids):
        raise UnfitError(
            "gives no token ids: it must be vLLM 0.10.2 or newer, which has `return_token_ids`, reached without a "
            "proxy that drops it"
        )
    return tuple(ids)


def _are_tokens(ids: object) -> TypeGuard[list[int]]:
    return isinstance(ids, list) and all(type(token) is int and 0 <= token < 2**31 for token in ids)


def other_prompt(reply: Mapping[str, Any], ours: Sequence[int], decode: Callable[[list[int]], str]) -> str | None:
    """How the prompt that the server saw differs from ours; `None` if it doesn't, as far as the reply tells."""
    theirs = reply.get("prompt_token_ids")
    if theirs is None:
        usage = reply.get("usage")
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return None if count in (None, len(ours)) else f"{count} tokens instead of {len(ours)}"
    if not _are_tokens(theirs):
        return "what it gives as its tokens is no list of numbers"
    if theirs == list(ours):
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((place for place, (own, other) in pairs if own != other), min(len(ours), len(theirs)))
    shown = [repr(decode(list(ids[place : place + 8]))) for ids in (theirs, ours)]
    return f"{len(theirs)} tokens instead of {len(ours)}; from position {place} on {shown[0]} instead of {shown[1]}"


def takes_none(refusal: RefusedError) -> bool:
    """Whether a server refuses pictures or clips as such, as its owner may have told it to."""
    return _NO_MEDIA in str(refusal)


def way_out(refusal: RefusedError, longest: int, checkpoint: str) -> str:
    """What to do about a request that the server doesn't want, by the server's own words.

    Args:
        longest: tokens of prompt and answer together.
        checkpoint: its name.
    """
    for fragments, advice in _WAYS_OUT:
        if any(fragment in str(refusal) for fragment in fragments):
            return advice.format(longest=longest, template=TEMPLATE)
    return f"It must serve this checkpoint ({checkpoint}), and be a vLLM that knows these settings of a request"


_NO_MEDIA = "may be provided in one prompt"
#: Words of vLLM's refusals (0.32), and what to do about them.
_WAYS_OUT = (
    (
        ("trust-request-mm-kwargs", "mm_processor_kwargs are disabled", "media_io_kwargs are disabled"),
        "Start vLLM with --trust-request-mm-kwargs: a request says by what sizes its pictures are read",
    ),
    (
        ("chat template",),
        "Start vLLM with --chat-template {template}; what add-tokens and train write now has one",
    ),
    (
        ("context length", "max_model_len", "max_tokens"),
        "Start vLLM with --max-model-len of at least {longest}, or let rationales be shorter",
    ),
    ((_NO_MEDIA,), "Start vLLM without --limit-mm-per-prompt"),
)


def _parts(item: Item, frame_size: tuple[int, int] | None) -> list[Json]:
    """An item's clip and words, or its pictures where they stand among these: a server puts tokens there."""
    if frame_size is None:
        return [_words(piece) if isinstance(piece, str) else _picture(piece) for piece in item.pieces]
    return [_clip(item.frames, frame_size), *([_words(item.text)] if item.text else [])]


def _words(text: str) -> Json:
    return {"type": "text", "text": text}


def _picture(path: Path) -> Json:
    return {"type": "image_url", "image_url": {"url": data_url(path, strictly=True)}}


def _clip(frames: Sequence[Path], size: tuple[int, int]) -> Json:
    urls = [data_url(path, strictly=True, size=size) for path in frames]
    # vLLM's form of a clip that is cut into frames already; it tells their true format by itself.
    urls += urls[-1:] * (-len(urls) % TEMPORAL_PATCH)
    joined = ",".join(url.partition(",")[2] for url in urls)
    return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{joined}"}}


def _media_settings(item: Item, settings: Settings, frame_size: tuple[int, int] | None) -> Json:
    """What vLLM must know to read an item's media as our reader does: sizes, and the times of frames."""
    if not item.media:
        return {}
    if frame_size is None:
        return {"mm_processor_kwargs": _reading(settings.min_pixels, settings.max_pixels)}
    num_frames = len(item.frames) + -len(item.frames) % TEMPORAL_PATCH
    clip = {
        "fps": settings.frames_per_second,
        "frames_indices": list(range(num_frames)),
        "total_num_frames": num_frames,
        "duration": num_frames / settings.frames_per_second,
        "do_sample_frames": False,
    }
    # Bounds that leave the frames as they are: of an odd number, the last one's copy may be beyond the clip's own.
    pixels = num_frames * math.prod(frame_size)
    return {
        "mm_processor_kwargs": {
            **_reading(min(settings.video_min_pixels, pixels), max(settings.video_max_pixels, pixels)),
            "cap_pixels_per_frame": False,  # of transformers 5.22, on by default there
        },
        "media_io_kwargs": {"video": clip},
    }


def _reading(least: int, most: int) -> Json:
    # Not the fast processors: they resize by torchvision.
    return {"size": {"shortest_edge": least, "longest_edge": most}, "use_fast": False}
