"""One evaluation, from a configuration to what it leaves. The command line and Python both begin here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmeb_harness.api.asked import Asked, asked_for, asked_of, choose, default_output
from mmeb_harness.api.config import RunConfig
from mmeb_harness.api.crew import Crew, Part, open_crew, part_of, reporter_of
from mmeb_harness.api.introduction import introduction
from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.files import matching
from mmeb_harness.core.progress import Reporter
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.results.files import unsupported_text
from mmeb_harness.results.outcome import Run
from mmeb_harness.run.evaluate import encode_share, evaluate, this_process
from mmeb_harness.run.plan import fingerprint_of, make_plan
from mmeb_harness.store.chunk_files import chunk_files


def run_config(config: RunConfig, reporter: Reporter) -> tuple[Run, ...]:
    """Evaluate what a configuration asks for, in this process or in several: a run for each mode of reasoning.

    A model that can embed queries in several modes at once does so; any other does one run after another.

    Args:
        reporter: of this process, if it is the only or the first one.

    Returns:
        The runs; none if another process ranks.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    part = part_of(config)
    if part.ranks is not None and part.ranks.restarts:
        config = dataclasses.replace(config, fresh=False)  # what was encoded before the failure counts
    reporter = reporter_of(part, reporter)
    spec, asked = asked_for(config)
    forgets = _stored_chunks(asked[0]) if config.fresh and len(asked) > 1 else None
    runs: list[Run] = []
    done = 0
    while done < len(asked):
        at_once = spec.in_modes(config.reasoning[done:])
        modes, those = _carry_out_at_once(config, part, at_once, asked[done:], reporter)
        done, runs = done + modes, [*runs, *those]
        # The next mode starts over, too, but not over the candidates that this one has just encoded.
        asked = [
            dataclasses.replace(each, settings=dataclasses.replace(each.settings, forgets=forgets)) for each in asked
        ]
    return tuple(runs)


def _stored_chunks(asked: Asked) -> frozenset[str]:
    folder = asked.settings.vectors_folder
    return frozenset(path.name for model in matching(folder) if model.is_dir() for path in chunk_files(model))


def _carry_out_at_once(
    config: RunConfig, part: Part, spec: ModelSpec, asked: Sequence[Asked], reporter: Reporter
) -> tuple[int, tuple[Run, ...]]:
    """As many of the modes as the model has at once, and their runs; what it takes of memory ends with it."""
    with open_crew(config, part, spec, asked[0].settings.output, reporter) as crew:
        now = asked[: len(crew.models)]
        return len(now), carry_out(now, crew, reporter, introduction(config, now, crew, part))


def run_embedder(embedder: Embedder, config: RunConfig, reporter: Reporter, *, by_name: bool = False) -> Run:
    """Evaluate a model that is at hand, in this process.

    Args:
        config: what is evaluated, and how; its model is a name for messages and for the results folder.
        by_name: name the default results folder by the model's name alone.

    Raises:
        HarnessError: as `run_config`.
    """
    config = dataclasses.replace(config, model=embedder.info.name)
    chosen = choose(config)
    told_apart = {} if by_name else {"fingerprint": fingerprint_of(embedder.info)}
    named = default_output(config, told_apart, chosen.data)
    asked = asked_of(config, chosen, Path(config.output) if config.output else named, {})
    crew = Crew((embedder.info,), embedder, this_process(embedder, reporter.note))
    (run,) = carry_out([asked], crew, reporter, introduction(config, [asked], crew, Part()))
    return run


def carry_out(
    asked: Sequence[Asked], crew: Crew, reporter: Reporter, said_first: Sequence[str] = ()
) -> tuple[Run, ...]:
    """Let a crew do what is asked for, in each of its model's modes; none if another process ranks what it encodes."""
    for line in said_first:
        reporter.note(line)
    plans = [
        make_plan(each.chosen.tasks, each.chosen.registered, each.chosen.data, model, each.settings)
        for each, model in zip(asked, crew.models, strict=True)
    ]
    if (unsupported := plans[0].unsupported) and said_first:
        reporter.note(f"unsupported, neither read nor encoded: {unsupported_text(unsupported)}")
    if not crew.ranks:
        encode_share(plans, crew.embedder, crew.open_encoder, reporter)
        return ()
    return evaluate(plans, crew.embedder, crew.open_encoder, reporter)
