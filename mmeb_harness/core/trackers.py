"""Curves and summaries in somebody's tracker, besides our own files: `--track trackio|wandb|tensorboard`.

Nothing is imported, and nothing goes anywhere, unless the option names one. Even then all three write to this disk,
until the tracker's own settings say otherwise (WANDB_MODE=online, TRACKIO_SPACE_ID). Our files are the record, and a
tracker is none: one that fails is told of when it fails and again at the end, and the work goes on without it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from mmeb_harness.core.errors import OptionError, one_line
from mmeb_harness.core.terminal import say

TrackerName = Literal["trackio", "wandb", "tensorboard"]
#: Each the name of its package, and of our extra that brings it.
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)

#: Takes values, and the step that they are of: 0 for the one row of a summary.
LogValues = Callable[[Mapping[str, float], int], None]

#: Seconds that a server may take to answer, and to take what is left at the end.
_WANDB_BEGINS_WITHIN = 60.0
_WANDB_ENDS_WITHIN = 300.0


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run before its values.

    Attributes:
        project: what it is filed under, unless the tracker's own settings name another.
        group: runs that belong together have the same.
        settings: what the run was made with, nested; no path of this machine.
        folder: the run's own, below which a tracker writes what it writes.
        record: which of our files holds the same, to be named when a tracker fails.
    """

    project: str
    name: str
    group: str
    settings: Mapping[str, Any]
    folder: Path
    record: Path


class Tracker(Protocol):
    """A run in a tracker. Its methods may raise what they please."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, *, failed: bool) -> None: ...


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Whether their packages are there, before hours are spent; nothing is imported.

    Raises:
        OptionError: one isn't; names the extra.
    """
    for name in names:
        try:
            distribution(name)
        except PackageNotFoundError:
            raise OptionError(f"--track {name} needs its package: pip install 'mmeb-harness[{name}]'") from None


@contextmanager
def tracking(names: Sequence[TrackerName], tracked: Tracked) -> Iterator[LogValues]:
    """Open a run in each of some trackers; it ends as failed if the block raises."""
    attempts = [_Attempt(name, tracked) for name in dict.fromkeys(names)]

    def log(values: Mapping[str, float], step: int) -> None:
        for attempt in attempts:
            attempt.log(values, step)

    failed = True
    try:
        yield log
        failed = False
    finally:
        for attempt in attempts:
            attempt.finish(failed=failed)


class _Attempt:
    """A tracker that is left alone once it has failed."""

    def __init__(self, name: TrackerName, tracked: Tracked) -> None:
        self._name, self._record = name, tracked.record
        self._tracker: Tracker | None = None
        self._problem = ""
        self._try("begin", lambda: self._begin(tracked))

    def _begin(self, tracked: Tracked) -> None:
        self._tracker = _OPEN[self._name](tracked)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if (tracker := self._tracker) is not None:
            self._try(f"take step {step}", lambda: tracker.log(values, step))

    def finish(self, *, failed: bool) -> None:
        if (tracker := self._tracker) is not None:
            self._try("end", lambda: tracker.finish(failed=failed))
        elif self._problem:
            say(f"{self._problem}; all is in {self._record}", err=True)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        try:
            with redirect_stdout(sys.stderr):  # what a tracker prints isn't the command's output
                work()
        except (Exception, SystemExit) as error:
            self._tracker = None
            self._problem = f"--track {self._name} couldn't {what} ({one_line(error, longest=200)})"
            say(f"{self._problem}; the run goes on without it, and all is in {self._record}", err=True)


class _Trackio:
    """In trackio's own folder (TRACKIO_DIR), to be looked at with `trackio show`."""

    def __init__(self, tracked: Tracked) -> None:
        import trackio

        self._finish = trackio.finish
        is_sent = any(os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"))
        with nullcontext() if is_sent else _hub_unasked():
            self._run = trackio.init(
                project=tracked.project,
                name=tracked.name,
                group=tracked.group,
                config=dict(tracked.settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        with warnings.catch_warnings(record=True) as told:  # all that it says of rows that it couldn't write or send
            warnings.simplefilter("always")
            self._finish()
        if told:
            raise OSError(str(told[0].message))


@contextmanager
def _hub_unasked() -> Iterator[None]:
    """Where there is a token of the hub, trackio would ask for its owner's name, to store it."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class _Wandb:
    """In the run's folder, to be sent with `wandb sync`; WANDB_MODE=online sends at once. Values and settings alone: no
    console, code, host, user, packages or commit.
    """

    def __init__(self, tracked: Tracked) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline, too, it would report how it is used
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", tracked.project),
            name=tracked.name,
            group=tracked.group,
            config=dict(tracked.settings),
            dir=os.environ.get("WANDB_DIR", tracked.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(
                console="off",
                quiet=True,
                disable_code=True,
                disable_git=True,
                init_timeout=_WANDB_BEGINS_WITHIN,
                finish_timeout=_WANDB_ENDS_WITHIN,
                finish_timeout_raises=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _TensorBoard:
    """Event files in `tensorboard` in the run's folder, to be looked at with `tensorboard --logdir`."""

    def __init__(self, tracked: Tracked) -> None:
        from tensorboard.summary import Writer

        folder = tracked.folder / "tensorboard"
        for older in folder.glob("events.out.tfevents.*"):
            older.unlink()  # of this run before it was broken off: its rows come again
        self._writer = Writer(str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, *, failed: bool) -> None:
        self._writer.close()


_OPEN: Mapping[TrackerName, Callable[[Tracked], Tracker]] = {
    "trackio": _Trackio,
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
}
