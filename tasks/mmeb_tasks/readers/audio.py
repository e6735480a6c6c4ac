"""The 11 audio tasks: sounds to classes, texts to sounds, sounds to pictures or videos, and parts of recordings.

Source: protocol of the official parsers of MMEB-V3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from mmeb_harness import Column, DataError, Frames, Item, Samples, Source, one_line
from mmeb_tasks.readers.audio_classes import read_classes
from mmeb_tasks.readers.audio_events import read_events
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.media import MediaFolder, check_inside, sample_frames
from mmeb_tasks.readers.sounds import (
    FEW_ROWS,
    AudioReader,
    AudioRow,
    Reading,
    below_data,
    column_names,
    csv_rows,
    first_of,
    lines_of,
    lists,
    rows_of,
    sound_candidate,
    sounds_of,
    written,
)
from mmeb_tasks.readers.stored import missing_files, write_files
from mmeb_tasks.readers.video import SHORT_CLIPS

QUERY_ID, DOCUMENT_ID, SCORE = Column.key("query-id"), Column.key("corpus-id"), Column.number("score")
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def read_audio_task(row: AudioRow, data: Path, frames: Frames) -> Samples:
    """Read one audio task; sounds and pictures whose bytes stand in tables are written to disk on first use."""
    return _READERS[row.reader](Reading(row, data, frames, MediaFolder(data), SamplesBuilder()))


def _read_sounddescs(reading: Reading) -> Samples:
    """Descriptions, each with the best of its sounds; officially only sounds of some description are candidates."""
    queries, corpus, qrels = (reading.table(number) for number in range(3))
    texts, grades = _descriptions(queries), _grades(qrels)
    sounds = _sounddescs_files(reading, corpus, {document for query in texts for document in grades.get(query, ())})
    own = tuple(reading.builder.candidate(key, partial(sound_candidate, key, path)) for key, path in sounds.items())
    for key, words in texts.items():
        of_query = grades.get(key, {})
        best = max(of_query, key=of_query.__getitem__, default=None)  # the first of equals
        reading.query(own, [] if best is None else [best], text=words, query_id=key)
        if best is None:
            reading.builder.incomplete(key, "descriptions without a sound")
        elif best not in sounds:
            reading.builder.incomplete(key, "descriptions of a sound that the corpus lacks")
    return reading.built(pooled=True)


def _descriptions(files: list[Path]) -> dict[str, str]:
    there = column_names(files)
    query_id = Column.key(first_of(("query-id", "query_id", "id", "qid"), there, files))
    text = Column.text(first_of(("text", "caption", "sentence", "query"), there, files))
    texts: dict[str, str] = {}
    for row in rows_of(files, (query_id, text)):
        if row[query_id] in texts:
            raise row.unfit(query_id, "an id of its own: it stands in the annotations twice")
        texts[row[query_id]] = row[text].strip()
    return texts


def _grades(files: list[Path]) -> dict[str, dict[str, float]]:
    """Query → {document → score above 0}."""
    grades: dict[str, dict[str, float]] = {}
    for row in rows_of(files, (QUERY_ID, DOCUMENT_ID, SCORE)):
        if row[SCORE] > 0:
            grades.setdefault(row[QUERY_ID], {})[row[DOCUMENT_ID]] = row[SCORE]
    return grades


def _sounddescs_files(reading: Reading, files: list[Path], wanted: set[str]) -> dict[str, Path]:
    """Wanted document → its file, in the corpus's order: where its path says, or written from its bytes."""
    there = column_names(files)
    key = Column.key(first_of(("corpus-id", "id"), there, files))
    paths = Column.optional_text(first_of(("audio_path", "path", key.name), there, files))
    content = Column.sound(first_of(("audio_bytes", "audio", key.name), there, files))
    sounds: dict[str, Path] = {}
    for row in rows_of(files, (key, paths)):
        if row[key] in wanted and row[key] not in sounds:
            sounds[row[key]] = _on_disk(reading, row[paths]) or _cached(reading, row[key], row[paths])
    if missing := missing_files(sounds):
        write_files("sound", missing, ((row[key], row[content]) for row in rows_of(files, (key, content), FEW_ROWS)))
    return sounds


def _on_disk(reading: Reading, stored: str) -> Path | None:
    """The file that a path means, below the task's folder, in its `eval` or, with all folders named, anywhere."""
    if not stored:
        return None
    names = [below_data(stored)] if stored.startswith("/") else []
    names = names or [f"{reading.row.root}/{inner}{stored}" for inner in ("", "eval/")]
    for name in names:
        check_inside(name)
    return next((reading.data / name for name in names if (reading.data / name).is_file()), None)


def _cached(reading: Reading, document: str, stored: str) -> Path:
    name = f"{reading.row.root}/audio_cache/{document}{PurePosixPath(stored).suffix or '.wav'}"
    check_inside(name)
    return reading.data / name


