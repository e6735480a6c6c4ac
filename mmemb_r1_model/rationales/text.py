"""From what a model wrote to a rationale: thoughts found, markers stripped, loops seen, texts compared."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmemb_r1_model.model.settings import END_THINK, THINK

#: A tail that says the same at least so often, over at least so many words, is a loop.
LOOP_REPEATS = 4
LOOP_WORDS = 24

#: Special tokens and markers of the families in use. One in a training text would end a prompt or a rationale.
_MARKERS = re.compile(
    r"<\|[\w-]{1,40}\|>|</?think(?:ing)?>|</?answer>|<\w{0,12}emb>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>"
)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
#: Words and signs; scripts without spaces count by character.
_UNITS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")


def thoughts_in(content: str, opened: bool = False) -> tuple[str, bool] | None:
    """What stands between the markers, and whether it comes to an end; `None` if there are no markers.

    Args:
        opened: the prompt ended with <think>, so that the text starts within.
    """
    before, end, _ = content.partition(END_THINK)
    _, start, inside = before.partition(THINK)
    if not (end or start or opened):
        return None
    return inside if start else before, bool(end)


def clean(text: str) -> str:
    """A rationale as it is kept: no markers, control signs or runs of blanks, at most one empty line, valid UTF-8."""
    text = _MARKERS.sub(" ", text.encode("utf-8", "replace").decode())
    text = re.sub(r"[^\S\n]+", " ", _CONTROL.sub(" ", text.replace("\r\n", "\n")))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def normal_form(text: str) -> str:
    """Equal for texts that differ in case and white space only."""
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """Words, signs, and single characters of scripts without spaces; case folded."""
    return _UNITS.findall(text.casefold())


def is_loop(text: str) -> bool:
    """Whether a text ends in a phrase that is repeated again and again."""
    written = words(text)
    return loops(written) or loops(written[:-1])  # the last word may have been cut off


def loops(units: Sequence[object], repeats: int = LOOP_REPEATS, span: int = LOOP_WORDS) -> bool:
    """Whether the tail is one n-gram `repeats` times or more, over at least `span` units. Any n."""
    for n in range(1, len(units) // repeats + 1):
        length = max(n * repeats, span)
        # A tail of period n: every unit of it equals the one n places before.
        if length <= len(units) and all(units[-i] == units[-i - n] for i in range(1, length - n + 1)):
            return True
    return False
