"""An embedder whose `prepare` does what its items' texts say, for workers that import it from here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmeb_harness import DataError, EncodeResult, Item, ModelError, ModelInfo, Role, UnknownNameError
from mmeb_harness.encode.local import Preparation, Unprepared


@dataclass(frozen=True)
class Recipe:
    """Makes one. `folder`: where what happens only once leaves its mark."""

    folder: Path

    def load(self) -> Preparing:
        return Preparing(self.folder)


@dataclass(frozen=True)
class BrokenRecipe:
    """Makes none: raises, or ends the process."""

    how: str

    def load(self) -> Preparing:
        if self.how == "exit":
            os._exit(7)
        if self.how == "hang":
            time.sleep(600)
        raise ModelError("checkpoint x has no tokenizer")


class TwoArgumentError(Exception):
    """Can't be made again from its `args`."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


@dataclass(frozen=True)
class Prepared:
    texts: list[str]
    role: Role
    pid: int
    pixels: np.ndarray
    more: dict[str, np.ndarray] = field(default_factory=dict)


class Preparing:
    info = ModelInfo("preparing", "1", 4)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        raise NotImplementedError

    def cost(self, item: Item, role: Role) -> int:
        return 1

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        raise NotImplementedError

    def prepare(self, items: Sequence[Item], role: Role) -> Prepared:
        texts = [item.text for item in items]
        for text in texts:
            act, _, value = text.partition(" ")
            getattr(self, f"_{act}", lambda _: None)(value)
        side = 1 + max((int(text.split()[1]) for text in texts if text.startswith("pixels")), default=0)
        pixels = np.full((side, 1024), len(items), dtype=np.float32)
        return Prepared(
            texts, role, os.getpid(), pixels, {"empty": np.empty((0, 3)), "odd": np.arange(5, dtype=np.int8)}
        )

    def _once(self, act: str) -> None:
        mark = self._folder / act
        if not mark.exists():
            mark.touch()
            getattr(self, f"_{act}")("")

    def _sleep(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def _exit(self, _: str) -> None:
        os._exit(3)

    def _killed(self, _: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, _: str) -> None:
        time.sleep(600)

    def _interrupt(self, _: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def _missing(self, path: str) -> None:
        raise DataError(f"image {path} can't be opened")

    def _unknown(self, name: str) -> None:
        raise UnknownNameError("model", name, ["random"])

    def _divide(self, _: str) -> None:
        raise ZeroDivisionError("division by zero")

    def _awkward(self, _: str) -> None:
        raise TwoArgumentError("one", "other")

    def _environment(self, name: str) -> None:
        (self._folder / name).write_text(os.environ[name])

    def _started(self, name: str) -> None:
        (self._folder / f"{name}.pid").write_text(str(os.getpid()))

    def _startedhang(self, name: str) -> None:
        self._started(name)
        self._hang("")


def batches_of(*texts: str, tokens: int = 1) -> list[Unprepared]:
    """A batch of one item each."""
    return [([Item(f"item {place}", text=text)], "query", tokens) for place, text in enumerate(texts)]


def texts_of(preparation: Preparation, *texts: str) -> list[str]:
    return [text for prepared, _ in preparation.run(batches_of(*texts)) for text in prepared.texts]
