"""The chat template of a checkpoint: by it a server lays out a prompt as training did.

vLLM serves no checkpoint without one. Of clips there are two forms, since transformers changed what it replaces by
frames, each of them with its own vision tokens around it:

    <|vision_start|><|video_pad|><|vision_end|>   whole, up to transformers 5.9, as published Qwen3-VL were trained
    <|video_pad|>                                 this alone, from 5.10 on: the outer two then stay around all frames

A template that writes the first unless it is asked for the second (`bare_video`) is right for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmemb_r1_model.disk.errors import one_line
from mmemb_r1_model.disk.files import read_object
from mmemb_r1_model.model.prompt import IMAGE_PAD, TURN_END, TURN_START, VIDEO_PAD, VISION_END, VISION_START
from mmemb_r1_model.model.settings import THINK

NAME = "chat_template.jinja"
#: Ours.
PATH = Path(__file__).resolve().parents[1] / "tiny" / NAME
#: The template's own switch, as a request sets it.
BARE_VIDEO = {"bare_video": True}

_PICTURE = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
_CLIP = f"{VISION_START}{VIDEO_PAD}{VISION_END}"
#: What must come out, for which part of a message and which switches.
_CASES: tuple[tuple[str, str | None, Mapping[str, bool], str], ...] = (
    ("a text", None, {}, ""),
    ("a picture", "image", {}, _PICTURE),
    ("a clip", "video", {}, _CLIP),
    ("a clip for transformers 5.10 and newer", "video", BARE_VIDEO, VIDEO_PAD),
)


def write_chat_template(source: Path, folder: Path) -> str | None:
    """Write a template that renders what training reads: that of the checkpoint in `source`, or ours.

    Returns:
        Why the one in `source` can't be it; `None` if it is kept, or there is none.
    """
    template = _template_of(source)
    reason = None if template is None else _difference(template)
    kept = PATH.read_text(encoding="utf-8") if template is None or reason else template
    (folder / NAME).write_text(kept, encoding="utf-8")
    return reason


def _template_of(folder: Path) -> str | None:
    """The template of a checkpoint, from where transformers looks for one, in its order."""
    if (folder / NAME).is_file():
        return (folder / NAME).read_text(encoding="utf-8")
    for file in ("chat_template.json", "tokenizer_config.json"):
        path = folder / file
        template = read_object(path, "get the checkpoint whole").get("chat_template") if path.is_file() else None
        if isinstance(template, list):  # several by name
            template = {own.get("name"): own.get("template") for own in template}.get("default")
        if isinstance(template, str):
            return template
    return None


def _difference(template: str) -> str | None:
    """What a template renders otherwise than training."""
    for case, kind, switches, media in _CASES:
        expected = (
            f"{TURN_START}system\n rules\n{TURN_END}\n{TURN_START}user\n{media}\ntext \nrequest\n{TURN_END}\n"
            f"{TURN_START}assistant\n{THINK}"
        )
        try:
            rendered = _rendered(template, kind, switches)
        except Exception as error:  # a program of somebody else's, which may raise anything
            return f"{case} can't be rendered by it ({one_line(error, 100)})"
        if rendered != expected:
            return f"it renders {case} as {rendered!r}, and training reads {expected!r}"
    return None


def _rendered(template: str, kind: str | None, switches: Mapping[str, bool]) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    media: list[dict[str, Any]] = [] if kind is None else [{"type": kind}]
    words = {"type": "text", "text": "\ntext \nrequest\n"}
    chat = [
        {"role": "system", "content": [{"type": "text", "text": " rules\n"}]},
        {"role": "user", "content": [*media, words]},
        {"role": "assistant", "content": [{"type": "text", "text": THINK}]},
    ]
    rendered, _ = render_jinja_template(
        [chat], chat_template=template, add_generation_prompt=False, continue_final_message=True, **switches
    )
    return str(rendered[0])
