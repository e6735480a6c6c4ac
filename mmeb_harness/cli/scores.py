"""`mmeb-eval` on finished scores: submit, import, export, verify, compare, plot.

As in `cli`: options become values, and heavy imports stay inside the commands.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from mmeb_harness.cli.options import PATH, check_not_read, label_option, names
from mmeb_harness.core.errors import OptionError, ResultError, UnknownNameError, counted
from mmeb_harness.core.terminal import ENDLESS, console, say, say_kept
from mmeb_harness.show.pictures import NAMES, WIDTHS, inches_of


@click.command()
@click.argument("run", type=PATH)
@click.option("--output", type=PATH, required=True, metavar="FILE", help="The submission file to write.")
@click.option("--model-name", help="As on the leaderboard. Default: the run's model.")
@click.option("--model-backbone", default="", help='E.g. "Qwen3-VL".')
@click.option("--model-size", default="", help='Free text, e.g. "2B parameters"; MMEB-V3: billions, digits only.')
@click.option("--embedding-dimension", type=int, default=0, metavar="N", help="Of the vectors.")
@click.option("--max-length-tokens", type=int, default=0, metavar="N", help="Longest input, media included.")
@click.option("--model-release-date", default="", metavar="YYYY-MM-DD", help="Of the weights.")
@click.option("--url", default="", help="Where the model is described.")
@click.option("--contact", default="", help="Who answers for the scores; MMEB-V3 only.")
@click.option(
    "--data-source",
    type=click.Choice(("Self-Reported", "TIGER-Lab")),
    default="Self-Reported",
    show_default=True,
    help="Who ran it.",
)
def submit(run: Path, output: Path, model_name: str | None, **given: Any) -> None:
    """Write the leaderboard's submission file of a finished, complete run on the real data."""
    from mmeb_harness.core.registry import BENCHMARK, load_tasks
    from mmeb_harness.results.scores import read_run_file
    from mmeb_harness.results.submission import Metadata, write_submission

    check_not_read("--output", output, (run,))
    result = read_run_file(run)
    registered = load_tasks(result.edition or None).values()
    tasks = [standing.task for standing in registered if standing.collection == BENCHMARK]
    metadata = Metadata(model_name=model_name or result.model, **given)
    for line in write_submission(run, metadata, output, tasks):
        say(f"warning: {line}", err=True)
    say_kept(f"{counted(len(tasks), 'task')}, edition {result.edition}: {output}")


@click.command("import")
@click.argument("path", type=PATH)
@click.option("--output", type=PATH, metavar="FILE", help="Keep the scores as JSON, to compare them later.")
@click.option("--name", help="Of the model. Default: the submission's or mteb's own, or the folder's name.")
@click.option("--edition", help="Of the data, where files can't tell: page-fixed, v2.0.0, v2.0.1, v3, …")
def import_scores(path: Path, output: Path | None, name: str | None, edition: str | None) -> None:
    """Read official results, or mteb's: a submission file, a folder of *_score.json and *_pred.jsonl, or a folder of
    mteb's <Task>.json with model_meta.json.

    Rankings are scored again, and must agree with the score file beside them.
    """
    from mmeb_harness.core.benchmark import V3
    from mmeb_harness.core.registry import load_tasks
    from mmeb_harness.exchange.mteb import import_mteb, mteb_folder
    from mmeb_harness.results.official import import_scores as read_official
    from mmeb_harness.results.scores import save_scores
    from mmeb_harness.show.compare import compare, print_comparison
    from mmeb_harness.show.contests import Entry, benchmark_to_compare

    files = mteb_folder(path)
    check_not_read("--output", output, (path, *files))
    if files:
        scores = import_mteb(files, (load_tasks(V3) | load_tasks()).values(), name=name, edition=edition)
    else:
        scores = read_official(path, load_tasks().values(), load_tasks(V3).values(), name=name, edition=edition)
    if output is not None:
        save_scores(output, scores)
    tasks = benchmark_to_compare([Entry(scores)])
    compared = compare([scores], tasks, with_tasks=len(scores.tasks) < len(tasks))
    print_comparison(compared, console(width_elsewhere=ENDLESS))
    say(f"scores: {output}" if output is not None else "not kept; --output FILE writes them for `compare`")


