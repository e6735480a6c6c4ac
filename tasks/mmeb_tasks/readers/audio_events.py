"""Where in a street's recording something is heard: its labelled parts and windows without any are the candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmeb_harness import SHORTEST_SOUND, DataError, Item, Samples, Sound, Source, one_line, sound_seconds
from mmeb_tasks.readers.sounds import Reading, lines_of

RECORDINGS = "TUT-sound-events-2017-development"
FOLDS = 4
#: Seconds, and officially as many windows a recording.
WINDOW, STEP, SHORTEST, MOST_WINDOWS = 1.0, 0.5, 0.05, 50
#: A window that overlaps more with something labelled is left out.
MOST_OVERLAP = 0.1


@dataclass(frozen=True)
class Event:
    """Something that is heard in a recording, from and to a second."""

    recording: str
    start: float
    end: float
    label: str


def read_events(reading: Reading, *, hard: bool) -> Samples:
    """Read TUTSound.

    Args:
        hard: only the one part that the query is of counts, not all of the same label.
    """
    files = reading.table(0)
    reading.builder.notes["folds without a file, left out"] = FOLDS - len(files)
    by_recording: dict[str, list[Event]] = {}
    for path in files:
        for event in _events(reading, path):
            by_recording.setdefault(event.recording, []).append(event)
    paths = {name: reading.media.file(f"{reading.row.root}/{RECORDINGS}/{name}") for name in sorted(by_recording)}
    reading.media.refuse_missing()  # before they are opened
    for name, path in paths.items():
        seconds = sound_seconds(path)
        _add(reading, path, [_clipped(event, seconds) for event in by_recording[name]], seconds, hard=hard)
    return reading.built(pooled=True)


def _events(reading: Reading, path: Path) -> Iterator[Event]:
    """Rows of a fold: recording, scene, from, to, label; between tabs, or else between blanks."""
    for number, line in enumerate(lines_of(path), 1):
        fields = line.split("\t") if line.count("\t") >= 4 else line.split()
        if len(fields) < 5:
            reading.builder.notes["rows of fewer than five fields, left out"] += bool(line)
            continue
        recording, _, start, end, label = map(str.strip, fields[:5])
        try:
            event = Event(recording, float(start), float(end), label)
        except ValueError as error:
            raise DataError(f"annotations {path}, row {number}: {one_line(error)}") from error
        if not (math.isfinite(event.start) and math.isfinite(event.end)):
            raise DataError(f"annotations {path}, row {number}: from {start} to {end}, expected seconds")
        yield event


def _clipped(event: Event, seconds: float) -> Event:
    """The event inside the recording; what has no length gets some, and what lies behind is put at its end."""
    start = max(0.0, event.start)
    end = min(event.end if event.end > start else start + SHORTEST, seconds)
    start, end = (start, end) if end > start else (max(0.0, seconds - SHORTEST), seconds)
    return Event(event.recording, start, end, event.label)


def _add(reading: Reading, path: Path, events: list[Event], seconds: float, *, hard: bool) -> None:
    recording = events[0].recording
    labelled = [(event.start, event.end) for event in events]
    parts = [*labelled, *_windows(labelled, seconds)]
    own = tuple(
        reading.builder.candidate(_id(recording, *part), partial(_part, reading, recording, path, *part))
        for part in parts
    )
    for event in events:
        same = [event] if hard else [other for other in events if other.label == event.label]
        answers = [_id(recording, answer.start, answer.end) for answer in same]
        reading.query(own, answers, text=event.label, sound=path)


def _part(reading: Reading, recording: str, path: Path, start: float, end: float) -> Item:
    """A part of a recording; officially the query's sentence is its text, and all of what is too short to be heard."""
    sentence = reading.row.instruction
    sound = Sound(path, start, end) if end - start >= SHORTEST_SOUND else None
    reading.builder.notes["parts too short to be heard, shown as their text"] += sound is None
    return Item(_id(recording, start, end), instruction=sentence, source=Source("basic", sentence), sound=sound)


def _id(recording: str, start: float, end: float) -> str:
    return f"{recording}|{start:.3f}-{end:.3f}"


def _windows(labelled: list[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """The first windows that hardly overlap with anything labelled."""
    windows: list[tuple[float, float]] = []
    for step in range(int(max(0.0, seconds - WINDOW) / STEP) + 1):
        window = (step * STEP, step * STEP + WINDOW)
        if window[1] <= seconds and all(_overlap(window, part) < MOST_OVERLAP for part in labelled):
            windows.append(window)
    return windows[:MOST_WINDOWS]


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Of both parts together, from the start of the earlier to the end of the later, as officially."""
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return shared / (max(first[1], second[1]) - min(first[0], second[0]))
