"""All hostile inputs as real processes, and runs killed at random moments.

    python -m tests.faults [KIND …] [--kills N] [--seed S]

Exits with 1 where one is met badly.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmeb_tasks.mini import make_suite

from tests.faults.fault import Fault, World, call_process, meet
from tests.faults.kills import random_kills
from tests.faults.table import all_faults


def main() -> int:
    """Meet every row of the kinds that are asked for, or of all, then end as many runs as asked for; say what came of
    each.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", metavar="KIND", nargs="*", help="of inputs; default: all")
    parser.add_argument("--kills", type=int, default=0, help="runs that are ended at random moments")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16), help="of the moments")
    asked = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script starts its background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [fault for fault in all_faults() if not asked.kinds or fault.kind in asked.kinds]
    with tempfile.TemporaryDirectory() as folder:
        cache, kills = Path(folder) / "cache", Path(folder) / "kills"
        make_suite(cache / "mini-v1-seed0", 0)
        kills.mkdir()
        bad = sum(
            _met_badly(fault, World(Path(folder) / str(number), cache / "mini-v1-seed0"))
            for number, fault in enumerate(chosen)
        )
        print(f"{len(chosen)} inputs, {bad} met badly")
        if asked.kills:
            print(f"{asked.kills} kills, seed {asked.seed}")
            for kill in random_kills(asked.kills, asked.seed, kills, cache):
                bad += bool(kill.wrong)
                _report(not kill.wrong, f"{kill.name}: ended with {kill.code}", kill.wrong)
    print(f"{len(chosen) + asked.kills} inputs and kills, {bad} met badly")
    return 1 if bad else 0


def _met_badly(fault: Fault, world: World) -> bool:
    wrong = meet(fault, world, call_process)
    _report(not wrong, f"{fault.kind:<12} {fault.name}", wrong)
    return bool(wrong)


def _report(well: bool, what: str, wrong: Sequence[str]) -> None:
    print(f"{'ok' if well else 'FAIL':<4}  {what}", *wrong, sep="\n      ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