def _read_clotho(reading: Reading) -> Samples:
    """Captions of files; those without a file are left out, as officially."""
    table = reading.table(0)[0]
    rows = csv_rows(table)
    name, is_there = first_of(("file_name",), list(rows[0]), [table]), lists([reading.root / "evaluation"])
    for row in rows:
        file = reading.root / "evaluation" / row[name]
        if not is_there(file):
            reading.builder.notes["sounds that are missing, left out with their captions"] += 1
            continue
        for caption in filter(None, (row.get(column, "") for column in CAPTIONS)):
            reading.builder.candidate(row[name], partial(sound_candidate, row[name], file))
            reading.query((), (row[name],), text=caption.strip())
    return reading.built(pooled=False)


@dataclass(frozen=True)
class _Clip:
    """A row of AVE: what part of a video is heard."""

    video: str
    start: float
    end: float

    @property
    def sound(self) -> str:
        """Name of its file; the video's is in it twice."""
        return f"{self.video}_{self.video}_{int(self.start)}_{int(self.end)}.wav"


def _read_ave(reading: Reading) -> Samples:
    """Sounds of videos, of which all are each sound's candidates; rows without video or sound are left out."""
    root, notes = reading.root, reading.builder.notes
    if not (root / "audios").is_dir():
        raise DataError(
            f"{root / 'audios'} is missing; get it, or cut its files: ffmpeg -ss START -t SECONDS -i AVE/VIDEO.mp4 -vn "
            "-ac 1 -ar 16000 audios/VIDEO_VIDEO_START_END.wav, a row of testSet.txt each"
        )
    is_there, clips = lists(root / folder for folder in ("audios", "AVE", "frames")), []
    for clip in _clips(reading.table(0)[0]):
        if not is_there(root / "AVE" / f"{clip.video}.mp4") and not is_there(root / "frames" / clip.video):
            notes["rows without their video, left out"] += 1
        elif not is_there(root / "audios" / clip.sound):
            notes["rows without their sound, left out"] += 1
        else:
            clips.append(clip)
    videos = sorted({clip.video for clip in clips})
    own = tuple(reading.builder.candidate(video, partial(_video, reading, video)) for video in videos)
    for clip in clips:
        reading.query(own, (clip.video,), sound=root / "audios" / clip.sound)
    return reading.built(pooled=True)


def _clips(path: Path) -> Iterator[_Clip]:
    for number, line in enumerate(lines_of(path), 1):
        fields = line.split("&")
        if not line or line.startswith("Category"):
            continue
        try:
            _, video, _, start, end = fields[:5]
            clip = _Clip(video, float(start), float(end))
        except ValueError as error:
            raise DataError(f"annotations {path}, row {number} is {line[:60]!r}; {one_line(error)}") from error
        check_inside(clip.sound)
        yield clip


def _video(reading: Reading, video: str) -> Item:
    folder = f"{reading.row.root}/frames/{video}"
    if not (reading.data / folder).is_dir():
        raise DataError(
            f"frame folder {reading.data / folder} is missing; write frames of each video into one, in order: "
            f"ffmpeg -i {reading.root}/AVE/{video}.mp4 {reading.data / folder}/%04d.jpg"
        )
    frames, shown = reading.media.frames(folder), reading.frames
    reading.builder.notes[SHORT_CLIPS] += len(frames) < shown.video
    sentence = reading.row.target_instruction
    chosen = sample_frames(frames, shown.video, shown.short)
    return Item(video, frames=chosen, instruction=sentence, source=Source("basic", sentence))


def _read_speechcoco(reading: Reading) -> Samples:
    """Spoken descriptions, each with its picture; all pictures of the corpus are candidates."""
    queries, corpus = reading.table(0), reading.table(1)
    pictures = written("picture", corpus, Column.picture("image"), reading.root / "image_cache", ".jpg")
    for row, path in zip(rows_of(corpus, (DOCUMENT_ID,)), pictures, strict=True):
        reading.builder.candidate(row[DOCUMENT_ID], partial(_picture, reading, row[DOCUMENT_ID], path))
    there = column_names(queries)
    answer = Column.key(first_of(("image_id", "image_name", "id"), there, queries))
    for row, sound in zip(rows_of(queries, (answer,)), sounds_of(reading, queries, there), strict=True):
        reading.query((), (row[answer],), sound=sound)
    return reading.built(pooled=False)


def _picture(reading: Reading, picture_id: str, path: Path) -> Item:
    sentence = reading.row.target_instruction
    return Item(picture_id, images=(path,), instruction=sentence, source=Source("basic", sentence))


_READERS: dict[AudioReader, Callable[[Reading], Samples]] = {
    "audio_cls": read_classes,
    "sounddescs_text_audio": _read_sounddescs,
    "clotho_text_audio": _read_clotho,
    "ave_retrieval": _read_ave,
    "audio_ret_speechcoco": _read_speechcoco,
    "tutsound_audio_gnd": partial(read_events, hard=False),
    "tutsound_audio_gnd_hard": partial(read_events, hard=True),
}
