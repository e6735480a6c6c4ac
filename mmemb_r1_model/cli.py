"""`mmemb-r1`: the training of MMEmb-R1, stage by stage or whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import CompletionItem

from mmemb_r1_model.disk.errors import __version__, progress_of, run_command, say
from mmemb_r1_model.disk.files import matching
from mmemb_r1_model.disk.trackers import TRACKERS, TrackerName, check_trackers
from mmemb_r1_model.model.settings import LONGEST_CONTEXT


def _shipped(kind: str) -> list[Path]:
    """Files of configurations that come with the package: "configs" of pipelines, "studies"."""
    return matching(Path(__file__).resolve().parent / kind, "*.yaml")


def _complete_config(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """For a shell: names of configurations, and files where none begins so."""
    names = [path.stem for path in _shipped("studies" if " study " in context.command_path else "configs")]
    named = [CompletionItem(name) for name in names if name.startswith(begun)]
    return named or [CompletionItem(begun, type="file")]


_config_option = click.option(
    "--config",
    "config_name",
    required=True,
    shell_complete=_complete_config,
    help="A file, or the name of a configuration that comes with the package (see `mmemb-r1 configs`).",
)


def main() -> None:
    """The entry point of the command `mmemb-r1`."""
    if not sys.stderr.isatty():  # bars of libraries, here and in processes that are started, would fill a log
        os.environ.setdefault("TQDM_DISABLE", "1")
    run_command(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mmemb-r1")
def cli() -> None:
    """Train MMEmb-R1: rationales, pair-aware selection, joint training, adaptive control."""


def _stage_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="E.g. train.loop.steps=20."),
        click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the whole run."),
        _config_option,
    ):
        function = option(function)
    return function


def _importing() -> AbstractContextManager[object]:
    """Torch takes some seconds; of several processes the first tells."""
    return progress_of("importing torch", shown=os.environ.get("RANK", "0") == "0")


def _track_option(stages: Sequence[str] | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command that trains something."""
    if stages is not None and not {"judge", "train", "adapt"} & {*stages}:
        return lambda command: command
    help_text = "Give curves to a tracker as well; may be repeated. Default: to none."
    return click.option("--track", "trackers", multiple=True, type=click.Choice(TRACKERS), help=help_text)


def _add_command(name: str, stages: Sequence[str] | None, text: str) -> None:
    """A command that runs some stages, or all, in a folder."""

    @cli.command(name, help=text)
    @_stage_options
    @_track_option(stages)
    def command(
        config_name: str, output: Path, assignments: tuple[str, ...], trackers: tuple[TrackerName, ...] = ()
    ) -> None:
        check_trackers(trackers)
        with _importing():
            from mmemb_r1_model.disk.config import named_config, override, read_yaml
            from mmemb_r1_model.pipeline import STAGES, Pipeline, read_pipeline

        config = read_pipeline(override(read_yaml(named_config(config_name)), assignments))
        pipeline = Pipeline(config, output, say, trackers=trackers)
        pipeline.run([stage for stage in STAGES if stages is None or stage in stages])
        pipeline.leave()


_add_command(
    "rationales", ("data", "rationales"), "Stage 0a: let workers write rationales. OUTPUT/rationales/rationales.jsonl."
)
_add_command(
    "select",
    ("data", "judge", "select"),
    "Stage 0b: judge rationales by their counterfactual gain. OUTPUT/selected/selected.jsonl. torchrun: as `train`.",
)
_add_command(
    "train",
    ("data", "start", "train"),
    "Stage 1: joint training. OUTPUT/joint/final. Several processes: torchrun -m mmemb_r1_model.cli train …",
)
_add_command(
    "adapt",
    ("data", "adapt", "calibrate"),
    "Stage 2: learn when to reason, and to write what pays; then calibrate the gate. OUTPUT/adaptive/final.",
)
_add_command("pipeline", None, "All stages, then an evaluation. A second call goes on where the first was broken off.")


@cli.group()
def study() -> None:
    """Several seeds of a pipeline and of its ablations, and what they show."""


