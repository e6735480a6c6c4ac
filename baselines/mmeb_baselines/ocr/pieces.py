"""Long texts in pieces that a model of text reads whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

#: Where each token of a text begins and ends, in letters.
Spans = Callable[[str], list[tuple[int, int]]]


def pieces_of(text: str, most: int, spans: Spans) -> list[str]:
    """A text as consecutive pieces of at most `most` tokens: whole lines, as many as fit, and parts of longer lines.

    No word is lost, and none is there twice. What fits is one piece as it is; so is a text without a word.

    Args:
        most: at least 2; a line break may be a token.
    """
    if len(spans(text)) <= most:
        return [text]
    pieces: list[list[str]] = []
    room = 0
    for line in text.split("\n"):
        for part in _parts(line, most - 1, spans):
            tokens = len(spans(part)) + 1
            if tokens > room:
                pieces.append([])
                room = most
            pieces[-1].append(part)
            room -= tokens
    return ["\n".join(parts) for parts in pieces]


def _parts(line: str, most: int, spans: Spans) -> Iterator[str]:
    """A line in parts of at most `most` tokens, cut between words where there are any; none of an empty one."""
    while tokens := spans(line):
        if len(tokens) <= most:
            yield line.strip()
            return
        gaps = [place for place in range(1, most + 1) if tokens[place - 1][1] < tokens[place][0]]
        cut = gaps[-1] if gaps else most
        while cut > 1 and len(spans(line[: tokens[cut - 1][1]])) > most:  # half a word may be more tokens by itself
            cut -= 1
        yield line[: tokens[cut - 1][1]].strip()
        line = line[tokens[cut - 1][1] :]
