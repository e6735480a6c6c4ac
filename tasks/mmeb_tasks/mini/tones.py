"""Sounds of the small world: tones of three pitches in three rhythms, alone, after one another, in a recording."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_tasks.mini.world import Rng, Thing

Sound: TypeAlias = NDArray[np.float32]  # samples between -1 and 1

RATE = 8000
PITCHES = ("low", "middle", "high")
HERTZ = (220.0, 660.0, 1980.0)
RHYTHMS = ("steady", "slow", "fast")
#: Beats a second; a steady tone has none.
BEATS = (0.0, 2.0, 8.0)
SECONDS, SHORT_SECONDS = 1.0, 0.6
#: Share by which a pitch is off, and the loudness of noise and of a second tone beneath the first.
OFF, NOISE, BENEATH = 0.04, 0.02, 0.6
LOUDNESS = 0.5


@dataclass(frozen=True, slots=True)
class Tone:
    """A pitch and a rhythm, as indices."""

    pitch: int
    rhythm: int

    @property
    def words(self) -> str:
        """Pitch and rhythm in words, e.g. "low fast"."""
        return f"{PITCHES[self.pitch]} {RHYTHMS[self.rhythm]}"


EVERY_TONE = tuple(Tone(pitch, rhythm) for pitch in range(3) for rhythm in range(3))


def play(tone: Tone, rng: Rng, seconds: float = SECONDS, beneath: Tone | None = None) -> Sound:
    """A tone, a little off and with noise; `beneath`, if any, sounds more quietly at the same time."""
    samples = _wave(tone, rng, seconds)
    if beneath is not None:
        samples = samples + BENEATH * _wave(beneath, rng, seconds)
    noise = rng.normal(0, NOISE, len(samples))
    sound: Sound = np.clip(LOUDNESS * samples + noise, -1, 1).astype(np.float32)
    return sound


def _wave(tone: Tone, rng: Rng, seconds: float) -> NDArray[np.float64]:
    times = np.arange(round(RATE * seconds)) / RATE
    hertz = HERTZ[tone.pitch] * (1 + OFF * (2 * rng.random() - 1))
    samples = np.sin(2 * np.pi * (hertz * times + rng.random()))
    if beats := BEATS[tone.rhythm]:
        samples = samples * (times * beats % 1 < 0.5)
    return samples


def spoken(thing: Thing, rng: Rng) -> Sound:
    """A thing in the world's own language: the tone of its colour, then that of its shape."""
    return np.concatenate([play(EVERY_TONE[index], rng, SHORT_SECONDS) for index in (thing.colour, thing.shape)])


def recording(parts: Sequence[tuple[float, Sound]], seconds: float, rng: Rng) -> Sound:
    """Sounds at their seconds in a recording that is otherwise almost silent."""
    samples = rng.normal(0, NOISE, round(RATE * seconds)).astype(np.float32)
    for start, sound in parts:
        first = round(RATE * start)
        samples[first : first + len(sound)] = sound
    return samples


def encode_wav(sound: Sound) -> bytes:
    """A mono WAV file of 16-bit samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()
