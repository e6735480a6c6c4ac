"""Run by torchrun in a test: the second process waits for the first for longer than torch's limit; then two runs."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta
from pathlib import Path

from torch import distributed
from torch.distributed.distributed_c10d import _set_pg_timeout

from mmemb_r1_model.disk.config import named_config, override, read_yaml
from mmemb_r1_model.pipeline import Pipeline, _patient_barrier, read_pipeline
from mmemb_r1_model.training.distributed import join_world


def main() -> None:
    distributed.init_process_group("gloo")
    world = join_world("cpu")
    wait = _patient_barrier(world)
    _set_pg_timeout(timedelta(seconds=1))  # only now: two processes on a busy machine may need longer to meet
    if world.is_first:
        time.sleep(3)
    wait()
    config = read_pipeline(override(read_yaml(named_config("miniworld")), ["synthetic=[]"]))
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(config, Path(folder), print)
        for _ in range(2):  # the second goes through the connections of the first
            pipeline.run(("data",))
        pipeline.leave()


if __name__ == "__main__":
    main()
