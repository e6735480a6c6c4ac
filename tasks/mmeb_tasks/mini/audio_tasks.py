"""The 11 audio tasks of the mini suite: tones as classes, in words, as a language, and in recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmeb_tasks.audio import ROWS
from mmeb_tasks.mini.questions import difficulties
from mmeb_tasks.mini.tones import (
    EVERY_TONE,
    PITCHES,
    RHYTHMS,
    SECONDS,
    SHORT_SECONDS,
    Sound,
    Tone,
    encode_wav,
    play,
    recording,
    spoken,
)
from mmeb_tasks.mini.world import DIRECTIONS, EVERY_THING, Rng, Thing, draw_clip, draw_scene, random_scene, shuffled
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter, encode_picture
from mmeb_tasks.readers.audio_events import FOLDS, RECORDINGS
from mmeb_tasks.readers.sounds import AudioRow

Row = dict[str, Any]
#: Sounds that no description means.
OTHER_SOUNDS = 8
CAPTIONS_A_FILE = 2
VIDEO_FRAMES = 10
#: Of a recording: seconds, things heard in it, and seconds between their starts.
RECORDING_SECONDS, EVENTS, EVENT_STEP = 8.0, 3, 2.5


@dataclass
class AudioTask:
    """One audio task in the making. `root`: folder of its files."""

    row: AudioRow
    rng: Rng
    writer: SuiteWriter
    num_queries: int
    labels: list[QueryLabel] = field(default_factory=list)

    def path(self, name: str) -> str:
        """Of a file of the task, below the data folder."""
        return f"{self.row.root}/{name}"

    def sound(self, name: str, sound: Sound) -> str:
        """Write a sound; its name again."""
        self.writer.content(self.path(name), encode_wav(sound))
        return name

    def label(self, kind: Difficulty, rationale: str, answer: str, query_id: str = "") -> None:
        """Label the next query, which is called by its number unless it has an id."""
        self.labels.append(QueryLabel(query_id or str(len(self.labels)), kind, rationale, answer))

    def heard(self) -> Iterator[tuple[Tone, Difficulty, Sound]]:
        """A tone for each query, all about as often; beneath a hard one there is another."""
        tones = [EVERY_TONE[number % len(EVERY_TONE)] for number in range(self.num_queries)]
        for tone, kind in zip(shuffled(self.rng, tones), difficulties(self.rng, self.num_queries), strict=True):
            yield tone, kind, play(tone, self.rng, beneath=self.beneath(tone, kind))

    def beneath(self, tone: Tone, kind: Difficulty) -> Tone | None:
        """Nothing beneath an easy tone, any other one beneath a hard one."""
        others = [other for other in EVERY_TONE if other != tone]
        return None if kind == "easy" else others[int(self.rng.integers(len(others)))]


def write_audio_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 11 audio tasks; the two of recordings share their files."""
    row = next(row for row in ROWS if row.name == name)
    task = AudioTask(row, streams(row.root), writer, num_queries)
    _MAKERS[name](task)
    writer.labels(name, task.labels)


# --- classes ---


def _esc50(task: AudioTask) -> None:
    rows = []
    for number, (tone, kind, sound) in enumerate(task.heard()):
        name = f"1-{number}-A-{EVERY_TONE.index(tone)}.wav"
        rows.append(
            {
                "filename": name,
                "fold": 1,
                "target": EVERY_TONE.index(tone),
                "category": tone.words,
                "audio": _stored(sound, name),
            }
        )
        task.label(kind, tone.words, tone.words)
    task.writer.parquet(task.path("data/test-00000-of-00001.parquet"), rows)


def _nsynth(task: AudioTask) -> None:
    """Pitches; the number before the last one is nobody's, and so a class by itself."""
    rows = []
    for number, (tone, kind, sound) in enumerate(task.heard()):
        family, name = (0, 1, 3)[tone.pitch], PITCHES[tone.pitch]
        rows.append(
            {
                "id": f"note_{number}",
                "instrument_family": family,
                "instrument_family_str": name,
                "audio": _stored(sound, f"{number}.wav"),
            }
        )
        task.label(kind, tone.words, name)
    task.writer.parquet(task.path("eval/query.parquet"), rows)


