"""What another program does of a run, for `mmeb-eval bench --beside` to time in the same process.

[project.entry-points."mmeb_harness.peers"]
my-library = "my_package:open_my_library"     called with the model and a value, returns a Peer
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import AnyVectors, Embedder, EncodeResult
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.items import Item, Role, Samples, Scalar
from mmeb_harness.core.tasks import Task

Float32s: TypeAlias = NDArray[np.float32]

#: Items of one side of a task, in their order.
EncodeItems = Callable[[Sequence[Item], Role], EncodeResult]
#: A task, read, and its vectors, of queries and of candidates; its main metric's mean, from 0 to 1.
ScoreTask = Callable[[Task, Samples, AnyVectors, AnyVectors], float]
#: A task, read; its main metric's mean, from 0 to 1.
EvaluateTask = Callable[[Task, Samples], float]
#: Unit vectors (q, d) and (c, d), and k: places (q, k) of the best candidates, best first.
RankAll = Callable[[Float32s, Float32s, int], NDArray[np.int64]]


@dataclass(frozen=True)
class Peer:
    """One program, ready to be timed: it encodes, or evaluates, or ranks.

    Attributes:
        settings: shown beside its times, e.g. {"batch_size": 32}.
        encode: given so many items `at_once`, in the order of the files; `None`: all of a task's side.
        score: what ranks the vectors of `encode`; `None`: what ranks those of a run.
        evaluate: the whole way, with a ranking and metrics of its own.
        rank: given the vectors of a run.
    """

    settings: Mapping[str, Scalar]
    encode: EncodeItems | None = None
    at_once: int | None = None
    score: ScoreTask | None = None
    evaluate: EvaluateTask | None = None
    rank: RankAll | None = None


#: Makes a peer of a model, with the same weights in memory, and of what stands behind `NAME=`, if anything does.
#: Raises OptionError where it isn't installed, or can't do anything with this model.
OpenPeer = Callable[[Embedder, str | None], Peer]


def read_batch_size(name: str, value: str | None, default: int) -> int:
    """The number behind `NAME=`.

    Raises:
        OptionError: it is no number above 0.
    """
    if value is None:
        return default
    if not (value.isdecimal() and int(value) > 0):
        raise OptionError(f"--beside {name}={value}: what follows is the size of a batch, a number above 0")
    return int(value)


def import_peer(name: str, module: str, install: str) -> ModuleType:
    """A module of a peer.

    Args:
        install: the command that installs it.

    Raises:
        OptionError: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OptionError(f"--beside {name}: {error}; {install}") from error
