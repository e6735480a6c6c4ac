"""`mmeb-eval bench`: how fast this machine encodes and ranks, beside plain loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import names, run_options
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.terminal import ENDLESS, console, say, say_kept

if TYPE_CHECKING:
    from mmeb_harness.api.config import RunConfig
    from mmeb_harness.core.registry import ModelSpec
    from mmeb_harness.data.folder import DataInfo

DEFAULT_REPEATS = 5


def token_budgets(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[int, ...]:
    """The comma-separated numbers above 0 of an option that may be repeated."""
    budgets = names(_context, _parameter, values)
    for value in budgets:
        if not value.isdigit() or int(value) < 1:
            raise click.BadParameter(f"{value!r} is no number of tokens above 0")
    return tuple(dict.fromkeys(int(value) for value in budgets))


@click.command()
@run_options
@click.option("--limit", type=int, metavar="N", help="Only the first N queries of each task.")
@click.option(
    "--batch-tokens",
    multiple=True,
    callback=token_budgets,
    metavar="N,…",
    help="Upper bounds of a batch's padded tokens. Default: 8192.",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=DEFAULT_REPEATS, show_default=True, help="Of everything."
)
@click.option("--workers", type=int, metavar="N", help="See `mmeb-eval run`.")
@click.option("--output", metavar="FOLDER", help="Results folder. Default: in runs, named by data and model.")
@click.option("--references/--no-references", default=True, help="Measure the plain loops too (default), or not.")
@click.option(
    "--reference-items",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only so many items, evenly spaced, for the slow references; ours on the same for the ratio.",
)
@click.option(
    "--beside",
    multiple=True,
    callback=names,
    metavar="NAME,…",
    help="Other programs on the same items and weights: official, generate, generate_batch, sentence-transformers, "
    "mteb, vllm=ADDRESS; faiss, usearch, torch rank alone. NAME=N: batches of N.",
)
@click.option("--peak-tflops", type=float, help="What the machine could do; known of common GPUs, measured on a CPU.")
@click.option("--bandwidth-gbs", type=float, help="The same of its memory, in gigabytes a second.")
def bench(**given: Any) -> None:
    """Measure how fast a model's run is, beside plain loops over the same items in the same process.

    Items and tokens a second, latency, where the time goes, memory, and how near the machine's floor that is; written
    to bench.json and bench.md. The plain loop: batches of 4 in the order of the files, duplicates too, the library's
    own generate, nothing prepared ahead. Where nothing is generated also batches of 16.
    """
    from mmeb_harness.api.asked import choose
    from mmeb_harness.bench.make import run_bench, save_bench
    from mmeb_harness.bench.measure import Plan
    from mmeb_harness.bench.tables import print_bench
    from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS

    if given["reference_items"] is not None and not given["references"]:
        raise OptionError("--reference-items has no meaning with --no-references; leave one of them out")
    config, spec = _config_and_spec(given)
    chosen = choose(config)
    output = _output(config, spec, chosen.data)
    plan = Plan(
        batch_tokens=given["batch_tokens"] or (DEFAULT_BATCH_TOKENS,),
        repeats=given["repeats"],
        references=given["references"],
        reference_items=given["reference_items"],
        beside=given["beside"],
        modes=config.reasoning,
        frames=config.frames,
        limit=config.limit,
        workers=config.workers,
        peak_teraflops=given["peak_tflops"],
        bandwidth_gigabytes=given["bandwidth_gbs"],
    )
    tasks = [registered.task for registered in chosen.tasks]
    result = run_bench(spec, tasks, chosen.data, plan, partial(say, err=True))
    save_bench(output, result)
    print_bench(result, console(width_elsewhere=ENDLESS))
    say_kept(f"results: {output} ({result.seconds:.0f} s)")


def _config_and_spec(given: dict[str, Any]) -> tuple[RunConfig, ModelSpec]:
    from mmeb_harness.api.asked import DEFAULT_MODEL, model_spec
    from mmeb_harness.api.config import RunConfig, make_config
    from mmeb_harness.core.registry import resolve_model

    fields = {field.name for field in dataclasses.fields(RunConfig)} - {"batch_tokens"}
    config = make_config(RunConfig(), {name: value for name, value in given.items() if name in fields})
    model, model_args = resolve_model(config.model or DEFAULT_MODEL, config.model_args)
    return config, model_spec(model, model_args, config)


def _output(config: RunConfig, spec: ModelSpec, info: DataInfo) -> Path:
    from mmeb_harness.api.asked import check_folder, default_output

    # All modes are in one folder, which is named by none of them.
    unnamed = config if len(config.reasoning) < 2 else dataclasses.replace(config, reasoning=())
    own = default_output(unnamed, spec.args, info)
    output = Path(config.output) if config.output else own.with_name(f"bench-{own.name}")
    check_folder(output)
    return output
