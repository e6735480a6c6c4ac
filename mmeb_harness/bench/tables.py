"""A bench as tables: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mmeb_harness.bench.agreement import disagreement
from mmeb_harness.bench.sides import size_of_batches
from mmeb_harness.bench.values import BenchResult, Efficiency, Measured, ModeResult, RankingRatio, Ratio, Spread
from mmeb_harness.core.errors import counted
from mmeb_harness.show.tables import NONE, markdown_table, milliseconds, percent, print_lines, print_table

if TYPE_CHECKING:
    from rich.console import Console

#: Stages in the order in which they are shown; others stand before "rank".
_FIRST_STAGES = ("plan", "wait", "prefill", "gate", "generate", "readout", "encode")
_LAST_STAGES = ("rank", "other")


@dataclass(frozen=True)
class Grid:
    """A table of texts; the first column names the row."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def print_bench(result: BenchResult, console: Console) -> None:
    """Print the tables, then the remarks."""
    print_lines(console, f"\n{title(result)}\n")
    for grid in grids(result):
        print_table(console, grid.heads, grid.rows, title=grid.caption)
        print_lines(console, "")
    print_lines(console, *remarks(result))


def as_markdown(result: BenchResult) -> str:
    """The same as a document."""
    parts = [f"# {title(result)}"]
    for grid in grids(result):
        parts += [f"**{grid.caption}**", markdown_table(grid.heads, grid.rows, numeric=range(1, len(grid.heads)))]
    parts.append("\n".join(f"- {remark}" for remark in remarks(result)))
    return "\n\n".join(parts) + "\n"


def title(result: BenchResult) -> str:
    """What was measured, as a heading."""
    data = f"{result.data}, synthetic" if result.data_synthetic else result.data
    limited = f", first {result.limit} queries of each" if result.limit is not None else ""
    return f"bench of {result.model} on {data}: {counted(len(result.tasks), 'task')}{limited}"


Shown = TypeVar("Shown")


def grids(result: BenchResult) -> Iterator[Grid]:
    """All tables that have a row."""
    sides = [(_name(mode, side), side) for mode in result.modes for side in mode.sides]
    floors = [(name, side.efficiency) for name, side in sides if side.efficiency is not None]
    ratios = [
        (f"{mode.mode}, ours, {ratio.batch_tokens:,} tokens", ratio) for mode in result.modes for ratio in mode.ratios
    ]
    ranking = [(f"{ratio.task}: {ratio.peer}", ratio) for mode in result.modes for ratio in mode.ranking]
    yield _grid("whole way, encoding and ranking", sides, _SPEED)
    yield _grid("latency of a query in its batch, most memory", sides, _LATENCY_AND_MEMORY)
    yield _grid("where the time went, % of the whole", sides, _stages([side for _, side in sides]))
    if ratios:
        yield _grid("ours against the references, on the same items", ratios, _RATIOS)
    if ranking:
        yield _grid("ranking alone, on the same vectors", ranking, _RANKING)
    if floors:
        yield _grid("against what the machine could do at best", floors, _FLOORS)


def _grid(caption: str, rows: Sequence[tuple[str, Shown]], columns: Mapping[str, Callable[[Shown], str]]) -> Grid:
    texts = tuple((name, *(text(shown) for text in columns.values())) for name, shown in rows)
    return Grid(caption, ("", *columns), texts)


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _range(spread: Spread) -> str:
    return f"{spread.low:.2f}–{spread.high:.2f}"


def _rate(spread: Spread | None) -> str:
    return NONE if spread is None else f"{spread.median:,.0f}"


def _gigabytes(size: int | None) -> str:
    return NONE if size is None else f"{size / 1e9:.2f}"