@click.command()
@click.argument("run", type=PATH)
@click.option("--trec", type=PATH, metavar="FOLDER", help="Rankings and judgements: <task>.run and <task>.qrels.")
@click.option("--official", type=PATH, metavar="FOLDER", help="The benchmark's own score files: <task>_score.json.")
@click.option("--mteb", type=PATH, metavar="FOLDER", help="Results of mteb: <model>/<revision>/<Task>.json.")
@click.option("--hub", type=PATH, metavar="FILE", help="The hub's evaluation results: YAML for .eval_results/.")
@click.option("--eee", type=PATH, metavar="FOLDER", help="Records of Every Eval Ever, a row a query: data/…")
@click.option("--model-name", metavar="ORG/NAME", help="As others know the model. Default: the checkpoint's hub id.")
@click.option("--organization", default="", metavar="NAME", help="Who ran it; --eee needs it.")
@click.option(
    "--relationship",
    type=click.Choice(("first_party", "third_party", "collaborative", "other")),
    default="other",
    show_default=True,
    help="Of who ran it to the model, for --eee.",
)
@click.option("--url", default="", help="Where the results are described, for --hub.")
def export(
    run: Path,
    trec: Path | None,
    official: Path | None,
    mteb: Path | None,
    hub: Path | None,
    eee: Path | None,
    model_name: str | None,
    url: str,
    **by: Any,
) -> None:
    """Write a run in the forms of other people's tools and boards; several at once may be.

    TREC: the first 100 places. Whitespace and % in ids are percent-encoded. Tied scores are nudged apart, so that the
    order survives.
    """
    from mmeb_harness.core.registry import load_tasks
    from mmeb_harness.exchange.every_eval_ever import Evaluator, export_every_eval_ever
    from mmeb_harness.exchange.handed import hand_on
    from mmeb_harness.exchange.hub import export_hub
    from mmeb_harness.exchange.mteb import export_mteb
    from mmeb_harness.results.scores import read_run_file

    if trec is official is mteb is hub is eee is None:
        raise OptionError(
            "nothing to write; give --trec FOLDER, --official FOLDER, --mteb FOLDER, --hub FILE or --eee FOLDER"
        )
    check_not_read("--hub", hub, (run,))
    if trec is not None:
        _export_trec(run, trec)
    if official is not None:
        _export_official(run, official)
    if mteb is hub is eee is None:
        return
    registered = load_tasks(read_run_file(run).edition or None)
    handed = hand_on(run, registered, model_name, synthetic=mteb is hub is None)
    if mteb is not None:
        written = export_mteb(handed, mteb)
        if written.unknown:
            names = f"{written.unknown[0]} …" if len(written.unknown) > 1 else written.unknown[0]
            say(
                f"{len(written.unknown)} tasks ({names}) aren't in mteb: it reads them, but has no board for them",
                err=True,
            )
        say_kept(f"{counted(len(written.known) + len(written.unknown), 'task')}: {written.folder}")
    if hub is not None:
        for line in export_hub(handed, hub, url):
            say(line, err=True)
        say_kept(f"evaluation results: {hub}")
    if eee is not None:
        record, rows = export_every_eval_ever(handed, eee, Evaluator(**by))
        say_kept(f"record: {record}, rows: {rows.name}")


def _export_trec(run: Path, folder: Path) -> None:
    from mmeb_harness.exchange.trec import export_trec

    exported = export_trec(run, folder)
    for task in exported:
        if task.repeats:
            say(f"{task.name}: {task.repeats} places of candidates listed twice were left out", err=True)
    say_kept(f"{counted(len(exported), 'task')}, {sum(task.num_queries for task in exported):,} queries: {folder}")


def _export_official(run: Path, folder: Path) -> None:
    from mmeb_harness.core.registry import load_tasks
    from mmeb_harness.exchange.official import export_official
    from mmeb_harness.results.official_names import PAGE_TASKS
    from mmeb_harness.results.scores import read_run_file

    edition = read_run_file(run).edition
    names = export_official(run, folder, load_tasks(edition or None))
    if set(PAGE_TASKS) & set(names):
        say(f"score files don't say on which pages {' and '.join(PAGE_TASKS)} are: edition {edition}", err=True)
    say_kept(f"score files of {counted(len(names), 'task')}: {folder}")


@click.command()
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, metavar="FOLDER", help="Also whether that is still the data of the run.")
def verify(run: Path, data: Path | None) -> None:
    """Recompute a run's scores and means from its stored rankings. Exit code 1 if any differs.

    With --data also every item and picture is read, and held against those that the run was computed on.
    """
    from mmeb_harness.core.registry import load_tasks
    from mmeb_harness.results.recomputed import summary
    from mmeb_harness.results.scores import read_run_file
    from mmeb_harness.results.verify import verify_run

    outcomes = verify_run(run, load_tasks(read_run_file(run).edition or None))
    if data is not None:
        from mmeb_harness.api.verify_data import verify_data
        from mmeb_harness.core.progress import reporter_for

        reporter = reporter_for(console())
        outcomes += verify_data(run, data, reporter.read_media)
        reporter.stop()
    for outcome in sorted(outcomes, key=lambda outcome: not outcome.passed):  # what failed stands last
        detail = f"largest difference {outcome.difference:.1e}" if outcome.passed else summary(outcome.problems)
        say(f"{'ok  ' if outcome.passed else 'FAIL'}  {outcome.name:<46} {detail}")
    failed = sum(not outcome.passed for outcome in outcomes)
    say(f"{run}: {failed} of {len(outcomes)} parts failed" if failed else f"{run}: {_all_is_well(data)}")
    if failed:
        sys.exit(1)


