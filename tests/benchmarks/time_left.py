"""The time left that a run announces, held against what it then took.

python -m tests.benchmarks.time_left --model mmemb_r1 --reasoning always --output NEW --vectors NEW

The words are those of `mmeb-eval run`; folders that hold nothing yet make it encode everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

SHARES = (0.1, 0.25, 0.5, 0.75)
#: A line of a task, or of items that are encoded; what counts other work has no such time of day before its number.
_ANNOUNCED = re.compile(r"(?:\] |items/s).*?about (?:(\d+) h )?(?:(\d+) min ?)?(?:(\d+) s)? ?left")


def main(words: list[str]) -> None:
    command = [str(Path(sys.executable).parent / "mmeb-eval"), "run", *words]
    began, announced, ended = time.monotonic(), list[tuple[float, int]](), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if said := _ANNOUNCED.search(line):
                hours, minutes, seconds = (int(part or 0) for part in said.groups())
                announced.append((time.monotonic() - began, 3600 * hours + 60 * minutes + seconds))
            if re.match(r"encoding +┃", line):
                ended = time.monotonic() - began
    print("share of the time, announced s, true s, ratio")
    for share in SHARES:
        later = [(at, left) for at, left in announced if at >= share * ended]
        if later:
            at, left = later[0]
            print(f"{at / ended:.0%} {left} {ended - at:.0f} {left / (ended - at):.2f}")
    print(f"{ended:.0f} s in all")


if __name__ == "__main__":
    main(sys.argv[1:])
