"""Keys that this process holds, and the one mask that keeps them out of all that is printed or written down."""

from __future__ import annotations

import base64
import functools
import re

#: What stands in a key's place.
MASK = "[key]"
#: Shorter ones are no secrets, and would mask letters of other words.
_SHORTEST = 4
#: Bytes of a key whose base64 is no word of anything else.
_LONG_ENOUGH = 8

_keys: dict[str, re.Pattern[str]] = {}


def keep_secret(key: str | None) -> None:
    """Mask a key from now on, wherever `masked` is asked."""
    if key and len(key) >= _SHORTEST:
        spellings = (rf"(?:{re.escape(sign)}|\\u00(?i:{ord(sign):02x})|%(?i:{ord(sign):02x}))" for sign in key)
        _keys[key] = re.compile("|".join(["".join(spellings), *map(re.escape, _in_base64(key))]))


def masked(text: str) -> str:
    """The text without any key, however JSON or an address spells it; of two that begin alike the longer goes first."""
    for key, spelled in sorted(_keys.items(), key=lambda pair: -len(pair[0])):
        if key in text or "\\u" in text or "%" in text or any(part in text for part in _in_base64(key)):
            text = spelled.sub(MASK, text)
    return text


@functools.cache
def _in_base64(key: str) -> tuple[str, ...]:
    """What of a header's base64 is the key's alone, wherever in it the key begins, in both alphabets."""
    content = key.encode()
    if len(content) < _LONG_ENOUGH:
        return ()
    coded = (
        (before, encode(bytes(before) + content).decode())
        for before in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    )
    return tuple(dict.fromkeys(text[-(-before * 8 // 6) : (before + len(content)) * 8 // 6] for before, text in coded))
