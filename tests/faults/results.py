"""Files of a finished run that somebody edited, cut, swapped or lost; files of scores and of other people's results."""

from __future__ import annotations

import functools
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.fault import Command, Fault, World

TASKS = ("DocVQA", "OK-VQA")
RELEASE = Path(__file__).parents[1] / "golden" / "release_0_1" / "run"
AGAIN = r"run the same command again"
RUN = ("mmeb-eval", "run", "--model", "random", "--tasks", ",".join(TASKS), "--output", "run", "--workers", "0")
LEADERBOARD = ("mmeb-eval", "leaderboard", "run")
COMPARE = ("mmeb-eval", "compare", "run", "other")
READERS: Mapping[str, Command] = {
    "leaderboard": LEADERBOARD,
    "compare": COMPARE,
    "report": ("mmeb-eval", "report", "run", "--output", "page.html"),
    "plot": ("mmeb-eval", "plot", "run", "--output", "plots"),
    "export": ("mmeb-eval", "export", "run", "--trec", "trec"),
    "submit": ("mmeb-eval", "submit", "run", "--output", "m.json"),
    "cards": ("mmeb-eval", "leaderboard", "other", "run"),
}
#: What happens to a finished run.
Damage = Callable[[Path], object]


@functools.cache
def finished(mini: Path) -> tempfile.TemporaryDirectory[str]:
    """A run as `mmeb-eval run` leaves it, made once a process."""
    from tests.harness.made_runs import mini_run

    folder = tempfile.TemporaryDirectory()
    (Path(folder.name) / "cache").mkdir()
    (Path(folder.name) / "cache" / "mini-v1-seed0").symlink_to(mini)
    mini_run(Path(folder.name) / "cache", Path(folder.name) / "run", TASKS, "random")
    return folder


def _fault(
    name: str,
    damage: Damage,
    *says: str,
    command: Command = LEADERBOARD,
    code: int = 2,
    holds: Callable[[World], None] | None = None,
    slow: bool = False,
) -> Fault:
    def make(world: World) -> list[Command]:
        made = Path(finished(world.mini).name)
        shutil.copytree(made / "run", world.folder / "run")
        shutil.copytree(made / "run", world.folder / "other")
        shutil.copytree(made / ".vectors", world.folder / ".vectors")
        damage(world.folder / "run")
        return [command]

    return Fault("results", name, make, says, code, holds=holds, slow=slow)


def _edits(file: str, **changes: object) -> Damage:
    """Fields of a JSON file set to other values; a dotted name is that of an inner field."""

    def damage(run: Path) -> None:
        values: Any = json.loads((run / file).read_text())
        for place, value in changes.items():
            *parents, last = place.split("__")
            inner = values
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        (run / file).write_text(json.dumps(values))

    return damage


def _drops(file: str, *fields: str) -> Damage:
    def damage(run: Path) -> None:
        values = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps({name: value for name, value in values.items() if name not in fields}))

    return damage


def _writes(file: str, content: bytes) -> Damage:
    return lambda run: (run / file).write_bytes(content)


def _flips(file: str, place: float = 0.5) -> Damage:
    """One bit, so far into the file."""

    def damage(run: Path) -> None:
        content = bytearray((run / file).read_bytes())
        content[int(place * len(content))] ^= 1
        (run / file).write_bytes(bytes(content))

    return damage


def _cuts(file: str) -> Damage:
    return lambda run: (run / file).write_bytes((run / file).read_bytes()[:-200])


def _is_folder(file: str) -> Damage:
    def damage(run: Path) -> None:
        (run / file).unlink()
        (run / file).mkdir()

    return damage


def _is_file(folder: str) -> Damage:
    def damage(run: Path) -> None:
        shutil.rmtree(run / folder)
        (run / folder).write_bytes(b"")

    return damage


def _has_pipe(file: str) -> Damage:
    import os

    def damage(run: Path) -> None:
        (run / file).unlink(missing_ok=True)
        os.mkfifo(run / file)

    return damage


def _all(*damages: Damage) -> Damage:
    return lambda run: [damage(run) for damage in damages]


TASK, QUERIES, CANDIDATES = "tasks/OK-VQA.json", "queries/OK-VQA.parquet", "candidates/OK-VQA.parquet"
_UNSEALED = _all(_drops(TASK, "checksum", "tables"), _drops("tasks/DocVQA.json", "checksum", "tables"))
#: As release 0.1 wrote it.
UNSEALED = _all(_UNSEALED, _drops("run.json", "checksum", "checksums"))


