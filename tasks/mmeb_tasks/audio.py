"""The 11 audio tasks of MMEB-V3, as rows. Names, sentences and files: the benchmark's own."""

from __future__ import annotations

import functools
import re
from pathlib import Path, PurePosixPath

from mmeb_harness import Frames, Samples, Task
from mmeb_tasks.bundle import bundle_archive, bundle_task
from mmeb_tasks.hub import by_name, place_below
from mmeb_tasks.readers.sounds import AudioRow

#: Officially either table is looked for in these folders.
SPEECHCOCO = tuple(
    tuple(f"{folder}*{table}*.parquet" for folder in ("", "eval/", "query/", "corpus/"))
    for table in ("query", "corpus")
)

# fmt: off
ROWS = (
    AudioRow("NSynth", "A-CLS", "audio_cls", "audio-tasks/nsynth-1k", (("eval/query.parquet",),), ("audio",), "Recognize the musical instrument category of the audio."),
    AudioRow("ESC-50", "A-CLS", "audio_cls", "audio-tasks/esc50", (("*.parquet", "data/*.parquet"),), ("audio",), "Recognize the environmental sound category of the audio."),
    AudioRow("UrbanSound8K", "A-CLS", "audio_cls", "audio-tasks/urbansound8k", (("csv_files/test.csv",),), ("audio",), "Recognize the urban sound category of the audio."),
    AudioRow("SpeechCommands", "A-CLS", "audio_cls", "audio-tasks/speechcommand-1k", (("query_eval.parquet",),), ("audio",), "Recognize the spoken word category in the audio."),
    AudioRow("CREMA-D", "A-CLS", "audio_cls", "audio-tasks/creamD", (("processed.csv", "data/*.parquet"),), ("audio",), "Recognize the emotion expressed in the speech audio."),
    AudioRow("SoundDescs", "A-RET", "sounddescs_text_audio", "audio-tasks/sounddescs-1k", (("eval/query*.parquet",), ("eval/corpus*.parquet",), ("eval/qrels*.parquet",)), ("audio",), "Retrieve audio samples that best match the given sound description."),
    AudioRow("Clotho", "A-RET", "clotho_text_audio", "audio-tasks/clotho", (("clotho_captions_evaluation.csv",),), ("audio",), "Retrieve audio clips that best match the given textual description.", listed=("evaluation",)),
    AudioRow("AVE", "A-RET", "ave_retrieval", "audio-tasks/AVE/AVE_Dataset", (("testSet.txt",),), ("audio", "video"), "Retrieve the video that best matches the given audio event.", "Understand the content of the provided video.", ("audios", "AVE", "frames")),
    AudioRow("SpeechCOCO", "A-RET", "audio_ret_speechcoco", "audio-tasks/speechcoco-1k", SPEECHCOCO, ("audio", "image"), "Retrieve images that best match the given spoken description.", "Understand the content of the provided image."),
    AudioRow("TUTSound", "A-GND", "tutsound_audio_gnd", "audio-tasks/tutsound", (("TUT-sound-events-2017-development/evaluation_setup/street_fold[1-4]_evaluate.txt",),), ("audio",), "Retrieve the sound event categories that best match the given audio."),
    AudioRow("TUTSound(hard)", "A-GND", "tutsound_audio_gnd_hard", "audio-tasks/tutsound", (("TUT-sound-events-2017-development/evaluation_setup/street_fold[1-4]_evaluate.txt",),), ("audio",), "Retrieve the sound event categories that best match the given audio."),
)
# fmt: on


def _read(row: AudioRow, data: Path, frames: Frames) -> Samples:
    """The reader is imported by the row that is read."""
    from mmeb_tasks.readers.audio import read_audio_task

    return read_audio_task(row, data, frames)


def _archive_name(row: AudioRow) -> str:
    """Each folder has an archive: called like it or like the task, in any usual spelling; a "-1k" may be left out."""
    names = (PurePosixPath(row.root).parts[1].removesuffix("-1k"), row.name.removesuffix("(hard)"))
    words = [re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name) for name in names]
    spellings = {"[-_. ]?".join(of_name).lower() for of_name in words}
    return rf"(?i:{'|'.join(sorted(spellings))})([-_]1k)?"


def _task(row: AudioRow, edition: str) -> Task:
    return bundle_task(
        row.name,
        edition,
        modality="audio",
        group=row.group,
        metric="hit@1",
        read=functools.partial(_read, row),
        annotations=tuple(f"{row.root}/{pattern}" for patterns in row.tables for pattern in patterns),
        listed=tuple(f"{row.root}/{folder}" for folder in row.listed),
        sources=(
            bundle_archive(_archive_name(row), by_name(functools.partial(place_below, row.root)), folder=row.root),
        ),
        media=row.media,
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The audio tasks; their rows are the same in every edition that has them."""
    return tuple(_task(row, edition) for row in ROWS)
