"""Batches prepared ahead by real processes: in order, within bounds, and whatever becomes of a process."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmeb_harness import DataError, Item, ModelError, UnknownNameError
from mmeb_harness.core.errors import PluginError
from mmeb_harness.encode import supervisor
from mmeb_harness.encode.local import Unprepared
from mmeb_harness.encode.supervisor import WorkerPreparation
from tests.harness.preparing import BrokenRecipe, Recipe, batches_of, texts_of
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[3]


def blocks() -> int:
    """Prepared batches that this process has in memory."""
    return Path("/proc/self/maps").read_text().count("memfd:prepared")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def started(folder: Path) -> list[int]:
    """Processes that left a mark."""
    return [int(file.read_text()) for file in folder.glob("*.pid") if file.read_text()]


def are_started(folder: Path, count: int) -> bool:
    return len(started(folder)) == count


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPreparation]:
    """Two workers, for tests that leave them well."""
    with WorkerPreparation(Recipe(tmp_path_factory.mktemp("two")), 2) as preparation:
        yield preparation


def test_workers_give_batches_in_order_whole_and_from_their_own_processes(two: WorkerPreparation) -> None:
    texts = ["sleep 0.2", *(f"pixels {rows}" for rows in (1, 700, 0, 3))]
    given = list(two.run(batches_of(*texts)))
    assert [prepared.texts for prepared, _ in given] == [[text] for text in texts]
    assert len({prepared.pid for prepared, _ in given} | {os.getpid()}) == 3
    assert given[0][1] >= 0.2
    assert [prepared.pixels.shape for prepared, _ in given] == [(rows, 1024) for rows in (1, 2, 701, 1, 4)]
    for prepared, _ in given:
        assert prepared.role == "query"
        assert (prepared.pixels == 1).all()
        assert prepared.more["empty"].shape == (0, 3)
        assert prepared.more["odd"].tolist() == [0, 1, 2, 3, 4]
        assert prepared.pixels.flags.writeable  # as torch wants them
        assert prepared.pixels.ctypes.data % 64 == 0


def test_no_batches(two: WorkerPreparation) -> None:
    assert list(two.run([])) == []


def test_memory_goes_with_the_arrays(two: WorkerPreparation) -> None:
    assert blocks() == 0
    run = two.run(batches_of(*["pixels 100"] * 8))
    kept, held = None, []
    for place, (prepared, _) in enumerate(run):
        kept = prepared.pixels[5:6] if place == 2 else kept
        del prepared
        held.append(blocks())
    assert max(held) <= 1 + 4 + 1  # kept, ahead, and the one that the loop was handed
    assert blocks() == 1
    assert kept is not None
    assert (kept == 1).all()
    del kept
    assert blocks() == 0


def test_batches_nobody_asks_for_are_dropped(two: WorkerPreparation) -> None:
    run = two.run(batches_of("a", "sleep 0.3", "b", "missing x", "c"))
    assert next(run)[0].texts == ["a"]
    run.close()
    assert texts_of(two, "d", "e", "f") == ["d", "e", "f"]
    assert blocks() == 0


def test_no_more_than_two_batches_beyond_the_workers_are_ahead(two: WorkerPreparation) -> None:
    taken: list[int] = []

    def source() -> Iterator[Unprepared]:
        for place, batch in enumerate(batches_of(*["text"] * 20)):
            taken.append(place)
            yield batch

    for place, _ in enumerate(two.run(source())):
        assert len(taken) <= place + 1 + 4 + 1  # handed over, ahead, and one for which there is no room yet
    assert len(taken) == 20


@pytest.mark.parametrize(("look_ahead", "most"), [(2**20, 1), (4 * 2**20, 3)])
def test_prepared_bytes_ahead_are_bounded(tmp_path: Path, look_ahead: int, most: int) -> None:
    """A batch has a little over 1 MiB; one is ahead in any case."""
    batches: list[Unprepared] = [
        ([Item("mark", text=f"started {place}"), Item("page", text="pixels 256")], "query", 100 + place)
        for place in range(8)
    ]
    with WorkerPreparation(Recipe(tmp_path), 4, look_ahead_bytes=look_ahead) as preparation:
        ahead = []
        for place, _ in enumerate(preparation.run(batches)):
            wait_until(functools.partial(are_started, tmp_path, min(8, place + 1 + most)))
            time.sleep(0.05)
            ahead.append(len(started(tmp_path)) - place - 1)
    assert ahead == [min(most, 7 - place) for place in range(8)]


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    notes: list[str] = []
    with WorkerPreparation(Recipe(tmp_path), 2, note=notes.append) as preparation:
        assert texts_of(preparation, "a", "once killed", "b") == ["a", "once killed", "b"]
        assert texts_of(preparation, "once exit", "c") == ["once exit", "c"]
    assert notes == [
        "a preparation worker died (signal 9: out of memory?); its batch is tried again",
        "a preparation worker died (exit code 3); its batch is tried again",
    ]


def test_an_idle_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with WorkerPreparation(Recipe(tmp_path), 1) as preparation:
        ((first, _),) = preparation.run(batches_of("a"))
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(first.pid))
        ((second, _),) = preparation.run(batches_of("b"))
        assert second.texts == ["b"]
        assert second.pid != first.pid


def test_a_batch_that_kills_three_workers_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    items = [Item(f"page {place}", text="killed", images=(tmp_path / f"{place}.png",)) for place in range(5)]
    with WorkerPreparation(Recipe(tmp_path), 2) as preparation:
        message = (
            r"^3 preparation workers died \(signal 9: out of memory\?\) over one batch: items 'page 0', 'page 1', "
            r"'page 2' and 2 more \(media .*0\.png, .* and 2 more\); try fewer --workers, or a smaller --batch-tokens$"
        )
        run = preparation.run([*batches_of("a"), (items, "query", 1), *batches_of("b")])
        assert next(run)[0].texts == ["a"]
        with pytest.raises(ModelError, match=message):
            next(run)
        assert texts_of(preparation, "c") == ["c"]


def test_a_worker_that_hangs_is_ended_and_the_batch_tried_once_more(tmp_path: Path) -> None:
    notes: list[str] = []
    with WorkerPreparation(Recipe(tmp_path), 2, seconds=1, note=notes.append) as preparation:
        assert texts_of(preparation, "a", "once hang", "b") == ["a", "once hang", "b"]
        assert notes == ["a preparation worker gave no answer for 1 s; its batch is tried again"]
        with pytest.raises(
            ModelError, match="2 preparation workers gave no answer for 1 s over one batch: items 'item 0'"
        ):
            texts_of(preparation, "hang", "c")
        assert len(notes) == 2
        assert texts_of(preparation, "d") == ["d"]


def test_a_slow_consumer_is_no_hang(tmp_path: Path) -> None:
    with WorkerPreparation(Recipe(tmp_path), 1, seconds=1) as preparation:
        run = preparation.run(batches_of("a", "b", "c"))
        assert next(run)[0].texts == ["a"]
        time.sleep(1.1)
        assert [prepared.texts for prepared, _ in run] == [["b"], ["c"]]


def test_errors_come_as_themselves_when_their_turn_comes(two: WorkerPreparation) -> None:
    run = two.run(batches_of("a", "missing x.png", "b"))
    assert next(run)[0].texts == ["a"]
    with pytest.raises(DataError, match=r"^image x\.png can't be opened$"):
        next(run)
    with pytest.raises(UnknownNameError, match=r"^no model named 'randm'\. Did you mean 'random'\?$"):
        texts_of(two, "unknown randm")


def test_programming_errors_carry_the_workers_traceback(two: WorkerPreparation) -> None:
    with pytest.raises(
        PluginError, match=r"model 'preparing': ZeroDivisionError: .*_divide; called in .*, in prepare\) while it"
    ) as divided:
        texts_of(two, "divide")
    assert "in _divide" in divided.value.__notes__[0]
    with pytest.raises(
        PluginError, match=r"TwoArgumentError: one and other \(preparing\.py:\d+, in _awkward"
    ) as awkward:
        texts_of(two, "awkward")
    assert "in _awkward" in awkward.value.__notes__[0]


def test_a_model_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    with (
        WorkerPreparation(BrokenRecipe("raise"), 4) as preparation,
        pytest.raises(ModelError, match=r"^checkpoint x has no tokenizer$"),
    ):
        texts_of(preparation, "a", "b")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("exit", r"3 preparation workers died before they were ready \(exit code 7\); use --workers 0\..*__main__"),
        ("hang", "a preparation worker was not ready after 1 s; use --workers 0"),
    ],
)
def test_workers_that_never_get_ready_are_given_up(how: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 1.0 if how == "hang" else 60.0)
    with WorkerPreparation(BrokenRecipe(how), 2) as preparation, pytest.raises(ModelError, match=message):
        texts_of(preparation, "a", "b")


def test_workers_see_no_gpu_and_use_one_thread(tmp_path: Path) -> None:
    with WorkerPreparation(Recipe(tmp_path), 1) as preparation:
        texts_of(preparation, "environment CUDA_VISIBLE_DEVICES", "environment OMP_NUM_THREADS")
    assert (tmp_path / "CUDA_VISIBLE_DEVICES").read_text() == ""
    assert (tmp_path / "OMP_NUM_THREADS").read_text() == "1"


def test_the_system_kills_workers_first_when_memory_runs_out(two: WorkerPreparation) -> None:
    ((prepared, _),) = two.run(batches_of("a"))
    assert Path(f"/proc/{prepared.pid}/oom_score_adj").read_text().strip() == "500"


def test_workers_take_no_notice_of_ctrl_c(two: WorkerPreparation) -> None:
    assert texts_of(two, "interrupt", "a") == ["interrupt", "a"]


def test_nothing_is_asked_of_a_closed_preparation(tmp_path: Path) -> None:
    preparation = WorkerPreparation(Recipe(tmp_path), 2)
    assert texts_of(preparation, "started one") == ["started one"]
    preparation.close()
    assert not is_running(int((tmp_path / "one.pid").read_text()))
    with pytest.raises(RuntimeError, match="is closed"):
        texts_of(preparation, "b")


def test_closing_ends_a_wait_in_another_thread(tmp_path: Path) -> None:
    preparation = WorkerPreparation(Recipe(tmp_path), 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(texts_of, preparation, "startedhang one")
        wait_until(lambda: are_started(tmp_path, 1))
        preparation.close()
        with pytest.raises(RuntimeError, match="is closed"):
            waiting.result(timeout=PATIENCE)
    assert not is_running(started(tmp_path)[0])


def test_there_is_at_least_one_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 workers prepare nothing"):
        WorkerPreparation(Recipe(tmp_path), 0)


SCRIPT = """
import sys
from pathlib import Path
from mmeb_harness import Item
from mmeb_harness.encode.supervisor import WorkerPreparation
from tests.harness.preparing import Recipe

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    preparation = WorkerPreparation(Recipe(folder), 2)
    texts = sys.argv[2:]
    for prepared, _ in preparation.run([([Item(text, text=text)], "query", 1) for text in texts]):
        print(prepared.texts, flush=True)
