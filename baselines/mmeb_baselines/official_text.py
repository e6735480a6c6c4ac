"""The official evaluation's input strings (Qwen2-VL family), rebuilt from items byte for byte.

The quirks live here, not in the data: stray tokens, double spaces, newlines that depend on the parser. Source:
process_input_text and the parsers of VLM2Vec at 6e1e1d42, checked against their outputs for all 78 tasks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from mmeb_harness import Item
from mmeb_harness.adapter.texts import Template

IMAGE_TOKEN = "<|image_pad|>"
VIDEO_TOKEN = "<|video_pad|>"
#: Of a text without media, in MMEB-V3's evaluation of most backbones; what is longer loses its end there.
OFFICIAL_TEXT_TOKENS = 2048
#: What the original data set wrote where an image belongs.
LEGACY_IMAGE_TOKEN = "<|image_1|>"
#: Code points that no text means anything by.
_PRIVATE = range(0xE000, 0xF900)


def official_text(item: Item, image_token: str = IMAGE_TOKEN, video_token: str = VIDEO_TOKEN) -> str:
    """The string that the official code hands to the processor for `item`."""
    stored = _stored(item)
    without_token = stored.replace(LEGACY_IMAGE_TOKEN, "")
    match item.source.layout:
        case "bare":
            return item.text
        case "basic":
            token = video_token if item.frames else image_token if item.images else ""
            return _basic(stored, item.text, token)
        case "classification":
            return _tight(_basic(without_token, item.text, image_token)) + "\n"
        case "question":
            return _tight(_basic("\n" + without_token.strip(), item.text, image_token)) + "\n"
        case "text_query":
            # The legacy token of WebQA and EDIS becomes an image token, though there is no image.
            return _text_query(stored, item.text, image_token)
        case "dialogue_query":
            return _text_query(stored, item.text, image_token) + "\n"
        case "captioned":
            return _tight(f"{image_token} {without_token} {item.text}") + "\n"
        case "uncaptioned_line":
            return _tight(f"{image_token} {without_token}") + "\n"
        case "uncaptioned":
            return _tight(f"{image_token} {without_token}")
        case "video_question":
            # The prompt itself ends in a space: two spaces precede the question.
            return f"{video_token} {stored} {item.text}"
        case "joined":
            return f"{stored} {item.text}".strip() if stored else item.text
        case "interleaved" if stored:  # tokens and pictures that don't fit each other
            return stored.replace(LEGACY_IMAGE_TOKEN, image_token)
        case "interleaved":
            ends = (0, *item.places, len(item.text))
            return image_token.join(item.text[start:end] for start, end in itertools.pairwise(ends))
        case "sound_query":
            return f"{stored}\nQuery: {item.text}" if item.text else stored


def _stored(item: Item) -> str:
    """The instruction as the benchmark spells it; people's own data has but the one."""
    return item.source.instruction or item.instruction


def _basic(instruction: str, text: str, token: str) -> str:
    joined = f"{instruction} {text}" if text else instruction
    return f"{token} {joined}" if token else joined


def _text_query(instruction: str, text: str, image_token: str) -> str:
    return instruction.replace(LEGACY_IMAGE_TOKEN, image_token) + " " + text + "\n"


def _tight(text: str) -> str:
    """No space before a newline; applied before the final newline is added."""
    return text.replace(" \n", "\n")


def official_text_without_media_tokens(
    item: Item, image_token: str = IMAGE_TOKEN, video_token: str = VIDEO_TOKEN
) -> str:
    """What the official code hands to GME and LamRA, which place media themselves.

    No token for the item's own pictures or frames, but the space that would have followed the instruction; video
    questions and the queries of WebQA and EDIS keep theirs, as text.
    """
    stored = _stored(item)
    without_token = stored.replace(LEGACY_IMAGE_TOKEN, "")
    match item.source.layout:
        case "basic":
            return f"{stored} {item.text}" if stored else item.text
        case "classification":
            return _tight(f"{without_token} {item.text}") + "\n"
        case "question":
            return _tight(f"\n{without_token.strip()} {item.text}") + "\n"
        case "captioned":
            return _tight(f"{without_token} {item.text} ") + "\n"
        case "uncaptioned_line":
            return _tight(f"{without_token} ") + "\n"
        case "uncaptioned":
            return _tight(f"{without_token} ")
        case "interleaved":
            # Officially the tokens stay, and would be counted against the one picture that is shown.
            return item.text
        case _:
            return official_text(item, image_token, video_token)


#: How an official string is written.
OfficialText = Callable[[Item, str, str], str]


def official_pieces(item: Item, written: OfficialText = official_text) -> list[str]:
    """The string in pieces: data, and as templates the tokens that the official code itself puts there.

    They are written as characters that the item doesn't have, and told apart by these.
    """
    own = {*item.text, *_stored(item)}
    image, video = itertools.islice((mark for mark in map(chr, _PRIVATE) if mark not in own), 2)
    tokens = {image: Template(IMAGE_TOKEN), video: Template(VIDEO_TOKEN)}
    return [tokens.get(piece, piece) for piece in re.split(f"([{image}{video}])", written(item, image, video)) if piece]
