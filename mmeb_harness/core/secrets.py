"""Keys that this process holds, and the one mask that keeps them out of all that is printed or written down."""

from __future__ import annotations

import re

#: What stands in a key's place.
MASK = "[key]"
#: Shorter ones are no secrets, and would mask letters of other words.
_SHORTEST = 4

_keys: dict[str, re.Pattern[str]] = {}


def keep_secret(key: str | None) -> None:
    """Mask a key from now on, wherever `masked` is asked."""
    if key and len(key) >= _SHORTEST:
        spellings = (rf"(?:{re.escape(sign)}|\\u00(?i:{ord(sign):02x})|%(?i:{ord(sign):02x}))" for sign in key)
        _keys[key] = re.compile("".join(spellings))


def masked(text: str) -> str:
    """The text without any key, however JSON or an address spells it; of two that begin alike the longer goes first."""
    for key, spelled in sorted(_keys.items(), key=lambda pair: -len(pair[0])):
        if key in text or "\\u" in text or "%" in text:
            text = spelled.sub(MASK, text)
    return text