"""


def script(folder: Path, *texts: str) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder), *texts],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_parent_that_ends_leaves_neither_workers_nor_warnings(tmp_path: Path) -> None:
    parent = script(tmp_path, "started one", "b")
    out, err = parent.communicate(timeout=PATIENCE)
    assert (out, err, parent.returncode) == ("['started one']\n['b']\n", "", 0)
    assert not is_running(int((tmp_path / "one.pid").read_text()))


@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_is_killed_even_those_that_hang(tmp_path: Path, ends: signal.Signals) -> None:
    parent = script(tmp_path, "a", "startedhang one", "startedhang two")
    wait_until(lambda: are_started(tmp_path, 2))
    parent.send_signal(ends)
    parent.communicate(timeout=PATIENCE)
    assert parent.returncode == -ends
    wait_until(lambda: not any(map(is_running, started(tmp_path))))


def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path) -> None:
    parent = script(tmp_path, "a", "startedhang one", "startedhang two")
    wait_until(lambda: are_started(tmp_path, 2))
    os.killpg(parent.pid, signal.SIGINT)
    _, err = parent.communicate(timeout=PATIENCE)
    assert err.count("Traceback") == err.count("KeyboardInterrupt") == 1
    wait_until(lambda: not any(map(is_running, started(tmp_path))))
