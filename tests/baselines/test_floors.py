"""The two floors do what their first line says, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmeb_baselines.bag_of_features import BagOfFeaturesEmbedder
from mmeb_baselines.random_model import RandomEmbedder
from mmeb_tasks.mini.tones import Tone, encode_wav, play
from PIL import Image

from mmeb_harness import DataError, Item, Sound


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (32, 32), (115, 115, 115))
    image.paste(colour, (8, 8, 24, 24))
    image.save(path)
    return path


def test_colour_words_are_near_pictures_of_that_colour(tmp_path: Path) -> None:
    colours = {"red": (220, 30, 30), "blue": (40, 40, 225), "green": (30, 180, 30)}
    texts = [Item(name, text=f"something {name}") for name in colours]
    pictures = [Item(name, images=(picture(tmp_path / f"{name}.png", rgb),)) for name, rgb in colours.items()]
    embedder = BagOfFeaturesEmbedder()
    scores = embedder.encode(texts, "query").vectors @ embedder.encode(pictures, "candidate").vectors.T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2]


def test_words_for_pitch_and_rhythm_are_near_sounds_of_that_kind(tmp_path: Path) -> None:
    tones = [Tone(pitch, rhythm) for pitch in range(3) for rhythm in range(3)]
    for number, tone in enumerate(tones):
        (tmp_path / f"{number}.wav").write_bytes(encode_wav(play(tone, np.random.default_rng(number))))
    sounds = [Item(str(number), sound=Sound(tmp_path / f"{number}.wav")) for number in range(len(tones))]
    texts = [Item(tone.words, text=tone.words) for tone in tones]
    embedder = BagOfFeaturesEmbedder()
    scores = embedder.encode(sounds, "query").vectors @ embedder.encode(texts, "candidate").vectors.T
    assert scores.argmax(axis=1).tolist() == list(range(len(tones)))


def test_silence_and_parts_of_a_sound_have_directions_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(
        encode_wav(np.concatenate([np.zeros(8000, np.float32), play(Tone(2, 0), np.random.default_rng(0))]))
    )
    parts = [Item("silence", sound=Sound(path, 0, 1)), Item("tone", sound=Sound(path, 1, 2)), Item("nothing")]
    for embedder in (BagOfFeaturesEmbedder(), RandomEmbedder()):
        silence, tone, nothing = embedder.encode(parts, "query").vectors
        assert np.isfinite(silence).all()
        assert silence @ tone < 0.9
    silence, _, nothing = BagOfFeaturesEmbedder().encode(parts, "query").vectors
    assert np.array_equal(silence, nothing)


def test_a_broken_sound_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"broken\.wav can't be opened"):
        BagOfFeaturesEmbedder().encode([Item("a", sound=Sound(tmp_path / "broken.wav"))], "query")


def test_parts_of_one_recording_have_random_directions_of_their_own() -> None:
    recording = Path("street/r0.wav")
    items = [Item("whole", sound=Sound(recording)), *(Item(str(s), sound=Sound(recording, s, s + 1)) for s in (0, 1))]
    vectors = RandomEmbedder().encode(items, "candidate").vectors
    assert len({vector.tobytes() for vector in vectors}) == 3


def test_word_order_is_invisible() -> None:
    embedder = BagOfFeaturesEmbedder()
    first, second = embedder.encode([Item("a", text="red on blue"), Item("b", text="blue on red")], "query").vectors
    assert np.array_equal(first, second)


def test_an_empty_item_still_has_a_direction() -> None:
    assert np.isfinite(BagOfFeaturesEmbedder().encode([Item("a")], "query").vectors).all()


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"broken\.png can't be opened"):
        BagOfFeaturesEmbedder().encode([Item("a", images=(path,))], "query")


def test_random_depends_on_content_and_seed_not_on_place_or_id(tmp_path: Path) -> None:
    items = [
        Item(str(index), text="x", images=(picture(tmp_path / root / "set" / "a.png", (1, 2, 3)),))
        for index, root in enumerate(("here", "there"))
    ]
    first, second = RandomEmbedder().encode(items, "query").vectors
    assert np.array_equal(first, second)
    assert not np.array_equal(first, RandomEmbedder(seed=1).encode(items, "query").vectors[0])
    other = RandomEmbedder().encode([Item("2", text="y", images=items[0].images)], "query").vectors[0]
    assert abs(float(first @ other)) < 0.6
