"""The four memory tasks of the mini suite: days on which things were seen, in the four layouts of the real data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mmeb_tasks.agent import INSTRUCTIONS, MEMORY_ROWS
from mmeb_tasks.mini.questions import difficulties, motion_words
from mmeb_tasks.mini.thoughts import number_words
from mmeb_tasks.mini.world import EVERY_THING, NUMBERS, Rng, Thing, shuffled
from mmeb_tasks.mini.write import QueryLabel, Streams, SuiteWriter

#: Each thing is seen on each of them. They begin where sums do.
DAYS = range(2, 8)
#: Things of a corpus.
THINGS = {"KnowMeBench": 4, "REALTALK": 10, "PeerQA": 10, "DeepPlanning": 4}


class SubTask(NamedTuple):
    """Queries in a folder below the data set's, and the folder of their corpus; "" for the data set's own.

    `wanted`: how many things a query asks for.
    """

    folder: str
    corpus: str
    wanted: int = 1


_SCENARIOS = {
    "event_driven": ("information_extraction", "temporal_reasoning"),
    "flashback_intensive": ("adversarial_abstention", "mnestic_trigger_analysis"),
    "psychological_depth": ("mind-body_interaction", "temporal_reasoning"),
}
SUB_TASKS: Mapping[str, Sequence[SubTask]] = {
    "KnowMeBench": [
        SubTask(f"{scenario}/{kind}", scenario) for scenario, kinds in _SCENARIOS.items() for kind in kinds
    ],
    "REALTALK": [SubTask(kind, "") for kind in ("commonsense", "multi_hop", "temporal_reasoning")],
    "PeerQA": [SubTask("", "")],
    "DeepPlanning": [SubTask(f"shopping_level{n}", f"shopping_level{n}", n) for n in (1, 2, 3)],
}
#: data set → last folder of a sub-task, or the data set itself → instruction.
SENTENCES = {
    data_set: {
        (sub_task.folder.rpartition("/")[2] or data_set): f"Find what was seen, by {kind}:"
        for sub_task in sub_tasks
        for kind in [(sub_task.folder.rpartition("/")[2] or data_set).replace("_", " ")]
    }
    for data_set, sub_tasks in SUB_TASKS.items()
}
Qrels = Literal["trec", "tsv", "jsonl"]
QRELS: Mapping[str, Qrels] = {"KnowMeBench": "trec", "REALTALK": "tsv", "PeerQA": "jsonl", "DeepPlanning": "jsonl"}


@dataclass(frozen=True, slots=True)
class Memory:
    """What was seen on a day, or, in passing, later."""

    id: str
    thing: Thing
    day: int
    in_passing: bool
    text: str

    @property
    def grade(self) -> int:
        """Of whoever asks for the day and the thing."""
        return 1 if self.in_passing else 2


def write_memory_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the four memory tasks, and the instructions of all four if no other task did."""
    row = next(row for row in MEMORY_ROWS if row.name == name)
    if not writer.has(INSTRUCTIONS):
        writer.text(INSTRUCTIONS, json.dumps(SENTENCES, indent=1, ensure_ascii=False))
    rng, sub_tasks = streams(name), SUB_TASKS[row.data_set]
    corpora: dict[str, list[Memory]] = {}
    labels: list[QueryLabel] = []
    for number, sub_task in enumerate(sub_tasks):
        if sub_task.corpus not in corpora:
            corpora[sub_task.corpus] = memories = _draw_memories(rng, THINGS[row.data_set])
            corpus = "/".join(filter(None, (row.folder, sub_task.corpus, "corpus.jsonl")))
            writer.lines(corpus, [{"_id": m.id, "title": "", "text": m.text} for m in memories])
        share = num_queries // len(sub_tasks) + (number < num_queries % len(sub_tasks))
        folder = "/".join(filter(None, (row.folder, sub_task.folder)))
        labels += _write_queries(sub_task, folder, QRELS[row.data_set], corpora[sub_task.corpus], rng, writer, share)
    writer.labels(name, labels)


def _draw_memories(rng: Rng, count: int) -> list[Memory]:
    """Some things on every day, said on the day and once more in passing."""
    things = shuffled(rng, EVERY_THING)[:count]
    seen = shuffled(rng, [(thing, day, later) for thing in things for day in DAYS for later in (False, True)])
    return [
        Memory(f"m{number}", thing, day, later, _told(rng, thing, day, later))
        for number, (thing, day, later) in enumerate(seen)
    ]


def _told(rng: Rng, thing: Thing, day: int, in_passing: bool) -> str:
    if in_passing:
        return f"{thing.words}, as on day {NUMBERS[day]}"
    return f"day {NUMBERS[day]}: {motion_words(thing, int(rng.integers(4)))}"


def _write_queries(
    sub_task: SubTask,
    folder: str,
    form: Qrels,
    memories: Sequence[Memory],
    rng: Rng,
    writer: SuiteWriter,
    num_queries: int,
) -> list[QueryLabel]:
    """Queries for a thing on a day, hard where the day is a sum; of several things, one after another."""
    prefix = f"{sub_task.folder}::" if sub_task.folder else ""
    first_told = [memory for memory in memories if not memory.in_passing]
    queries, qrels, labels = [], [], []
    for number, kind in enumerate(difficulties(rng, num_queries)):
        wanted = [first_told[int(index)] for index in rng.permutation(len(first_told))[: sub_task.wanted]]
        text = " and ".join(f"{m.thing.words} on day {number_words(rng, m.day, kind)}" for m in wanted)
        answer = " and ".join(f"{memory.thing.words} day {NUMBERS[memory.day]}" for memory in wanted)
        keys = {(memory.thing, memory.day) for memory in wanted}
        queries.append({"_id": f"q{number}", "text": text})
        qrels += [(f"q{number}", memory) for memory in memories if (memory.thing, memory.day) in keys]
        labels.append(QueryLabel(f"{prefix}q{number}", kind, answer, answer))
    writer.lines(f"{folder}/queries.jsonl", queries)
    if form == "jsonl":
        rows = [{"query_id": query_id, "corpus_id": memory.id, "score": memory.grade} for query_id, memory in qrels]
        writer.lines(f"{folder}/qrels.jsonl", rows)
    else:
        header, between = ("", "\tQ0\t") if form == "trec" else ("query-id\tcorpus-id\tscore\n", "\t")
        lines = (f"{query_id}{between}{memory.id}\t{memory.grade}\n" for query_id, memory in qrels)
        writer.text(f"{folder}/qrels.tsv", header + "".join(lines))
    return labels