_SPEED: Mapping[str, Callable[[Measured], str]] = {
    "items": lambda side: f"{side.items:,}",
    "distinct": lambda side: f"{side.encoded:,}",
    "score": lambda side: percent(side.score),
    "seconds": lambda side: _seconds(side.seconds.median),
    "range": lambda side: _range(side.seconds),
    "CPU s": lambda side: _seconds(side.cpu_seconds),
    "items/s": lambda side: _rate(side.items_per_second),
    "distinct/s": lambda side: _rate(side.encoded_per_second),
    "prompt tok/s": lambda side: _rate(side.prompt_tokens_per_second),
    "written tok/s": lambda side: _rate(side.written_tokens_per_second),
}
_LATENCY_AND_MEMORY: Mapping[str, Callable[[Measured], str]] = {
    "p50 ms": lambda side: milliseconds(side.latency_seconds.get("p50")),
    "p95 ms": lambda side: milliseconds(side.latency_seconds.get("p95")),
    "p99 ms": lambda side: milliseconds(side.latency_seconds.get("p99")),
    "process GB": lambda side: _gigabytes(side.memory),
    "device GB": lambda side: _gigabytes(side.device_memory),
}
_RATIOS: Mapping[str, Callable[[Ratio], str]] = {
    "against": lambda ratio: ratio.reference,
    "times faster": lambda ratio: f"{ratio.times.median:.2f}",
    "range": lambda ratio: _range(ratio.times),
    "score": lambda ratio: NONE if ratio.score_difference is None else f"{ratio.score_difference:+.1e}",
    "lowest cosine": lambda ratio: f"{ratio.agreement.lowest_cosine:.6f}" if ratio.agreement else NONE,
    "largest difference": lambda ratio: f"{ratio.agreement.largest_difference:.1e}" if ratio.agreement else NONE,
    "same rationales": lambda ratio: _share(ratio.agreement.same_rationales if ratio.agreement else None),
}
_RANKING: Mapping[str, Callable[[RankingRatio], str]] = {
    "queries": lambda ratio: f"{ratio.queries:,}",
    "candidates": lambda ratio: f"{ratio.candidates:,}",
    "width": lambda ratio: f"{ratio.dimensions:,}",
    "places": lambda ratio: f"{ratio.depth:,}",
    "ours s": lambda ratio: f"{ratio.ours.median:.3f}",
    "theirs s": lambda ratio: f"{ratio.theirs.median:.3f}",
    "times faster": lambda ratio: f"{ratio.times.median:.2f}",
    "range": lambda ratio: _range(ratio.times),
    "same places": lambda ratio: _share(ratio.same_places),
    "settings": lambda ratio: size_of_batches(None, None, ratio.settings),
}
_FLOORS: Mapping[str, Callable[[Efficiency], str]] = {
    "FLOPs utilisation %": lambda efficiency: percent(efficiency.flops_utilisation),
    "floor s": lambda efficiency: f"{efficiency.floor_seconds:.3g}",
    "floor / encoding %": lambda efficiency: percent(efficiency.share_of_encoding),
    "floor / accelerator %": lambda efficiency: percent(efficiency.share_of_accelerator),
}


def _share(value: float | None) -> str:
    return NONE if value is None else f"{percent(value)} %"


def _stages(sides: Sequence[Measured]) -> dict[str, Callable[[Measured], str]]:
    timed = dict.fromkeys(stage for side in sides for stage in side.stages)
    own = [stage for stage in timed if stage not in (*_FIRST_STAGES, *_LAST_STAGES)]
    stages = [stage for stage in (*_FIRST_STAGES, *own, *_LAST_STAGES) if stage in timed]
    shares = {stage: partial(_share_of_stage, stage) for stage in stages}
    return {**shares, "decode media, s": lambda side: _seconds(side.prepare_seconds)}


def _share_of_stage(stage: str, side: Measured) -> str:
    seconds = side.stages.get(stage)
    return percent(None if seconds is None else seconds / side.seconds.median)


def remarks(result: BenchResult) -> list[str]:
    """What the tables mean, and what in them can't be trusted."""
    lines = [
        f"medians of {result.repeats} repeats in one process, in an order that alternates; range: least to most. "
        "Seconds are of this machine today; ratios are what travels.",
        "plain loop: batches of 4 in the order of the files, duplicates too, one thing after another, through the "
        "library's own generate where the model has that. fixed batches: 16 in the order of the files.",
        "CPU s: of all threads of this process; threads that wait for each other count. process GB: with its workers "
        f"({result.workers}), what they share counted for each.",
        "plan: content keys and batches; wait: nothing to compute until media were decoded; decode media: all of that "
        "work, wherever it ran, hidden or not.",
    ]
    if result.speed is None:
        lines.append("no floor: the speed of this machine isn't known; --peak-tflops and --bandwidth-gbs tell it.")
    else:
        lines.append(
            f"floor: the longer of operations at {result.speed.flops / 1e12:,.4g} TFLOP/s and bytes at "
            f"{result.speed.bandwidth / 1e9:,.4g} GB/s, of prompts and of the tokens after them "
            f"({result.speed.source})."
        )
        if any(side.efficiency is None for mode in result.modes for side in mode.sides):
            lines.append("sides without a floor don't count their work.")
    for mode in result.modes:
        if mode.part_items is not None:
            lines.append(
                f"{mode.mode}: the references had {mode.part_items:,} of the items, evenly spaced, and nothing was "
                "ranked; ours was measured on the same."
            )
        lines += [
            f"NOT THE SAME: {mode.mode}, ours with {ratio.batch_tokens:,} tokens and the {ratio.reference} disagree "
            f"({told})."
            for ratio in mode.ratios
            if ratio.agreement and (told := disagreement(ratio.agreement))
        ]
    return lines


def _name(mode: ModeResult, side: Measured) -> str:
    size = size_of_batches(side.batch_tokens, side.batch_items, side.settings)
    part = ", part" if side.sample == "part" else ""
    return f"{mode.mode}, {side.side}, {size}{part}"
