"""What most commands begin with, done once for all that are forked: our modules imported, readers of our files made."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mmeb_harness.api.config import RunConfig
from mmeb_harness.core.reading import build_config
from mmeb_harness.data.folder import describe
from mmeb_harness.results.files import load_run_result, load_task_result

for _name in (
    *(f"mmeb_harness.cli.{name}" for name in ("commands", "run", "data", "cache", "scores", "leaderboard", "page")),
    *("mmeb_harness.run.evaluate", "mmeb_harness.run.record", "mmeb_harness.encode.check"),
    *("mmeb_harness.show.compare", "mmeb_harness.show.run_table", "mmeb_harness.show.leaderboard"),
    *("mmeb_tasks", "mmeb_tasks.readers.visdoc", "mmeb_tasks.readers.video", "mmeb_baselines.random_model"),
):
    import_module(_name)

_RELEASE = Path(__file__).parent / "golden" / "release_0_1"
build_config(RunConfig, {})
load_run_result(_RELEASE / "run" / "run.json")
load_task_result(next((_RELEASE / "run" / "tasks").iterdir()))
describe(_RELEASE)
