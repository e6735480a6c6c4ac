"""Keys that this process holds, and the one mask that keeps them out of all that is printed or written down."""

from __future__ import annotations

import base64
import functools
import re

#: What stands in a key's place.
MASK = "[key]"
#: Shorter ones are no secrets, and would mask letters of other words.
_SHORTEST = 4
#: Of a key that is no word in other letters' case, and whose base64 is nothing else's.
_LONG_ENOUGH = 8
#: What JSON, addresses and HTML write before a sign of another kind.
_MARKS = ("\\", "%", "&#")

_keys: dict[str, re.Pattern[str]] = {}


def keep_secret(key: str | None) -> None:
    """Mask a key from now on, wherever `masked` is asked."""
    if key and len(key) >= _SHORTEST:
        spelled = "".join(
            rf"(?:\\{{0,3}}{re.escape(sign)}|(?i:\\{{1,3}}u00{code:02x}|%(?:25){{0,3}}{code:02x}|&#x?0{{0,5}}(?:{code}|{code:x});))"
            for sign, code in zip(key, map(ord, key), strict=True)
        )
        case = "i" if len(key) >= _LONG_ENOUGH else ""
        _keys[key] = re.compile("|".join([f"(?{case}:{spelled})", *map(re.escape, _in_base64(key))]))


def masked(text: str) -> str:
    """The text without any key, however JSON, an address, HTML or a header's base64 spells it.

    Of two keys that begin alike the longer goes first.
    """
    for key, spelled in sorted(_keys.items(), key=lambda pair: -len(pair[0])):
        if any(part in text for part in (*_MARKS, *_in_base64(key))) or key.lower() in text.lower():
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
