"""Sounds of items, as every adapter hears them: one channel, at the rate that a model wants, cut to its window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.items import Sound
from mmeb_harness.core.sounds import SHORTEST_SOUND, SoundError, opened_sound

if TYPE_CHECKING:
    from soundfile import SoundFile

#: Read behind a window: more than the filter reaches, so that a cut sound is that of the whole file, cut.
_BEHIND = 0.1
#: Of the filter: zero crossings a side, and the share of the lower of both Nyquist frequencies that passes.
_CROSSINGS, _PASSES = 6, 0.99


def read_sound(sound: Sound, rate: int) -> NDArray[np.float32]:
    """The samples (n,) of a sound, `rate` a second: the mean of its channels, resampled, then cut to its window.

    No more is decoded than is heard. What is heard, and in this order, is the official evaluation's.

    Raises:
        SoundError: it can't be opened or decoded, or is shorter than 25 ms.
    """
    with opened_sound(sound.path) as file:
        samples = resampled(_part(sound, file), file.samplerate, rate)
    if sound.window is not None:
        samples = samples[: int(sound.window * rate)]
    if not np.isfinite(samples).all():
        raise SoundError(sound.path, "it holds values that are no numbers; get it again")
    return samples


def _part(sound: Sound, file: SoundFile) -> NDArray[np.float32]:
    """The samples (n,) from the sound's start to its end, or somewhat behind its window, at the file's own rate."""
    rate = file.samplerate
    first = int(sound.start * rate)
    count = max(0, file.frames - first)
    if sound.end is not None:
        count = min(count, int((sound.end - sound.start) * rate))
    if count < SHORTEST_SOUND * rate:
        raise SoundError(
            sound.path,
            f"from {sound.start:g} s on there are {1000 * count / rate:.3g} ms of it to hear, and models need "
            f"{1000 * SHORTEST_SOUND:g}; leave it out",
        )
    if sound.window is not None:
        count = min(count, math.ceil((sound.window + _BEHIND) * rate))
    file.seek(first)
    channels = file.read(count, dtype="float32", always_2d=True)  # (n, channels)
    if len(channels) < count:
        raise SoundError(sound.path, f"it ends after {len(channels):,} of {count:,} samples; get it again")
    mean: NDArray[np.float32] = channels.mean(axis=1, dtype=np.float32)
    return mean


def resampled(samples: NDArray[np.float32], before: int, after: int) -> NDArray[np.float32]:
    """Samples (n,) at another rate, by the filter that torchaudio's `resample` has by default, and thus the official
    evaluation: a sinc of six zero crossings a side under a Hann window, for 99 % of the lower Nyquist frequency.
    """
    if before == after:
        return samples
    from scipy.signal import resample_poly

    shared = math.gcd(before, after)
    up, down = after // shared, before // shared
    cutoff = _PASSES * min(up, down)
    half = math.ceil(_CROSSINGS * up * down / cutoff)
    crossings = np.clip(np.arange(-half, half + 1) * cutoff / (up * down), -_CROSSINGS, _CROSSINGS)
    kernel = np.sinc(crossings) * np.cos(crossings * math.pi / (2 * _CROSSINGS)) ** 2 * cutoff / down
    result: NDArray[np.float32] = resample_poly(samples.astype(np.float64), up, down, window=kernel / up)
    return result.astype(np.float32)
