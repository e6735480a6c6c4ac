"""What the audio readers make of damaged or unusual folders."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS
from mmeb_tasks.mini import make_suite_v3

import mmeb_harness as mmeb
from mmeb_harness import DataError, Frames, OptionError
from tests.tasks.golden_v3 import CASES, tone, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
COMMANDS = "audio-tasks/speechcommand-1k"
AVE = "audio-tasks/AVE/AVE_Dataset"


def commands(folder: Path, *paths: str) -> None:
    (folder / COMMANDS).mkdir(parents=True, exist_ok=True)
    labels = {"label": list(range(len(paths))), "label_name": [f"word {number}" for number in range(len(paths))]}
    pq.write_table(pa.table({"audio_path": list(paths), **labels}), folder / COMMANDS / "query_eval.parquet")


def test_paths_of_another_machine_mean_what_follows_the_folder_of_tasks(tmp_path: Path) -> None:
    commands(tmp_path, "/data/somebody/MMEB-V3/audio-tasks/speechcommand-1k/a.wav", f"{COMMANDS}/b.wav")
    for name in "ab":
        (tmp_path / COMMANDS / f"{name}.wav").write_bytes(tone(440, 0.1, 16_000))
    samples = BY_NAME["SpeechCommands"].load(tmp_path, Frames())
    assert [query.media for query in samples.queries] == [
        (tmp_path / COMMANDS / "a.wav",),
        (tmp_path / COMMANDS / "b.wav",),
    ]


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.wav", f"/data/audio-tasks/{'../' * 3}secret.wav"])
def test_paths_stay_in_the_data_folder(path: str, tmp_path: Path) -> None:
    commands(tmp_path, path)
    with pytest.raises(DataError, match=r"^SpeechCommands: annotation path .* leaves the data folder"):
        BY_NAME["SpeechCommands"].load(tmp_path, Frames())


def rewritten(relative: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        pq.write_table(change(pq.read_table(folder / relative)), folder / relative)

    return spoil


def text(relative: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / relative).write_text(content) and None


NSYNTH = "audio-tasks/nsynth-1k/eval/query.parquet"
CLOTHO = "audio-tasks/clotho/clotho_captions_evaluation.csv"
TUT = "audio-tasks/tutsound/TUT-sound-events-2017-development"
FOLD = "evaluation_setup/street_fold1_evaluate.txt"

BAD_INPUT: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no table": ("NSynth", lambda folder: (folder / NSYNTH).unlink(), "nsynth-1k holds no eval/query.parquet"),
    "a table that is none": ("NSynth", text(NSYNTH, "x"), "annotations .* can't be read: "),
    "no column of classes": (
        "ESC-50",
        rewritten("audio-tasks/esc50/data/test-00000-of-00001.parquet", lambda table: table.drop(["target"])),
        "no column of the classes' numbers",
    ),
    "no sound": ("NSynth", rewritten(NSYNTH, lambda table: table.drop(["audio"])), "none of the columns audio, "),
    "empty sounds": (
        "NSynth",
        rewritten(NSYNTH, lambda t: t.set_column(3, "audio", pa.nulls(len(t), t.schema.field("audio").type))),
        r"sound '0': .*00000.wav is missing, and its table holds no bytes for it",
    ),
    "a class number out of hand": (
        "NSynth",
        rewritten(NSYNTH, lambda t: t.set_column(1, "instrument_family", pa.array([10**9] * len(t)))),
        "a class has the number 1000000000",
    ),
    "a short row": ("Clotho", text(CLOTHO, "file_name,caption_1\na.wav\n"), "row 2 has 1 fields, not 2"),
    "no sound at all": ("Clotho", text(CLOTHO, "file_name,caption_1\nx.wav,a\n"), "no queries"),
    "no cut sounds": ("AVE", lambda folder: shutil.rmtree(folder / AVE / "audios"), r"or cut its files: ffmpeg -ss"),
    "no frames": (
        "AVE",
        lambda folder: shutil.rmtree(folder / AVE / "frames" / "zz1"),
        r"frames/zz1 is missing; write frames of each video into one, in order: ffmpeg -i \S+/AVE/zz1.mp4 \S+/%04d.jpg",
    ),
    "no frames of any": (
        "AVE",
        lambda folder: shutil.rmtree(folder / AVE / "frames"),
        r"frames/\S+ is missing; write frames of each video into one, in order: ffmpeg -i",
    ),
    "no time": (
        "TUTSound",
        text(f"{TUT}/{FOLD}", "audio/street/a1.wav\tstreet\tnan\t1\tcar\n"),
        "from nan to 1, expected",
    ),
    "no clip": ("AVE", text(f"{AVE}/testSet.txt", "Bell&zz1&good\n"), "row 1 is 'Bell&zz1&good'"),
    "a recording that is none": ("TUTSound", text(f"{TUT}/audio/street/a1.wav", "x"), "a1.wav can't be opened: "),
    "an empty recording": (
        "TUTSound",
        lambda folder: (folder / TUT / "audio/street/a1.wav").write_bytes(tone(440, 0, 8000)) and None,
        "a1.wav can't be opened: it holds no samples",
    ),
    "no recording": ("TUTSound", lambda folder: (folder / TUT / "audio/street/a1.wav").unlink(), "is missing"),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_is_one_line_with_the_task_and_the_way_out(case: str, tmp_path: Path) -> None:
    name, spoil, message = BAD_INPUT[case]
    write_files(CASES[name], tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        BY_NAME[name].load(tmp_path, Frames())
    assert re.fullmatch(
        rf"{re.escape(name)}: .*: mmeb-eval data (get|check) --data .* --edition v3.*", str(caught.value)
    )


def test_a_part_too_short_to_be_heard_is_its_text_and_counted(tmp_path: Path) -> None:
    write_files(CASES["TUTSound"], tmp_path)
    fold = tmp_path / TUT / "evaluation_setup" / "street_fold3_evaluate.txt"
    fold.write_text("audio/street/a1.wav\tstreet\t1\t1.02\tcar\naudio/street/a1.wav\tstreet\t2\t2.03\tcar\n")
    samples = BY_NAME["TUTSound"].load(tmp_path, Frames())
    first, second = samples.candidates[:2]
    assert first.sound is None
    assert second.sound is not None
    assert samples.notes["parts too short to be heard, shown as their text"] == 1


def test_a_run_hears_its_window_and_says_so(tmp_path: Path) -> None:
    make_suite_v3(tmp_path / "data", 0, ["UrbanSound8K"])

    def run(seconds: float | None) -> mmeb.Run:
        output = tmp_path / f"runs/{seconds}"
        data, edition = tmp_path / "data", "v3"
        return mmeb.evaluate(
            "bag_of_features", "UrbanSound8K", data=data, edition=edition, output=output, audio_seconds=seconds
        )

    whole, short = run(None), run(0.05)
    assert [one.result.profile.audio_seconds for one in (whole, short)] == [30, 0.05]
    assert whole.tasks[0].result.score > short.tasks[0].result.score + 0.2  # rhythms
    assert short.tasks[0].result.candidates.reused == short.tasks[0].result.candidates.encoded  # class names
    assert short.tasks[0].result.queries.reused == 0
    assert "profiles differ" in str(mmeb.compare(whole, mmeb.load_run(short.folder)))  # both are as they were written
    with pytest.raises(OptionError, match=r"--audio-seconds must be at least 0\.025, not 0\.02"):
        run(0.02)


def test_sounds_are_written_once_and_not_taken_for_those_of_another_table(tmp_path: Path) -> None:
    write_files(CASES["NSynth"], tmp_path)
    task = BY_NAME["NSynth"]
    first = [query.media[0] for query in task.load(tmp_path, Frames()).queries]
    stamp = [path.stat().st_mtime_ns for path in first]
    task.load(tmp_path, Frames())
    assert [path.stat().st_mtime_ns for path in first] == stamp
    rewritten(NSYNTH, lambda table: table.take([3, 0]))(tmp_path)
    second = [query.media[0] for query in task.load(tmp_path, Frames()).queries]
    assert not {*first} & {*second}
    assert [path.read_bytes() for path in second] == [first[3].read_bytes(), first[0].read_bytes()]
