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
from mmeb_harness.core.progress import Reporter
from mmeb_harness.results.files import unsupported_text
from mmeb_harness.results.outcome import Run
from mmeb_harness.run.evaluate import encode_share, evaluate, this_process
from mmeb_harness.run.plan import fingerprint_of, make_plan


def run_config(config: RunConfig, reporter: Reporter) -> Run | None:
    """Evaluate what a configuration asks for, in this process or in several; `None` if another one ranks.

    Args:
        reporter: of this process, if it is the only or the first one.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    part = part_of(config)
    if part.ranks is not None and part.ranks.restarts:
        config = dataclasses.replace(config, fresh=False)  # what was encoded before the failure counts
    reporter = reporter_of(part, reporter)
    spec, asked = asked_for(config)
    with open_crew(config, part, spec, asked.settings.output, reporter) as crew:
        return carry_out(asked, crew, reporter, introduction(config, asked, crew, part))


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
    crew = Crew(embedder.info, embedder, this_process(embedder, reporter.note))
    run = carry_out(asked, crew, reporter, introduction(config, asked, crew, Part()))
    assert run is not None  # this process ranks
    return run


def carry_out(asked: Asked, crew: Crew, reporter: Reporter, said_first: Sequence[str] = ()) -> Run | None:
    """Let a crew do what is asked for; `None` if another process ranks what this one encodes."""
    for line in said_first:
        reporter.note(line)
    chosen = asked.chosen
    plan = make_plan(chosen.tasks, chosen.registered, chosen.data, crew.model, asked.settings)
    if plan.unsupported and said_first:
        reporter.note(f"unsupported, neither read nor encoded: {unsupported_text(plan.unsupported)}")
    if not crew.ranks:
        encode_share(plan, crew.embedder, crew.open_encoder, reporter)
        return None
    return evaluate(plan, crew.embedder, crew.open_encoder, reporter)