def _speech_commands(task: AudioTask) -> None:
    """Files, whose paths in the table are those of another machine."""
    rows = []
    for number, (tone, kind, sound) in enumerate(task.heard()):
        path = task.path(task.sound(f"clips/{number:05d}.wav", sound))
        rows.append({"audio_path": f"/another/{path}", "label": EVERY_TONE.index(tone), "label_name": tone.words})
        task.label(kind, tone.words, tone.words)
    task.writer.parquet(task.path("query_eval.parquet"), rows)


def _urban_sound(task: AudioTask) -> None:
    lines = ["slice_file_name,fsID,fold,classID,class\n"]
    for number, (tone, kind, sound) in enumerate(task.heard()):
        name, fold = f"{100 + number}-{tone.rhythm}.wav", 1 + number % 10
        task.sound(f"audio/fold{fold}/{name}", sound)
        lines.append(f"{name},{100 + number},{fold},{tone.rhythm},{RHYTHMS[tone.rhythm]}\n")
        task.label(kind, tone.words, RHYTHMS[tone.rhythm])
    task.writer.text(task.path("csv_files/test.csv"), "".join(lines))


def _crema(task: AudioTask) -> None:
    rows = []
    for number, (tone, kind, sound) in enumerate(task.heard()):
        rows.append({"audio": _stored(sound, f"{number}.wav"), "major_emotion": RHYTHMS[tone.rhythm]})
        task.label(kind, tone.words, RHYTHMS[tone.rhythm])
    task.writer.parquet(task.path("data/test-00000-of-00001.parquet"), rows)


def _stored(sound: Sound, name: str) -> Row:
    """A sound as a cell of a table."""
    return {"bytes": encode_wav(sound), "path": name}


# --- words, the language of tones ---


def _two_tones(task: AudioTask, count: int) -> list[tuple[Tone, Tone]]:
    """Pairs of tones, all different."""
    return shuffled(task.rng, [(first, then) for first in EVERY_TONE for then in EVERY_TONE])[:count]


def _play_both(tones: tuple[Tone, Tone], rng: Rng) -> Sound:
    import numpy as np

    return np.concatenate([play(tone, rng, SHORT_SECONDS) for tone in tones])


def _described(tones: tuple[Tone, Tone], kind: Difficulty) -> str:
    """E.g. "low steady then high fast"; hard words say what the tones are not."""
    if kind == "easy":
        return f"{tones[0].words} then {tones[1].words}"
    return " then ".join(f"{_neither(PITCHES, tone.pitch)} and {_neither(RHYTHMS, tone.rhythm)}" for tone in tones)


def _neither(words: Sequence[str], index: int) -> str:
    first, second = (word for word in words if word != words[index])
    return f"neither {first} nor {second}"


def _sounddescs(task: AudioTask) -> None:
    """Descriptions of two tones, each with the best of its sounds, the second best of which sounds in reverse."""
    pairs = _two_tones(task, task.num_queries + OTHER_SOUNDS)
    order = shuffled(task.rng, range(len(pairs)))
    corpus = [
        {
            "corpus-id": f"s{number}",
            "audio_path": f"audio/s{number}.wav",
            "audio_bytes": encode_wav(_play_both(pairs[number], task.rng)),
        }
        for number in order
    ]
    queries, qrels = [], []
    for number, kind in enumerate(difficulties(task.rng, task.num_queries)):
        text, answer = _described(pairs[number], kind), _described(pairs[number], "easy")
        queries.append({"query-id": f"q{number}", "text": text})
        qrels.append({"query-id": f"q{number}", "corpus-id": f"s{number}", "score": 2})
        task.label(kind, answer, answer, f"q{number}")
    for name, rows in (("corpus", corpus), ("query", queries), ("qrels", qrels)):
        task.writer.parquet(task.path(f"eval/{name}-00000.parquet"), rows)


