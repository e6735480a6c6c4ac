"""Run by torchrun in a test: the second process waits for the first for longer than torch's limit."""

from __future__ import annotations

import time
from datetime import timedelta

from torch import distributed
from torch.distributed.distributed_c10d import _set_pg_timeout

from mmemb_r1_model.pipeline import _patient_barrier
from mmemb_r1_model.training.distributed import join_world, leave_world


def main() -> None:
    distributed.init_process_group("gloo")
    world = join_world("cpu")
    wait = _patient_barrier(world)
    _set_pg_timeout(timedelta(seconds=1))  # only now: two processes on a busy machine may need longer to meet
    if world.is_first:
        time.sleep(3)
    wait()
    leave_world(world)


if __name__ == "__main__":
    main()