_SEEDS = click.option("--seed", "seeds", type=int, multiple=True, help="Only this one; may be repeated.")


@study.command("run")
@_stage_options
@_SEEDS
@click.option("--only", multiple=True, metavar="RUN", help='"evaluator", "base" or a variant; may be repeated.')
def study_run(
    config_name: str, output: Path, assignments: tuple[str, ...], seeds: tuple[int, ...], only: tuple[str, ...]
) -> None:
    """Train and evaluate. Goes on where it was broken off; seeds may run side by side."""
    with _importing():
        from mmemb_r1_model.study.plan import Study, read_study

    Study(read_study(config_name, assignments), output, say).run(seeds, only)


@study.command("report")
@_stage_options
@_SEEDS
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="Folder of README.md and figures.")
def study_report(
    config_name: str, output: Path, assignments: tuple[str, ...], seeds: tuple[int, ...], target: Path
) -> None:
    """Tables and figures of a study that has run."""
    with _importing():
        from mmemb_r1_model.study.plan import read_study
        from mmemb_r1_model.study.report import write_report

    write_report(read_study(config_name, assignments), output, seeds, target, config_name)


@cli.command()
def configs() -> None:
    """Configurations that come with the package, of pipelines and of studies."""
    for kind in ("configs", "studies"):
        for path in _shipped(kind):
            first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
            say(f"{'study ' if kind == 'studies' else ''}{path.stem:<18} {first}")


@cli.command()
@_config_option
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="As for a run.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="Timed of each training.")
@click.option("--shares", type=click.IntRange(min=1), default=8, show_default=True, help="One of N of an evaluation.")
@click.option("--output", type=click.Path(path_type=Path), help="New folder of the dry run. Default: a temporary one.")
@click.option("--gpus", metavar="NxGB", help="Instead: what fits on such GPUs, e.g. 8x80, counted without one.")
@click.option(
    "--item",
    type=click.Choice(["text", "picture", "clip"]),
    default="picture",
    show_default=True,
    help="With --gpus: what each item shows, in its largest size.",
)
def estimate(
    config_name: str,
    assignments: tuple[str, ...],
    steps: int,
    shares: int,
    output: Path | None,
    gpus: str | None,
    item: Literal["text", "picture", "clip"],
) -> None:
    """How long a run would take on this machine: a dry run times a few units of every stage. torchrun: as `train`."""
    if gpus is not None:
        _say_fits(config_name, assignments, gpus, item)
        return
    with _importing():
        from mmemb_r1_model.disk.config import named_config, override, read_yaml
        from mmemb_r1_model.estimate import dry_run
        from mmemb_r1_model.pipeline import read_pipeline

    config = read_pipeline(override(read_yaml(named_config(config_name)), assignments))
    dry_run(config, output, steps, shares, say)


def _say_fits(
    config_name: str, assignments: Sequence[str], gpus: str, item: Literal["text", "picture", "clip"]
) -> None:
    with _importing():
        from mmemb_r1_model.disk.config import closed, named_config, override, read_yaml
        from mmemb_r1_model.fits import read_gpus, say_fits
        from mmemb_r1_model.pipeline import read_pipeline

    cards = read_gpus(gpus)
    # Of a recipe as it comes: no path and no address moves a byte of a GPU.
    config = read_pipeline(closed(override(read_yaml(named_config(config_name)), assignments)))
    say_fits(config, cards, item, say)


@cli.command("add-tokens")
@click.argument("base")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, LONGEST_CONTEXT),
    default=512,
    show_default=True,
    help="Of a rationale.",
)
def add_tokens(base: str, folder: Path, max_new_tokens: int) -> None:
    """Add MMEmb-R1's tokens to the Qwen3-VL checkpoint BASE and write it to FOLDER. It still has to be trained."""
    with progress_of(f"adding tokens to {base}"):
        from mmemb_r1_model.model.add_tokens import add_tokens as add

        replaced = add(base, folder, max_new_tokens)
    if replaced is not None:
        say(f"{folder / 'chat_template.jinja'} is ours, not the base's: {replaced}")


if __name__ == "__main__":
    main()
