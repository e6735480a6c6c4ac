"""Training pairs from a data folder in the benchmark's own layout, read by the registered tasks' readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import DataError, Frames, Item, Task
from mmemb_r1_model.prompt import Prompt
from mmemb_r1_model.vision import Patches

TASKS_GROUP = "mmeb_harness.tasks"
QUERY_LABELS = "query_labels.parquet"


@dataclass(frozen=True)
class CompactPrompt:
    """A prompt whose patches are kept as bytes: a quarter of the memory, the same numbers back."""

    prompt: Prompt  # without patches
    pixels: NDArray[np.uint8] | None
    grid: tuple[int, int, int] | None

    def restore(self) -> Prompt:
        """The prompt as it was built."""
        if self.pixels is None or self.grid is None:
            return self.prompt
        scaled = self.pixels.astype(np.float32) / np.float32(255)
        patches = Patches((scaled - np.float32(0.5)) / np.float32(0.5), self.grid)
        prompt = self.prompt
        return Prompt(prompt.ids, prompt.types, prompt.positions, prompt.next_position, patches)


@dataclass(frozen=True)
class TrainingPair:
    """A query, its relevant candidates (positions in the task's list), and what a worker wrote.

    Attributes:
        answer: pairs of one answer are never each other's negatives.
        reason: whether the gate should choose to reason.
        pool: positions of the candidates that the query is ranked against.
    """

    query: CompactPrompt
    relevant: tuple[int, ...]
    pool: tuple[int, ...]
    rationale: str
    answer: str
    reason: bool


@dataclass(frozen=True)
class TrainingTask:
    """One task's pairs and candidates.

    Attributes:
        texts: of candidates that are bare text; `None` for the others.
    """

    name: str
    group: str
    pairs: tuple[TrainingPair, ...]
    candidates: tuple[CompactPrompt, ...]
    texts: tuple[str | None, ...]


def compact(prompt: Prompt) -> CompactPrompt:
    """Keep patches as bytes. Exact for normalisation with mean and std 0.5, as Qwen3-VL has."""
    bare = Prompt(prompt.ids, prompt.types, prompt.positions, prompt.next_position, None)
    if prompt.patches is None:
        return CompactPrompt(bare, None, None)
    pixels = np.rint((prompt.patches.pixels * 0.5 + 0.5) * 255).clip(0, 255).astype(np.uint8)
    return CompactPrompt(bare, pixels, prompt.patches.grid)


def find_tasks() -> list[Task]:
    """All registered tasks."""
    found: list[Task] = []
    for point in entry_points(group=TASKS_GROUP):
        found += list(point.load().TASKS)
    return found


def read_labels(data: Path) -> dict[str, dict[str, Mapping[str, str]]]:
    """task → query id → difficulty, rationale and answer.

    Raises:
        DataError: if the folder has none.
    """
    import pyarrow.parquet as pq

    path = data / QUERY_LABELS
    if not path.is_file():
        raise DataError(f"{path} is missing: this folder has no rationales; python -m mmeb_tasks.mini makes one")
    labels: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in pq.read_table(path).to_pylist():
        labels.setdefault(row["task"], {})[row["query_id"]] = row
    return labels


def read_texts(data: Path) -> list[str]:
    """Every text of a data folder, for a tokenizer: instructions, queries, candidates, rationales; and timestamps."""
    texts = [f"<{step + 0.5:.1f} seconds>" for step in range(0, 8, 2)] * 1000
    labels = read_labels(data)
    for task in find_tasks():
        if task.name not in labels:
            continue
        samples = task.load(data, Frames())
        for item in (*samples.queries, *samples.candidates):
            texts += [item.instruction, item.text]
        texts += [" " + label["rationale"] for label in labels[task.name].values()]
    return texts


def read_training_tasks(data: Path, prompt_of: Callable[[Item], Prompt]) -> list[TrainingTask]:
    """Read all tasks of a folder, their items turned into prompts."""
    labels = read_labels(data)
    return [_read_task(task, data, labels[task.name], prompt_of) for task in find_tasks() if task.name in labels]


def _read_task(
    task: Task, data: Path, labels: Mapping[str, Mapping[str, str]], prompt_of: Callable[[Item], Prompt]
) -> TrainingTask:
    samples = task.load(data, Frames())
    position = {candidate.id: index for index, candidate in enumerate(samples.candidates)}
    everything = tuple(range(len(samples.candidates)))
    pairs = []
    for query in samples.queries:
        label, gains = labels[query.id], samples.gains[query.id]
        best = max(gains.values())
        pairs.append(
            TrainingPair(
                query=compact(prompt_of(query)),
                relevant=tuple(position[one] for one, gain in gains.items() if gain == best),
                pool=everything if samples.pools is None else tuple(position[one] for one in samples.pools[query.id]),
                rationale=label["rationale"],
                answer=label["answer"],
                reason=label["difficulty"] == "hard",
            )
        )
    return TrainingTask(
        name=task.name,
        group=task.group,
        pairs=tuple(pairs),
        candidates=tuple(compact(prompt_of(candidate)) for candidate in samples.candidates),
        texts=tuple(None if candidate.media else candidate.text for candidate in samples.candidates),
    )


def split_off(tasks: Sequence[TrainingTask], held_out: int) -> tuple[list[TrainingTask], list[TrainingTask]]:
    """(training, held out): the last pairs of every task never train anything; candidates are shared."""

    def part(task: TrainingTask, pairs: tuple[TrainingPair, ...]) -> TrainingTask:
        return TrainingTask(task.name, task.group, pairs, task.candidates, task.texts)

    return (
        [part(task, task.pairs[:-held_out]) for task in tasks],
        [part(task, task.pairs[-held_out:]) for task in tasks],
    )