def _edited() -> tuple[Fault, ...]:
    """A score of 0.99 in a task's file is found by whoever reads it; so is anything else that was touched."""
    changed = (rf"{TASK} was changed since it was written", AGAIN)
    return (
        *(
            _fault(f"a score of 0.99: {name}", _edits(TASK, score=0.99), *changed, command=command)
            for name, command in READERS.items()
        ),
        _fault(
            "a score of 0.99: verify",
            _edits(TASK, score=0.99),
            r"score is 0\.99, recomputed",
            code=1,
            command=("mmeb-eval", "verify", "run"),
        ),
        _fault("a score of 2.5", _edits(TASK, score=2.5), r"score is 2\.5, expected a fraction", AGAIN),
        _fault(
            "a score that is NaN", _edits(TASK, score=float("nan")), r"score is nan, expected a finite number", AGAIN
        ),
        _fault("a count of 400 digits", _edits(TASK, num_queries=10**400), r"whole number of 401 digits", AGAIN),
        _fault("one bit of a task's file", _flips(TASK, 0.31), r"OK-VQA\.json", AGAIN),
        _fault(
            "one bit of a table",
            _flips(QUERIES),
            r"OK-VQA\.parquet is not as it was written",
            "run again",
            command=COMPARE,
        ),
        _fault(
            "another task's table",
            lambda run: shutil.copy(run / "queries/DocVQA.parquet", run / QUERIES),
            r"OK-VQA\.parquet is not as it was written",
            command=COMPARE,
        ),
        _fault(
            "a mean in run.json", _edits("run.json", seconds=1.0), r"run\.json was changed since", "--fresh starts over"
        ),
        _fault("run.json's checksum taken out", _drops("run.json", "checksum"), "is not the one that", AGAIN),
        _fault("a task's checksum taken out", _drops(TASK, "checksum"), r"OK-VQA\.json is not the one that", AGAIN),
        _fault(
            "all checksums taken out, and a score of 0.99",
            _all(_edits(TASK, score=0.99), UNSEALED),
            r"score is 0\.99, recomputed",
            AGAIN,
        ),
        _fault(
            "all checksums taken out, and a metric edited",
            _all(_edits(TASK, **{"metrics__recall@5": 0.99}), UNSEALED),
            r"recall@5 is 0\.99, recomputed",
            AGAIN,
        ),
        _fault(
            "neither checksums nor rankings",
            _all(UNSEALED, lambda run: shutil.rmtree(run / "queries")),
            "unverified, since neither checksums nor rankings are there: OK-VQA",
            code=0,
        ),
        _fault(
            "another run's task",
            _all(lambda run: shutil.copy(RELEASE / "tasks/DocVQA.json", run / "tasks/DocVQA.json")),
            r"DocVQA\.json is not of the run",
            AGAIN,
        ),
    )


def _broken() -> tuple[Fault, ...]:
    """Whatever a file holds, whoever reads it says so in one line."""
    deep = b"[" * 100_000 + b"]" * 100_000
    return (
        _fault("a task's file that is empty", _writes(TASK, b""), r"OK-VQA\.json is not valid JSON", AGAIN),
        _fault("a task's file of lists in lists", _writes(TASK, deep), r"nested more than 100 levels deep", AGAIN),
        _fault("a task's file that is a folder", _is_folder(TASK), r"OK-VQA\.json: it is a folder", AGAIN),
        _fault("a task's file that is a pipe", _has_pipe(TASK), r"OK-VQA\.json: it is a named pipe", AGAIN),
        _fault("half a character", _edits(TASK, name="\ud800"), r"half a character, U\+D800", AGAIN),
        _fault("null for statistics", _edits(TASK, queries=None), r"queries must be a mapping, not None", AGAIN),
        _fault(
            "a list for a profile",
            _edits("run.json", profile=[]),
            r"run\.json .*profile must be a mapping",
            "delete this",
        ),
        _fault("a newer release's run", _edits("run.json", schema_version=99), "upgrade mmeb-harness"),
        _fault("run.json that is a folder", _is_folder("run.json"), r"run is not a run's folder"),
        _fault(
            "a table that is gone",
            lambda run: (run / QUERIES).unlink(),
            r"OK-VQA\.parquet is missing",
            AGAIN,
            command=COMPARE,
        ),
    )


def _same_scores(world: World) -> None:
    for task in TASKS:
        values = [json.loads((world.folder / run / f"tasks/{task}.json").read_text()) for run in ("run", "other")]
        assert values[0]["metrics"] == values[1]["metrics"], f"{task}: other scores"
    assert "checksums" in json.loads((world.folder / "run/run.json").read_text()), "no checksums"


