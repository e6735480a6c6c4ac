"""Signals while Python can't handle them: they are heard, told, and end the process within bounds."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import PATIENCE, wait_until

#: In C code that lets other threads run and handles no signal, for about a minute.
DEAF = "hashlib.pbkdf2_hmac('sha256', b'x', b'y', 100_000_000)"
#: In Python's code, which begins a new instruction all the time.
BUSY = "time.sleep(60)"
SCRIPT = """
import hashlib, multiprocessing, sys, time
from mmeb_harness.core import interrupt
from mmeb_harness.core.terminal import say
interrupt.PATIENCE_SECONDS, interrupt.WAY_OUT_SECONDS = {patience}, 0.5

def main():
    interrupts = interrupt.Interrupts(say)
    with interrupt.command_running():
        try:
            with {deferred}:
                child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
                child.start()
                interrupts.under_way = "a batch of 2 items"
                say(f"begun {{child.pid}}")
                {work}
        except KeyboardInterrupt:
            say("unwound")
            child.kill()
            sys.exit(130)

if __name__ == "__main__":
    main()
"""
TOLD = r"finishing what is under way, a batch of 2 items, for at most \d+ s \(once more: stop at once\)"


def _ended(
    folder: Path, work: str, deferred: bool, signals: list[signal.Signals], patience: float = 0.5
) -> tuple[int, str, float]:
    """Exit code, all that was said, and seconds from the first signal to the end."""
    context = "interrupts.deferred()" if deferred else "__import__('contextlib').nullcontext()"
    code = SCRIPT.format(work=work, deferred=context, patience=patience)
    path = folder / "interrupted.py"
    path.write_text(code)
    process = subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    begun = process.stdout.readline()
    time.sleep(0.2)
    since = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    said, _ = process.communicate(timeout=PATIENCE)
    wait_until(lambda: not Path(f"/proc/{begun.split()[1]}/stat").exists())
    return process.returncode, said, time.monotonic() - since


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_does_not_end_in_time_is_told_and_ended_with_all_children(number: signal.Signals, tmp_path: Path) -> None:
    code, said, seconds = _ended(tmp_path, DEAF, deferred=True, signals=[number])
    assert code == 130
    assert re.match(rf"{number.name}: {TOLD}", said)
    assert said.splitlines()[-1].startswith("error: stopped; what is done is kept")
    assert seconds < 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "deferred", "signals", "last"),
    [
        (BUSY, True, [signal.SIGTERM], "unwound"),
        (BUSY, True, [signal.SIGINT, signal.SIGINT], "unwound"),
        (BUSY, False, [signal.SIGHUP], "unwound"),
        (DEAF, True, [signal.SIGINT, signal.SIGINT], "error: stopped"),
        (DEAF, False, [signal.SIGTERM], "error: stopped"),
    ],
)
def test_asking_once_more_or_where_nothing_is_kept_ends_at_once(
    work: str, deferred: bool, signals: list[signal.Signals], last: str, tmp_path: Path
) -> None:
    patience = 600 if len(signals) > 1 else 0.5
    code, said, seconds = _ended(tmp_path, work, deferred=deferred, signals=signals, patience=patience)
    assert code == 130
    assert said.splitlines()[-1].startswith(last)
    assert seconds < 15


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from mmeb_harness.core.interrupt import Interrupts

        with Interrupts().deferred():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("milliseconds", [60, 150, 300])
def test_ctrl_c_while_a_command_imports_is_one_line(milliseconds: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mmeb_harness", "tasks"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:  # Python itself, which starts with a traceback of its own, is ready
        if "mmeb_harness.core.early" in line:
            break
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    said = [line for line in err.splitlines() if line and "import time:" not in line]
    if not out.endswith("mixed\n"):  # the last row: where all is printed there is nothing to stop
        assert said[-1].startswith("error: stopped")
    assert "Traceback" not in "".join(said)
