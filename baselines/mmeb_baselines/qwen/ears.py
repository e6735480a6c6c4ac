"""What a Qwen-Omni hears: a sound's log-mel spectrum, as Whisper's, and how many tokens it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import Sound, sound_seconds
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.sounds import read_sound

#: Of Whisper, where a checkpoint's settings don't say.
_RATE, _HOP, _WINDOW = 16_000, 160, 400


@dataclass(frozen=True)
class Ears:
    """Turns sounds into spectra for one checkpoint.

    Attributes:
        extractor: of transformers.
        rate, hop: samples a second, and from one frame of the spectrum to the next.
        pad: token that stands for a piece of a sound.
    """

    extractor: Any
    rate: int
    hop: int
    pad: str

    def spectrum(self, sound: Sound) -> NDArray[np.float32]:
        """A frame (mels,) every `hop` samples, as (mels, frames).

        transformers pads every sound to five minutes, and masks what it added. Two frames of silence behind the sound
        give the same, but for that.
        """
        samples = read_sound(sound, self.rate)
        frames = -(-len(samples) // self.hop)
        padded = np.pad(samples, (0, (frames + 4) * self.hop - len(samples)))
        features = self.extractor(padded, sampling_rate=self.rate, padding=False, truncation=False, return_tensors="np")
        spectrum: NDArray[np.float32] = features["input_features"][0][:, :frames]
        return spectrum

    def num_tokens(self, frames: int) -> int:
        """Of a spectrum of so many frames: two convolutions and a pooling halve it twice."""
        return ((frames - 1) // 2 - 1) // 2 + 1

    def cost(self, sound: Sound) -> int:
        """Tokens, from the header alone."""
        end = sound_seconds(sound.path) if sound.end is None else sound.end
        seconds = max(0.0, end - sound.start)
        if sound.window is not None:
            seconds = min(seconds, sound.window)
        return max(1, self.num_tokens(round(seconds * self.rate) // self.hop))


def ears_of(folder: CheckpointFolder, settings: str, pad: str) -> Ears:
    """Those of a checkpoint.

    Args:
        settings: file that says how sounds are read; what it doesn't say is Whisper's.
        pad: see `Ears`.
    """
    from transformers import WhisperFeatureExtractor

    said = folder.json(settings)
    rate, hop, window = (
        int(said.get(name, usual))
        for name, usual in (("sampling_rate", _RATE), ("hop_length", _HOP), ("n_fft", _WINDOW))
    )
    mels = folder.value("config.json", "audio_config", "num_mel_bins", kind=int)
    extractor = WhisperFeatureExtractor(feature_size=mels, sampling_rate=rate, hop_length=hop, n_fft=window)
    return Ears(extractor, rate, hop, pad)
