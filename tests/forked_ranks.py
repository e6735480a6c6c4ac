"""torchrun for one machine, whose processes are forked: started ones would each import torch first, for seconds.

Arguments: how many, a module with a `main` part, its arguments.
"""

from __future__ import annotations

import sys

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.mmemb_r1.calls import run_module


def main(processes: str, module: str, *arguments: str) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(processes),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, run_module)(module, arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
