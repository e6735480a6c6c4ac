"""Pairs of texts and their worker, known without torch: a process that writes rationales needs none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmemb_r1_model.data.pairs import Item, Pair
from mmemb_r1_model.rationales.config import WorkerConfig


@dataclass(frozen=True)
class Pairs:
    """A data set that is a tuple."""

    name: str
    pairs: tuple[Pair, ...]
    distractors: Sequence[Item] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


def pair(number: int, **changes: Any) -> Pair:
    made = Pair(f"p{number}", "shapes", Item("q", text=f"question {number}"), Item("t", text=f"the answer {number}"))
    return dataclasses.replace(made, **changes)


def pairs(count: int) -> list[Pairs]:
    return [Pairs("shapes", tuple(pair(number) for number in range(count)))]


def server(url: str, name: str = "w", **changes: Any) -> WorkerConfig:
    known = WorkerConfig(name=name, backend="endpoint", model="m", base_url=url, max_retries=0, timeout_seconds=60)
    return dataclasses.replace(known, **changes)