def _gone_on() -> tuple[Fault, ...]:
    """The way out of each: the same command again, or a start over, and the scores are what they were."""

    def again(name: str, damage: Damage, *says: str, fresh: bool = False) -> Fault:
        command = (*RUN, "--fresh") if fresh else RUN
        return _fault(f"again: {name}", damage, *says, command=command, code=0, holds=_same_scores)

    computed = r"OK-VQA is computed again: "
    return (
        again("an edited score", _edits(TASK, score=0.99), computed, "was changed since"),
        again("a table of candidates with a flipped bit", _flips(CANDIDATES), computed),
        again("a lost table", lambda run: (run / QUERIES).unlink(), computed, "missing"),
        again("no checksums", UNSEALED, r"2\] .*unchanged: kept"),
        again("no checksums, and an edited score", _all(_edits(TASK, score=0.99), UNSEALED), computed, "recomputed"),
        again("run.json deleted, as it says", lambda run: (run / "run.json").unlink(), r"2\] .*unchanged: kept"),
        again("fresh: run.json cut", _cuts("run.json"), "OK-VQA", fresh=True),
        again("fresh: a folder for run.json", _is_folder("run.json"), "OK-VQA", fresh=True),
        again("fresh: a task's file of a newer release", _edits(TASK, schema_version=99), "OK-VQA", fresh=True),
        _fault(
            "again: run.json cut", _cuts("run.json"), r"run\.json is not valid JSON", "--fresh starts over", command=RUN
        ),
        _fault(
            "again: a pipe for the lock",
            _has_pipe(".lock"),
            r"run/\.lock: it is a named pipe",
            "move it away",
            command=RUN,
        ),
        _fault("again: a file for a folder", _is_file("tasks"), r"a file lies where a folder is meant", command=RUN),
        _fault(
            "fresh: a file for a folder",
            _is_file("tasks"),
            r"can't delete run/tasks: .*move it away",
            command=(*RUN, "--fresh"),
        ),
        _fault(
            "again: run.json a folder", _is_folder("run.json"), r"run\.json: it is a folder", "--fresh", command=RUN
        ),
        _fault(
            "again: another task's result was edited",
            _edits(TASK, score=0.99),
            "was changed since",
            "ask for it, too",
            command=("mmeb-eval", "run", "--model", "random", "--tasks", "DocVQA", "--output", "run"),
        ),
    )


def _handed(name: str, file: str, content: bytes, command: Command, *says: str) -> Fault:
    """A file that somebody else wrote."""

    def make(world: World) -> list[Command]:
        path = world.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return [command]

    return Fault("results", name, make, says)


def _handed_over() -> tuple[Fault, ...]:
    take = ("mmeb-eval", "import", "theirs")
    row = {"prediction": ["a"], "label": ["a"], "rel_scores": [1e300]}
    scores = {"hit@1": 10**39, "num_pred": 5}
    return (
        _handed(
            "official scores in lists of lists",
            "theirs/OK-VQA_score.json",
            b"[" * 90_000,
            take,
            "OK-VQA_score",
            "get the file",
        ),
        _handed(
            "an official score of 40 digits", "theirs/OK-VQA_score.json", json.dumps(scores).encode(), take, "fraction"
        ),
        _handed("official rankings, a line of binary", "theirs/OK-VQA_pred.jsonl", b"\xff\x00\n", take, "OK-VQA_pred"),
        _handed("an official grade of 1e300", "theirs/OK-VQA_pred.jsonl", json.dumps(row).encode(), take, "rel_scores"),
        _handed("official scores, compressed", "theirs/OK-VQA_score.json", gzip.compress(b"{}"), take, "OK-VQA_score"),
        _handed("a submission file that is a number", "theirs", b"3", take, "no submission file"),
        _handed(
            "published scores with a NUL",
            "p.csv",
            b"model\x00\n",
            ("mmeb-eval", "leaderboard", "--all-published", "--published-file", "p.csv"),
            r"p\.csv",
        ),
        _handed(
            "published scores with a column too many",
            "p.csv",
            b"model,edition,task,metric,value,kind,source\nm,page-fixed,OK-VQA,hit@1,0.2,readme,s,more\n",
            ("mmeb-eval", "leaderboard", "--all-published", "--published-file", "p.csv"),
            r"p\.csv:2: expected a value",
        ),
        _handed(
            "a scores file with a list for a score",
            "s.json",
            b'{"origin": "imported", "schema_version": 1, "tasks": []}',
            ("mmeb-eval", "leaderboard", "s.json"),
            r"s\.json is not a scores file",
        ),
    )


FAULTS = (*_edited(), *_broken(), *_gone_on(), *_handed_over())