def _clotho(task: AudioTask) -> None:
    """Captions of files, an easy one and a hard one each; further captions are empty."""
    lines = ["file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"]
    for number, tones in enumerate(_two_tones(task, -(-task.num_queries // CAPTIONS_A_FILE))):
        name = f"tones {number:05d}.wav"
        task.sound(f"evaluation/{name}", _play_both(tones, task.rng))
        both: list[Difficulty] = ["easy", "hard"]
        kinds = both[: task.num_queries - len(task.labels)]
        captions = [_described(tones, kind) for kind in kinds]
        for kind in kinds:
            task.label(kind, _described(tones, "easy"), _described(tones, "easy"))
        lines.append(",".join([name, *captions, *[""] * (5 - len(captions))]) + "\n")
    task.writer.text(task.path("clotho_captions_evaluation.csv"), "".join(lines))


def _spoken_things(task: AudioTask) -> Iterator[tuple[Thing, Difficulty]]:
    """A thing for each query, all different; hard ones are seen among others."""
    things = shuffled(task.rng, EVERY_THING)[: task.num_queries]
    return zip(things, difficulties(task.rng, len(things)), strict=True)


def _ave(task: AudioTask) -> None:
    """Videos of a thing in motion that is said in the language of tones."""
    lines = ["Category&VideoID&Quality&StartTime&EndTime\n"]
    for number, (thing, kind) in enumerate(_spoken_things(task)):
        video, direction = f"video{number:05d}", int(task.rng.integers(4))
        task.sound(f"audios/{video}_{video}_0_1.wav", spoken(thing, task.rng))
        task.writer.text(task.path(f"AVE/{video}.mp4"), "synthetic: its frames alone are there\n")
        still = None if kind == "easy" else Thing((thing.colour + 1) % 8, (thing.shape + 1) % 8)
        task.writer.frames(task.path(f"frames/{video}"), draw_clip(thing, direction, VIDEO_FRAMES, task.rng, still))
        lines.append(f"Moving {DIRECTIONS[direction]}&{video}&good&0&1\n")
        task.label(kind, thing.words, thing.words)
    task.writer.text(task.path("testSet.txt"), "".join(lines))


def _speechcoco(task: AudioTask) -> None:
    """Pictures of a thing that is said in the language of tones."""
    corpus, queries = [], []
    for number, (thing, kind) in enumerate(_spoken_things(task)):
        scene = random_scene(task.rng, 1 if kind == "easy" else 3, thing)
        picture = {"bytes": encode_picture(draw_scene(scene, task.rng), ".png"), "path": f"{number}.png"}
        corpus.append({"corpus-id": str(1000 + number), "image": picture})
        sound = _stored(spoken(thing, task.rng), f"{number}.wav")
        queries.append({"query-id": f"a{number}", "image_id": str(1000 + number), "audio": sound})
        task.label(kind, thing.words, thing.words)
    task.writer.parquet(task.path("eval/corpus.parquet"), shuffled(task.rng, corpus))
    task.writer.parquet(task.path("eval/query.parquet"), queries)


# --- recordings ---


def _recordings(task: AudioTask) -> None:
    """Recordings in which some tones are heard, the last one once more in every other recording."""
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    kinds = difficulties(task.rng, task.num_queries)
    for number, first in enumerate(range(0, task.num_queries, EVENTS)):
        name = f"audio/street/r{number:05d}.wav"
        tones = shuffled(task.rng, EVERY_TONE)[:EVENTS]
        if number % 2:
            tones[-1] = tones[0]
        parts: list[tuple[float, Sound]] = []
        of_recording = kinds[first : first + EVENTS]
        for place, (tone, kind) in enumerate(zip(tones[: len(of_recording)], of_recording, strict=True)):
            start = round(EVENT_STEP * place + 0.1 + 0.8 * float(task.rng.random()), 2)
            parts.append((start, play(tone, task.rng, beneath=task.beneath(tone, kind))))
            folds[number % FOLDS].append(f"{name}\tstreet\t{start}\t{start + SECONDS:.2f}\t{tone.words}\n")
            task.label(kind, tone.words, tone.words)
        task.sound(f"{RECORDINGS}/{name}", recording(parts, RECORDING_SECONDS, task.rng))
    for number, lines in enumerate(folds, 1):
        task.writer.text(task.path(f"{RECORDINGS}/evaluation_setup/street_fold{number}_evaluate.txt"), "".join(lines))


_MAKERS: dict[str, Callable[[AudioTask], None]] = {
    "ESC-50": _esc50,
    "NSynth": _nsynth,
    "SpeechCommands": _speech_commands,
    "UrbanSound8K": _urban_sound,
    "CREMA-D": _crema,
    "SoundDescs": _sounddescs,
    "Clotho": _clotho,
    "AVE": _ave,
    "SpeechCOCO": _speechcoco,
    "TUTSound": _recordings,
    "TUTSound(hard)": _recordings,
}