def _all_is_well(data: Path | None) -> str:
    looked_at = "the data isn't looked at without --data" if data is None else "and its data as it was"
    return f"all is as its rankings say; {looked_at}"


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...")
@click.option("--published", multiple=True, metavar="MODEL", help="Add a published model; may be repeated.")
@click.option("--published-file", type=PATH, metavar="FILE", help="Default: the table that comes with the package.")
@click.option("--allow-editions", is_flag=True, help="Compare across editions of the benchmark all the same.")
@click.option("--tasks-too", is_flag=True, help="All tasks, not only groups, modalities and overall.")
@label_option
@click.option(
    "--fitted-on",
    multiple=True,
    type=PATH,
    metavar="RUN",
    help="Fit the gate's controls on runs over held-out queries, never and always; repeated. Default: cross-fitted.",
)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Everything, and the queries that changed sides.")
def compare(
    runs: tuple[Path, ...],
    published: tuple[str, ...],
    published_file: Path | None,
    allow_editions: bool,
    tasks_too: bool,
    labels: tuple[str, ...],
    fitted_on: tuple[Path, ...],
    json_file: Path | None,
) -> None:
    """Compare scores: run folders, imported scores, published ones. The first is the reference.

    Differences are in points, and only between means over all of their tasks. Runs are compared query by query as well,
    each with the first: intervals, p-values, wins and losses. One model's runs in the modes never, always and adaptive
    show what its gate is worth, beside what decides without it.
    """
    from mmeb_harness.api.side_by_side import put_side_by_side
    from mmeb_harness.core.files import write_json

    if not runs and not published:
        raise OptionError("nothing to compare; name a run's folder, a scores file, or a --published model")
    if published_file is not None and not published:
        raise OptionError(f"--published-file {published_file}: nothing of it is asked for; add --published MODEL")
    check_not_read("--json", json_file, (*runs, *fitted_on))
    compared = put_side_by_side(
        runs,
        published,
        published_file=published_file,
        allow_editions=allow_editions,
        with_tasks=tasks_too,
        labels=labels,
        fitted_on=fitted_on,
    )
    compared.print(console(width_elsewhere=ENDLESS))
    if json_file is not None:
        write_json(json_file, compared.as_json())
        say_kept(f"comparison: {json_file}")


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...")
@click.option(
    "--output",
    type=PATH,
    required=True,
    metavar="FOLDER|FILE",
    help="Where NAME.png and NAME.svg go; or the .png, .svg or .pdf of one picture.",
)
@click.option("--only", multiple=True, callback=names, metavar="NAME", help=f"Only some of {', '.join(NAMES)}.")
@click.option("--format", "kinds", multiple=True, callback=names, metavar="KIND", help="Some of png,svg,pdf.")
@click.option(
    "--width",
    metavar="INCHES|NAME",
    help=f"As on the paper: inches, or {', '.join(f'{name} ({inches})' for name, inches in WIDTHS.items())}.",
)
@label_option
@click.option("--allow-editions", is_flag=True, help="Draw runs of different editions all the same.")
def plot(
    runs: tuple[Path, ...],
    output: Path,
    only: tuple[str, ...],
    kinds: tuple[str, ...],
    width: str | None,
    labels: tuple[str, ...],
    allow_editions: bool,
) -> None:
    """Draw runs: accuracy and cost, groups, tasks, what reasoning pays, latency.

    Means are over the tasks that all runs have. What reasoning pays is drawn from a run with --reasoning never and
    one with always, of the same model, settings and data.
    """
    from mmeb_harness.show.pictures import pictures_of
    from mmeb_harness.show.pictures.picture import save_picture, save_pictures

    kinds, one_file = _kinds(output, kinds)
    inches = None if width is None else inches_of(width)
    pictures, reasons = pictures_of(runs, allow_editions=allow_editions, only=only, labels=labels, width=inches)
    if not pictures:
        raise ResultError(f"no picture can be drawn: {'; '.join(reasons)}")
    if one_file and len(pictures) > 1:
        raise OptionError(
            f"--output {output} is one file, these are {len(pictures)} pictures; name a folder, or --only one"
        )
    if one_file:
        check_not_read("--output", output, runs)
        save_picture(pictures[0], output)
    else:
        save_pictures(pictures, output, kinds)
    for picture in pictures:
        files = output if one_file else f"{output / picture.name}.{', .'.join(kinds)}"
        say(f"{files}\n    {picture.alt}")
    for reason in reasons:
        say(f"left out: {reason}", err=True)


def _kinds(output: Path, kinds: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """What kinds of files are written, and whether --output is one itself."""
    from mmeb_harness.api.asked import check_folder
    from mmeb_harness.show.pictures.picture import KINDS

    if unknown := next((kind for kind in kinds if kind not in KINDS), None):
        raise UnknownNameError("format of pictures", unknown, KINDS)
    ending = output.suffix.lower()[1:]
    if output.is_dir() or not re.fullmatch("[a-z]{2,4}", ending):
        check_folder(output)
        return kinds or KINDS[:2], False
    if ending not in KINDS:
        raise OptionError(
            f"--output {output}: no picture ends with {output.suffix!r}; use .{', .'.join(KINDS)}, or name a folder"
        )
    if set(kinds) - {ending}:
        raise OptionError(
            f"--output {output} and --format {','.join(kinds)} disagree; leave --format out, or name a folder"
        )
    return (ending,), True


COMMANDS: tuple[click.Command, ...] = (submit, import_scores, export, verify, compare, plot)
