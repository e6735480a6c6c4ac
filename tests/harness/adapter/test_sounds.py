"""Sounds as adapters hear them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmeb_harness import DataError, Item, Sound, sound_seconds
from mmeb_harness.adapter.sounds import read_sound, resampled
from mmeb_harness.core.sounds import is_sound
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import content_keys

RATE = 16_000


def written(path: Path, samples: Any, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **({"subtype": "FLOAT"} | options))
    return path


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def test_the_mean_of_all_channels_is_heard(tmp_path: Path) -> None:
    samples = noise(0.1, channels=3)
    heard = read_sound(Sound(written(tmp_path / "a.wav", samples)), RATE)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, samples.mean(axis=1), atol=1e-7)


def test_a_part_is_heard_and_no_more_than_its_window(tmp_path: Path) -> None:
    samples = noise(2)
    path = written(tmp_path / "a.wav", samples)
    one = samples[:, 0]
    np.testing.assert_array_equal(read_sound(Sound(path, 0.5), RATE), one[8000:])
    np.testing.assert_array_equal(read_sound(Sound(path, 0.5, 1.25), RATE), one[8000:20_000])
    np.testing.assert_array_equal(read_sound(Sound(path, 0.5, 1.25, window=0.5), RATE), one[8000:16_000])
    np.testing.assert_array_equal(read_sound(Sound(path, 0.5, 9), RATE), one[8000:])


def test_a_cut_sound_is_that_of_the_whole_file_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(2, 44_100), 44_100)
    np.testing.assert_array_equal(
        read_sound(Sound(path, window=0.75), RATE), read_sound(Sound(path), RATE)[: int(0.75 * RATE)]
    )


def test_an_hour_is_not_decoded_for_its_first_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.wav", noise(20))
    read, counts = soundfile.SoundFile.read, []

    def counted(file: Any, frames: int, **options: Any) -> Any:
        counts.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(read_sound(Sound(path, window=1), RATE)) == RATE
    assert counts == [17_600]


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_is_a_windowed_sinc_of_six_crossings(rate: int) -> None:
    """Against the sum itself, in double precision, at every output sample."""
    samples = noise(0.05, rate)[:, 0]
    highest = 0.99 * min(rate, RATE)  # twice the highest frequency that passes
    count = math.ceil(len(samples) * RATE / rate)
    times = np.arange(count)[:, None] / RATE - np.arange(len(samples))[None] / rate
    crossings = np.clip(times * highest, -6, 6)
    weights = np.sinc(crossings) * np.cos(crossings * math.pi / 12) ** 2 * highest / rate
    np.testing.assert_allclose(resampled(samples, rate, RATE), weights @ samples, atol=1e-6)


def test_a_tone_keeps_its_pitch_and_loudness() -> None:
    times = np.arange(44_100) / 44_100
    tone = np.sin(2 * math.pi * 1000 * times).astype(np.float32)
    expected = np.sin(2 * math.pi * 1000 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(resampled(tone, 44_100, RATE)[100:-100], expected[100:-100], atol=1e-3)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.mp3", "MPEG_LAYER_III")])
def test_other_formats_are_heard(name: str, subtype: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, np.sin(np.arange(RATE) / 20), subtype=subtype)
    assert sound_seconds(path) == pytest.approx(1, abs=0.1)
    assert np.abs(read_sound(Sound(path), RATE)).max() == pytest.approx(1, abs=0.1)


def test_sounds_are_told_from_pictures_by_how_they_begin(tmp_path: Path) -> None:
    for name, subtype in (("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS")):
        assert is_sound(written(tmp_path / name, np.zeros(800), subtype=subtype).read_bytes())
    assert not is_sound(b"RIFF....WEBPVP8 ")
    assert not is_sound(b"\xff\xd8\xff\xe0")


def test_vectors_are_of_a_part_and_a_window(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(1))
    sounds = [Sound(path), Sound(path, 0.5), Sound(path, 0.0, 0.5), Sound(path, window=30), Sound(path, window=10)]
    hashes = MediaHashes(tmp_path / "hashes", tmp_path)
    assert len({*content_keys([Item("a", sound=sound) for sound in sounds], "query", hashes)}) == len(sounds)
    assert not hashes.notes([path])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory; get it again"),
    "a folder": (lambda path: path.mkdir(), "put a file there"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "a pointer": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "no sound": (lambda path: path.write_bytes(b"x" * 100), "it is no sound that libsndfile reads, or damaged"),
    "no samples": (lambda path: written(path, np.zeros(0)), "it holds no samples"),
    "many channels": (lambda path: written(path, np.zeros((100, 65))), "it has 65 channels"),
    "too short": (lambda path: written(path, np.zeros(399)), "24.9 ms of it to hear, and models need 25"),
    "no numbers": (lambda path: written(path, np.full(800, np.nan)), "values that are no numbers"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_heard_is_one_line_with_the_file(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    make(tmp_path / "a.wav")
    with pytest.raises(DataError, match=rf"^sound \S+a\.wav can't be opened: .*{message}") as caught:
        read_sound(Sound(tmp_path / "a.wav"), RATE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(tmp_path)) == 1


def test_a_damaged_end_shows(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(2), RATE, format="FLAC")
    (tmp_path / "a.flac").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match=r"a\.flac can't be opened: "):
        read_sound(Sound(tmp_path / "a.flac"), RATE)


def test_a_part_behind_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="from 3 s on there are 0 ms of it to hear"):
        read_sound(Sound(written(tmp_path / "a.wav", noise(1)), 3.0), RATE)
