"""Small WebP copies of images and frames, and small sounds, as data URIs, each file once."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmeb_harness.core.items import Item, Modality
from mmeb_harness.core.pictures import PictureError, opened_picture, to_rgb
from mmeb_harness.core.sounds import SoundError, opened_sound
from mmeb_harness.show.page.values import ShownSound, Thumbnails

#: Longest side in pixels. Pages need more than pictures to be told apart.
LONGEST_SIDE: dict[Modality, int] = {"video": 160, "visdoc": 320, "gui": 320}
USUAL_SIDE = 192
#: Frames shown of a clip, evenly spaced, both ends included.
SHOWN_FRAMES = 4
#: Bytes of a sound that the page holds; of a longer one it shows the name.
LARGEST_SOUND = 100_000

_QUALITY = 60
#: By libsndfile's name of a format: what browsers play.
_MIMES = {"WAV": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}


def thumbnails_of(
    root: Path, modality: Modality, queries: Mapping[int, Item | None], candidates: Mapping[int, Item | None]
) -> Thumbnails:
    """Of an item's images, or of some of its frames; each file once.

    Args:
        root: the data folder.
    """
    sides = [
        {key: spread(item.pictures, SHOWN_FRAMES) for key, item in items.items() if item is not None and item.pictures}
        for items in (queries, candidates)
    ]
    paths = dict.fromkeys(path for side in sides for shown in side.values() for path in shown)
    uris = {path: thumbnail(path, LONGEST_SIDE.get(modality, USUAL_SIDE)) for path in paths}
    opened = {path: uri for path, uri in uris.items() if uri is not None}
    places = {path: place for place, path in enumerate(opened)}
    of_queries, of_candidates = (
        {key: [places[path] for path in shown if path in places] for key, shown in side.items()} for side in sides
    )
    missing = [_place(path, root) for path in paths if path not in places]
    uris_of_all = list(opened.values())
    files = _sounds_of([*queries.values(), *candidates.values()], uris_of_all)
    missing += [_place(path, root) for path, (seconds, _) in files.items() if seconds is None]
    return Thumbnails(
        uris_of_all, of_queries, of_candidates, _shown_sounds(queries, files), _shown_sounds(candidates, files), missing
    )


def _place(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else "…"


def _sounds_of(items: Iterable[Item | None], uris: list[str]) -> dict[Path, tuple[float | None, int | None]]:
    """Sound → its seconds, `None` where it can't be opened, and where its data URI is, which small ones have added."""
    files: dict[Path, tuple[float | None, int | None]] = {}
    for path in dict.fromkeys(item.sound.path for item in items if item is not None and item.sound is not None):
        try:
            with opened_sound(path) as file:
                seconds, mime = file.frames / file.samplerate, _MIMES.get(file.format)
        except SoundError:
            files[path] = None, None
            continue
        is_small = mime is not None and path.stat().st_size <= LARGEST_SOUND
        files[path] = seconds, len(uris) if is_small else None
        if is_small:
            uris.append(f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}")
    return files


def _shown_sounds(
    items: Mapping[int, Item | None], files: Mapping[Path, tuple[float | None, int | None]]
) -> dict[int, ShownSound]:
    sounds = {key: item.sound for key, item in items.items() if item is not None and item.sound is not None}
    return {
        key: ShownSound(sound.path.name, files[sound.path][0], sound.start, sound.end, files[sound.path][1])
        for key, sound in sounds.items()
    }


def spread(media: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of `media`, evenly spaced, both ends included."""
    if len(media) <= most:
        return list(media)
    return [media[round(index * (len(media) - 1) / (most - 1))] for index in range(most)]


def thumbnail(path: Path, longest: int) -> str | None:
    """A data URI of what a model sees; `None` if the file is missing or no picture."""
    try:
        with opened_picture(path) as image:
            image.draft("RGB", (longest, longest))
            small = to_rgb(image)
    except PictureError:
        return None
    small.thumbnail((longest, longest))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
