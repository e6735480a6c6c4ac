"""A bench as tables: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmeb_harness.bench.agreement import disagreement
from mmeb_harness.bench.values import BenchResult, Measured, ModeResult, Ratio, Spread
from mmeb_harness.show.tables import counted, markdown_table, milliseconds, percent, print_lines, terminal_table

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
        console.print(terminal_table(grid.heads, grid.rows, title=grid.caption))
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


def grids(result: BenchResult) -> Iterator[Grid]:
    """All tables that have a row."""
    sides = [(mode, side) for mode in result.modes for side in mode.sides]
    yield _speed(sides)
    yield _latency_and_memory(sides)
    yield _stages(sides)
    for grid in (_ratios(result.modes), _floors(sides)):
        if grid.rows:
            yield grid


def _speed(sides: Sequence[tuple[ModeResult, Measured]]) -> Grid:
    heads = (
        "",
        "items",
        "distinct",
        "score",
        "seconds",
        "range",
        "CPU s",
        "items/s",
        "distinct/s",
        "prompt tok/s",
        "written tok/s",
    )
    return Grid(
        "whole way, encoding and ranking",
        heads,
        tuple(
            (
                _name(mode, side),
                f"{side.items:,}",
                f"{side.encoded:,}",
                percent(side.score),
                _seconds(side.seconds.median),
                _range(side.seconds),
                _seconds(side.cpu_seconds),
                _rate(side.items_per_second),
                _rate(side.encoded_per_second),
                _rate(side.prompt_tokens_per_second),
                _rate(side.written_tokens_per_second),
            )
            for mode, side in sides
        ),
    )


def _latency_and_memory(sides: Sequence[tuple[ModeResult, Measured]]) -> Grid:
    return Grid(
        "latency of a query in its batch, most memory",
        ("", "p50 ms", "p95 ms", "p99 ms", "process GB", "device GB"),
        tuple(
            (
                _name(mode, side),
                *(milliseconds(side.latency_seconds.get(name)) for name in ("p50", "p95", "p99")),
                _gigabytes(side.memory),
                _gigabytes(side.device_memory),
            )
            for mode, side in sides
        ),
    )


def _stages(sides: Sequence[tuple[ModeResult, Measured]]) -> Grid:
    timed = dict.fromkeys(stage for _, side in sides for stage in side.stages)
    own = [stage for stage in timed if stage not in (*_FIRST_STAGES, *_LAST_STAGES)]
    stages = [stage for stage in (*_FIRST_STAGES, *own, *_LAST_STAGES) if stage in timed]
    rows = []
    for mode, side in sides:
        each = [side.stages.get(stage) for stage in stages]
        cells = [percent(None if seconds is None else seconds / side.seconds.median) for seconds in each]
        prepare = "-" if side.prepare_seconds is None else _seconds(side.prepare_seconds)
        rows.append((_name(mode, side), *cells, prepare))
    return Grid("where the time went, % of the whole", ("", *stages, "decode media, s"), tuple(rows))


def _ratios(modes: Sequence[ModeResult]) -> Grid:
    heads = ("", "against", "times faster", "range", "lowest cosine", "largest difference", "same rationales")
    rows = []
    for mode in modes:
        for ratio in mode.ratios:
            agreement = ratio.agreement
            same = agreement.same_rationales
            rows.append(
                (
                    f"{mode.mode}, ours, {ratio.batch_tokens:,} tokens",
                    ratio.reference,
                    f"{ratio.times.median:.2f}",
                    _range(ratio.times),
                    f"{agreement.lowest_cosine:.6f}",
                    f"{agreement.largest_difference:.1e}",
                    "-" if same is None else f"{percent(same)} %",
                )
            )
    return Grid("ours against the references, on the same items", heads, tuple(rows))


def _floors(sides: Sequence[tuple[ModeResult, Measured]]) -> Grid:
    rows = []
    for mode, side in sides:
        if (efficiency := side.efficiency) is not None:
            rows.append(
                (
                    _name(mode, side),
                    percent(efficiency.flops_utilisation),
                    f"{efficiency.floor_seconds:.3g}",
                    percent(efficiency.share_of_encoding),
                    percent(efficiency.share_of_accelerator),
                )
            )
    heads = ("", "FLOPs utilisation %", "floor s", "floor / encoding %", "floor / accelerator %")
    return Grid("against what the machine could do at best", heads, tuple(rows))


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
        lines += [_warning(mode, ratio, told) for ratio in mode.ratios if (told := disagreement(ratio.agreement))]
    return lines


def _warning(mode: ModeResult, ratio: Ratio, told: str) -> str:
    return (
        f"NOT THE SAME: {mode.mode}, ours with {ratio.batch_tokens:,} tokens and the {ratio.reference} disagree "
        f"({told})."
    )


def _name(mode: ModeResult, side: Measured) -> str:
    size = f"{side.batch_tokens:,} tokens" if side.batch_tokens is not None else f"{side.batch_items} items"
    part = ", part" if side.sample == "part" else ""
    return f"{mode.mode}, {side.side}, {size}{part}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _range(spread: Spread) -> str:
    return f"{spread.low:.2f}–{spread.high:.2f}"


def _rate(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:,.0f}"


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f}"
