"""`mmeb.evaluate`: a run from Python. Its keywords are the options of `mmeb-eval run`."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from mmeb_harness.api.carry_out import run_config, run_embedder
from mmeb_harness.api.config import RunConfig, make_config
from mmeb_harness.api.function_model import EmbedFunction, FunctionModel
from mmeb_harness.api.notebook import NotebookReporter, is_notebook
from mmeb_harness.core import terminal
from mmeb_harness.core.embedder import MODES, Embedder
from mmeb_harness.core.errors import OptionError, UnknownNameError
from mmeb_harness.core.items import PageFiles, Quantization
from mmeb_harness.core.progress import Reporter, SilentReporter, reporter_for
from mmeb_harness.core.registry import check_embedder
from mmeb_harness.core.trackers import TrackerName
from mmeb_harness.core.waiting import silently
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS
from mmeb_harness.exchange.tracked import track_run
from mmeb_harness.results.outcome import Run

Names = str | Sequence[str] | None


def evaluate(
    model: str | Embedder | EmbedFunction = "mmemb_r1",
    tasks: Names = None,
    *,
    data: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    groups: Names = None,
    modalities: Names = None,
    edition: str | None = None,
    model_args: Mapping[str, object] | None = None,
    reasoning: str | None = None,
    candidate_reasoning: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool | None = None,
    frames: int | None = None,
    audio_seconds: float | None = None,
    pages: PageFiles | None = None,
    limit: int | None = None,
    dim: int | None = None,
    quantize: Quantization = "none",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    vectors: str | PathLike[str] | None = None,
    keep_states: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    ray_workers: int | None = None,
    seed: int = 0,
    fresh: bool = False,
    track: Sequence[TrackerName] = (),
    progress: bool | None = None,
) -> Run:
    """Evaluate a model, and return what `mmeb-eval run` with the same options writes and prints.

    The same call goes on where a killed one stopped, and keeps what is finished.

    Args:
        model: a name or file as after `--model`; an `Embedder`; or a function from items to rows of numbers, whose
            vectors are made unit length and never used again, since nobody knows whether it is still the same.
        tasks: names; without tasks, groups and modalities all of the data. Names may be in one text, with commas.
        data: a data folder, of MMEB-V2, of MMEB-V3 (with `edition="v3"`) or of your own; `None`: the mini suite.
        output: the results folder; `None`: one below `runs`, named by data and model.
        progress: show how far it is; `None`: as suits the place, a bar in a terminal or a notebook, else lines.

    Raises:
        HarnessError: on the first thing to mend; what is finished until then stays.
    """
    config = _config(
        tasks=tasks,
        groups=groups,
        modalities=modalities,
        data=data,
        output=output,
        vectors=vectors,
        keep_states=keep_states,
        model_args=model_args,
        edition=edition,
        reasoning=reasoning,
        candidate_reasoning=candidate_reasoning,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        frames=frames,
        audio_seconds=audio_seconds,
        pages=pages,
        limit=limit,
        dim=dim,
        quantize=quantize,
        batch_tokens=batch_tokens,
        workers=workers,
        ray=ray,
        ray_workers=ray_workers,
        seed=seed,
        fresh=fresh,
        track=track,
    )
    if len(config.reasoning) > 1:
        raise OptionError(
            f"reasoning={','.join(config.reasoning)}: these are several runs; mmeb.evaluate_modes has them"
        )
    reporter = _reporter(progress)
    with silently() if progress is False else nullcontext():
        run = _named(model, config, reporter)[0] if isinstance(model, str) else _at_hand(model, config, reporter)
    track_run(config.track, run)
    return run


def evaluate_modes(
    model: str = "mmemb_r1",
    tasks: Names = None,
    *,
    reasoning: Names = MODES,
    progress: bool | None = None,
    **options: Any,
) -> dict[str, Run]:
    """Evaluate a model in several modes of reasoning, by default in all three; what they share is computed once.

    Args:
        model: a name or file as after `--model`.
        output: a folder in which each mode has its own; by default each is one below `runs`, named by its mode.
        options: all others of `evaluate`.

    Returns:
        Mode → its run, in order.

    Raises:
        HarnessError: as `evaluate`.
    """
    config = _config(tasks=tasks, reasoning=reasoning, **options)
    with silently() if progress is False else nullcontext():
        runs = _named(model, config, _reporter(progress))
    for run in runs:
        track_run(config.track, run)
    return dict(zip(config.reasoning, runs, strict=True))


def _config(**options: Any) -> RunConfig:
    """Options by their names here; those of `mmeb-eval run`."""
    args: Mapping[str, object] = options.get("model_args") or {}
    given = {
        **options,
        **{name: _names(options.get(name)) for name in ("tasks", "groups", "modalities", "reasoning")},
        **{name: _path(options.get(name)) for name in ("data", "output", "vectors")},
        "model_args": {name: str(value) for name, value in args.items()},
        "track": tuple(options.get("track", ())),
    }
    if unknown := given.keys() - {field.name for field in dataclasses.fields(RunConfig)}:
        raise UnknownNameError("option of a run", min(unknown), [field.name for field in dataclasses.fields(RunConfig)])
    return make_config(RunConfig(), given)


def _named(model: str, config: RunConfig, reporter: Reporter) -> tuple[Run, ...]:
    if "RANK" in os.environ:
        raise OptionError(
            "under torchrun only one process would have the results; call mmeb-eval run there, or pass an embedder, "
            "which is evaluated where it is"
        )
    return run_config(dataclasses.replace(config, model=model), reporter)


def _at_hand(model: Embedder | EmbedFunction, config: RunConfig, reporter: Reporter) -> Run:
    """An embedder or a function, which no other process could make again."""
    if given := [name for name in _OF_NAMED_MODELS if getattr(config, name) not in (None, {}, ())]:
        raise OptionError(f"{given[0]} is for models by name; this one is made already: make it as you want it")
    if hasattr(model, "info") and hasattr(model, "encode"):
        check_embedder(type(model).__name__, model)
        return run_embedder(model, config, reporter)
    if not callable(model):
        raise OptionError(
            f"model is {type(model).__name__}; give a name, an Embedder, or a function from items to vectors"
        )
    if config.vectors:
        return run_embedder(FunctionModel(model), dataclasses.replace(config, fresh=True), reporter, by_name=True)
    with tempfile.TemporaryDirectory(prefix="mmeb-vectors-") as folder:
        config = dataclasses.replace(config, fresh=True, vectors=folder)
        return run_embedder(FunctionModel(model), config, reporter, by_name=True)


#: What says how a model is made, or that others make it as well.
_OF_NAMED_MODELS = (
    *("model_args", "reasoning", "candidate_reasoning", "device", "dtype", "trust_remote_code"),
    *("workers", "ray", "ray_workers"),
)


def _names(names: Names) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else tuple(names or ())


def _path(path: str | PathLike[str] | None) -> str | None:
    return None if path is None else str(Path(path))


def _reporter(progress: bool | None) -> Reporter:
    if progress is False:
        return SilentReporter()
    if is_notebook():
        return NotebookReporter()
    console = terminal.console()
    return reporter_for(console)
