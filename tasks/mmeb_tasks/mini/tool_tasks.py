"""The 35 tool tasks of the mini suite: tools that do something with things, a corpus for each category."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmeb_tasks.agent import TOOL_ROWS, ToolCategory, ToolRow
from mmeb_tasks.mini.questions import difficulties
from mmeb_tasks.mini.thoughts import THOUGHTS, named
from mmeb_tasks.mini.visdoc_tasks import LANGUAGES, WORDS
from mmeb_tasks.mini.world import EVERY_THING, Rng, Thing, shuffled
from mmeb_tasks.mini.write import QueryLabel, Streams, SuiteWriter

NUM_TOOLS: Mapping[ToolCategory, int] = {"web": 160, "code": 96, "customized": 64}
VERBS = ("count", "find", "move", "turn")
INSTRUCTION = "Given a task, retrieve the tools that do it"
#: Tasks whose labels stand in another column, as in some of the published tables.
LABEL_TASKS = ("apigen", "gta")
#: Every so many queries ask for two tools.
EVERY_PAIR = 4


@dataclass(frozen=True, slots=True)
class Tool:
    """Does one thing with a thing."""

    id: str
    verb: str
    thing: Thing
    language: str

    @property
    def documentation(self) -> str:
        """JSON; every other description is said again in a language with other letters."""
        colours, shapes = WORDS[self.language]
        documented: dict[str, Any] = {
            "name": f"{self.verb} {self.thing.words}",
            "description": f"{self.verb} the {self.thing.words}",
            "parameters": {"picture": "a picture", "steps": 1.50},
        }
        if self.language != "english":
            documented["translation"] = f"{colours[self.thing.colour]} {shapes[self.thing.shape]}"
        return json.dumps(documented, ensure_ascii=False)


def draw_tools(category: ToolCategory, rng: Rng) -> list[Tool]:
    """The tools of a category, all different."""
    pairs = shuffled(rng, [(verb, thing) for verb in VERBS for thing in EVERY_THING])[: NUM_TOOLS[category]]
    return [
        Tool(f"{category}_tool_{number}", verb, thing, LANGUAGES[number % len(LANGUAGES)])
        for number, (verb, thing) in enumerate(pairs)
    ]


def write_tool_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 35 tool tasks, and its category's tools if no other task did."""
    index, row = next((index, row) for index, row in enumerate(TOOL_ROWS) if row.name == name)
    tools = draw_tools(row.category, streams(row.tools))
    if not writer.has(row.tools):
        writer.parquet(row.tools, [{"id": tool.id, "documentation": tool.documentation} for tool in tools])
    rng, thought = streams(name), THOUGHTS[index % len(THOUGHTS)]
    queries: list[dict[str, Any]] = []
    labels: list[QueryLabel] = []
    for number, kind in enumerate(difficulties(rng, num_queries)):
        wanted = [tools[int(i)] for i in rng.permutation(len(tools))[: 1 if number % EVERY_PAIR else 2]]
        words = [named(rng, tool.thing, kind, thought) for tool in wanted]
        text = ", then ".join(f"{tool.verb} {text}" for tool, (text, _) in zip(wanted, words, strict=True))
        rationale = " then ".join(f"{tool.verb} {said}" for tool, (_, said) in zip(wanted, words, strict=True))
        query_id = f"{row.subset}_query_{number}"
        queries.append(_query(row, query_id, text, wanted))
        answer = " then ".join(f"{tool.verb} {tool.thing.words}" for tool in wanted)
        labels.append(QueryLabel(query_id, kind, rationale, answer))
    writer.parquet(row.queries, queries)
    writer.labels(name, labels)


def _query(row: ToolRow, query_id: str, text: str, wanted: Sequence[Tool]) -> dict[str, Any]:
    column = "label" if row.subset in LABEL_TASKS else "labels"
    return {
        "id": query_id,
        "instruction": INSTRUCTION,
        "query": text,
        column: json.dumps([{"id": tool.id, "relevance": 1} for tool in wanted]),
        "category": row.category,
    }
