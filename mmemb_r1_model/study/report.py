"""`mmemb-r1 study report`: a study as tables (README.md), pictures (PNG) and numbers (study.json).

Nothing here trains or evaluates: the same study gives the same report. A section is a function that returns its
Markdown and puts its numbers, unrounded, into `numbers`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeb_harness import MODES
from mmeb_harness.show.tables import bounds, markdown_table, percent
from mmeb_harness.stats.policies import POLICIES, adaptive_minus, head_room_closed
from mmeb_harness.stats.seeds import OverSeeds
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import make_folder, write_json
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.selection.stage import QUALITY
from mmemb_r1_model.study import figures
from mmemb_r1_model.study.forecast import forecast_section, own_tasks
from mmemb_r1_model.study.formed import look_ups_section
from mmemb_r1_model.study.graded import graded_section
from mmemb_r1_model.study.plan import (
    BASE,
    CHECKS,
    COST_KEY,
    EVALUATOR,
    GATE_ONLY,
    LATENCY,
    VETOES,
    Checkpoint,
    StudyConfig,
    Variant,
)
from mmemb_r1_model.study.policies import Sample, Statistic, estimate, latencies, of_policies, over_tasks, sampled
from mmemb_r1_model.study.results import Group, Results

if TYPE_CHECKING:
    import pandas as pd

Numbers = dict[str, Any]

#: What the study set out to reach: name, statistic, least value.
GOALS: tuple[tuple[str, Statistic, float], ...] = (
    ("adaptive - never", of_policies(adaptive_minus("never")), 0.05),
    ("adaptive - always", of_policies(adaptive_minus("always")), 0.05),
    ("adaptive - fixed", of_policies(adaptive_minus("fixed")), 0.0),
    ("adaptive - random", of_policies(adaptive_minus("random")), 0.10),
    ("head-room closed", of_policies(head_room_closed), 0.85),
)
LATENCY_GOAL = 0.8
MEAN = "mean of the tasks with training data"
BLURS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def write_report(config: StudyConfig, folder: Path, seeds: Sequence[int], target: Path, name: str) -> None:
    """Write README.md, study.json and the pictures into `target`.

    Args:
        seeds: none: all of the study's.
        name: of the study's configuration; commands are printed with it.

    Raises:
        DataError: the base of a seed is not finished. Variants that are in no seed are left out, and named.
    """
    results = Results(config, folder, seeds)
    if results.seeds_of(BASE) != results.seeds:
        raise DataError(
            f"{folder}: {BASE} of seeds {', '.join(map(str, results.seeds))} is not finished; run the study"
        )
    make_folder(target)
    done = [variant for variant in config.variants if results.seeds_of(variant.name)]
    missing = [variant.name for variant in config.variants if variant not in done]
    numbers: Numbers = {"config": dataclasses.asdict(config), "seeds": results.seeds, "missing": missing}
    sections = [
        _opening(results, name, missing),
        _goals(results, done, numbers),
        *(_policies(results, run, checkpoint, title, numbers) for run, checkpoint, title in _shown(done)),
        _stage_2(results, numbers),
        _degrees(results, numbers),
        _vetoes(results, done, numbers),
        forecast_section(results, _main_runs(done), target, numbers),
        look_ups_section(results, [BASE, *(variant.name for variant in done)], numbers),
        _variants(results, done, numbers),
        _costs(results, done, target, numbers),
        graded_section(results, done, numbers),
        _checks(results, numbers),
        _selection(results, numbers),
        _training(results, target, numbers),
    ]
    (target / "README.md").write_text("\n".join(section for section in sections if section), encoding="utf-8")
    write_json(target / "study.json", numbers)


def _opening(results: Results, name: str, missing: Sequence[str]) -> str:
    config = results.config
    sizes = sorted({len(group.frames[0]) for group in results.groups(BASE).values()})
    seeds = ", ".join(map(str, results.seeds))
    text = f"""# The replication in miniature: {Path(name).stem}

What the method does in a world where it is known when reasoning helps, hurts and is right. Synthetic data and a tiny
model: it shows that the machinery works, and nothing about real data. Made by

    mmemb-r1 study run --config {name} --output STUDY
    mmemb-r1 study report --config {name} --output STUDY --to FOLDER

Pipeline configuration `{config.base}`; seeds {seeds} (of training data, weights, training and test split alike; one
evaluator for all); {" / ".join(map(str, sizes))} test queries a task and seed. In brackets: 95 % intervals, first over
queries (bootstrap), then over seeds (Student's t, {len(results.seeds) - 1} degrees of freedom). Scores: hit@1 in %, of
pages nDCG@5 in %.
"""
    return text + (f"\nNot run, and so not shown: {', '.join(missing)}.\n" if missing else "")


def _shown(done: Sequence[Variant]) -> Iterable[tuple[str, Checkpoint, str]]:
    yield BASE, "adaptive", "The whole method: stage 2 learns the gate and what to write"
    if any(variant.name == GATE_ONLY for variant in done):
        yield GATE_ONLY, "adaptive", "Stage 2 learns the gate alone, rationales stay as stage 1 left them"
    yield BASE, "joint", "Stage 1 alone: the gate as the direct-only sides left it"


def _main_runs(done: Sequence[Variant]) -> list[str]:
    """The whole method, and the gate alone."""
    return [BASE, *(variant.name for variant in done if variant.name == GATE_ONLY)]


def _goals(results: Results, done: Sequence[Variant], numbers: Numbers) -> str:
    rows, trained = [], own_tasks(results)
    for run in _main_runs(done):
        of_tasks = {task: group.samples() for task, group in results.groups(run).items()}
        for task, group in results.groups(run).items():
            samples, speeds = of_tasks[task], _speeds(results, run, task, group)
            reached = {name: estimate(samples, statistic) for name, statistic, _ in GOALS}
            met = [reached[name].value >= least for name, _, least in GOALS]
            ratio = _mean([speed["adaptive"]["mean"] / speed["always"]["mean"] for speed in speeds]) if speeds else None
            met += [] if ratio is None else [ratio <= LATENCY_GOAL]
            rows.append([run, task, *map(interval, reached.values()), "" if ratio is None else f"{ratio:.2f}"])
            rows[-1].append(f"{sum(met)} of {len(met)}")
            own = numbers.setdefault("goals", {}).setdefault(run, {})
            own[task] = {**_described(reached), "latency_ratio": ratio}
        mean = over_tasks([of_tasks[task] for task in trained])
        reached = {name: estimate(mean, statistic) for name, statistic, _ in GOALS}
        numbers.setdefault("mean", {})[run] = _described(reached)
        rows.append([run, MEAN, *map(interval, reached.values()), "", ""])
    header = ["run", "task", *(f"{name} (≥ {100 * least:.0f})" for name, _, least in GOALS)]
    return "## Goals\n\n" + table([*header, f"latency, adaptive / always (≤ {LATENCY_GOAL})", "met"], rows)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _described(estimates: Mapping[str, OverSeeds]) -> Numbers:
    return {name: dataclasses.asdict(estimate) for name, estimate in estimates.items()}


def _stage_2(results: Results, numbers: Numbers) -> str:
    """The whole method against the model it started from, which always reasons or never does; paired by query."""
    rows = []
    for task, group in results.groups(BASE).items():
        before = results.groups(BASE, "joint")[task]
        samples = _paired(group, before, _gains_over_before)
        gains = {name: estimate(samples, itemgetter(name)) for name in ("never", "always")}
        ratio = estimate(samples, lambda means: means["tokens"] / means["tokens_before"])
        rows.append([task, interval(gains["never"]), interval(gains["always"]), f"{ratio.value:.2f}"])
        numbers.setdefault("stage_2", {})[task] = _described({**gains, "tokens_ratio": ratio})
    header = ["task", "adaptive - stage 1's never", "adaptive - stage 1's always", "tokens / stage 1's always"]
    return "## The whole method against stage 1's fixed policies\n\n" + table(header, rows)


def _gains_over_before(both: pd.DataFrame) -> dict[str, Any]:
    gains = {mode: both.adaptive - both[f"{mode}_other"] for mode in ("never", "always")}
    return {**gains, "tokens": both.tokens_adaptive, "tokens_before": both.tokens_always_other}


def _policies(results: Results, run: str, checkpoint: Checkpoint, title: str, numbers: Numbers) -> str:
    timed = bool(results.config.timed) and checkpoint == "adaptive"
    own = numbers.setdefault("policies", {}).setdefault(f"{run}/{checkpoint}", {})
    rows = []
    for task, group in results.groups(run, checkpoint).items():
        speeds = _speeds(results, run, task, group) if timed else []
        scores = [f"score_{policy}" for policy in POLICIES]
        easy, hard = (group.means(scores, f"difficulty == '{name}'") for name in ("easy", "hard"))
        whole = group.means([f"{name}_{policy}" for policy in POLICIES for name in ("score", "share", "tokens")])
        for policy in POLICIES:
            score = f"score_{policy}"
            share, tokens = whole[f"share_{policy}"], whole[f"tokens_{policy}"].value
            speed = {name: _mean([of[policy][name] for of in speeds]) for name in speeds[0][policy]} if speeds else {}
            row = [task if policy == POLICIES[0] else "", policy, value_of(easy.get(score)), value_of(hard.get(score))]
            row += [interval(whole[score]), value_of(share), f"{tokens:.1f}"]
            mark = "" if policy in MODES else "\\*"
            if speed:
                row += [f"{1000 * speed[name]:.1f}{mark}" for name in ("p50", "p95")]
                row.append(f"{speed['items_per_second']:.0f}{mark}")
            rows.append(row)
            parts = {"easy": easy.get(score), "hard": hard.get(score), "all": whole[score], "share": share}
            described = _described({name: part for name, part in parts.items() if part})
            own.setdefault(task, {})[policy] = {**described, "tokens": tokens, **speed}
    header = ["task", "policy", "easy", "hard", "all", "share", "tokens"]
    header += ["p50 ms", "p95 ms", "items/s"] if timed else []
    note = """
Share and tokens are means over all queries, markers included. Milliseconds: one query alone, the modes in turn;
items/s: batches of 64; decoding and tokenising included, means over seeds. \\* put together from the times of never and
always, not run. The random gate reasons as often as the adaptive one of the same task and seed. Fixed: never or
always, whichever is better on other queries of the same task and seed (cross-fitted).
"""
    return f"## {title}\n\n" + table(header, rows) + (note if timed else "")


def _speeds(results: Results, run: str, task: str, group: Group) -> list[dict[str, dict[str, float]]]:
    """Policy → figures, a dict a seed; none if nothing was timed."""
    if not results.config.timed:
        return []
    measured = zip(results.json(LATENCY, run), group.frames, group.shares, group.seeds, strict=True)
    return [latencies(of[task], frame, share, seed) for of, frame, share, seed in measured]


def _degrees(results: Results, numbers: Numbers) -> str:
    """Where the gain is a matter of degree: captions by blur, chains by hops."""
    columns = ("score_never", "score_always", "pays", "hurts", "share_adaptive")
    rows = []
    for task, group in results.groups(BASE).items():
        total = sum(len(frame) for frame in group.frames)
        for name, chosen in _degrees_of(group):
            size = sum(sample.resampled.clusters for sample in group.samples(chosen))
            means = group.means(columns, chosen)
            rows.append([task, name, f"{size / total:.0%}", *(value_of(means[column]) for column in columns)])
            numbers.setdefault("degrees", {}).setdefault(task, {})[name] = {"queries": size, **_described(means)}
    header = ["task", "queries", "share of them", "direct", "reasoned", "reasoning pays", "hurts", "gate reasons"]
    return "## By degree of difficulty, and out of distribution\n\n" + table(header, rows)


def _degrees_of(group: Group) -> Iterable[tuple[str, str]]:
    """(name, pandas query that chooses the frames' rows) of each degree."""
    frame = group.frames[0]
    looks = frame[frame.kind == "look"]
    if looks.blur.nunique() > 1:
        for low, high in itertools.pairwise(BLURS):
            yield f"caption, blur {low:g} to {high:g}", f"kind == 'look' and {low} <= blur < {high}"
    elif len(looks):
        yield "caption", "kind == 'look'"
    for hops in sorted(set(frame[frame.kind == "chain"].hops)):
        yield f"chain of {hops}", f"kind == 'chain' and hops == {hops}"


def _vetoes(results: Results, done: Sequence[Variant], numbers: Numbers) -> str:
    """Adaptive with and without a veto, paired by query; out of distribution above all."""
    if not results.config.vetoes:
        return ""
    rows, fits = [], []
    for run in _main_runs(done):
        fitted = [of["fitted"] for of in results.json(VETOES, run)]
        for place, limit in enumerate(results.config.vetoes):
            own = numbers.setdefault("vetoes", {}).setdefault(run, {}).setdefault(str(limit), {})
            own["fitted"] = [of[place] for of in fitted]
            bounds_of = ["-" if of["bound"] is None else f"{of['bound']:.2f}" for of in own["fitted"]]
            parts = [[of[name] for of in own["fitted"]] for name in ("right_lost", "wrong_caught")]
            fits.append([run, str(limit or "all"), " / ".join(bounds_of), *(percent(_mean(part)) for part in parts)])
            for task, group in results.groups(run).items():
                with_veto = results.vetoed(run, task, limit)
                samples = _paired(group, with_veto, _gains_of_veto)
                means = {name: estimate(samples, itemgetter(name)) for name in samples[0].names}
                cells = [value_of(means[name]) for name in ("never", "always", "adaptive", "veto", "vetoed")]
                tokens = [f"{means[name].value:.1f}" for name in ("tokens", "tokens_veto")]
                gains = [interval(means[name]) for name in ("over_adaptive", "over_never")]
                rows.append([run, task, str(limit or "all"), *cells, *tokens, *gains])
                own[task] = _described(means)
    header = ["run", "task", "first tokens", "never", "always", "adaptive", "with veto", "given up", "tokens"]
    return f"""## A gate that sees its own uncertainty

A rationale is given up for the direct vector at the first token that the model is too unsure of. The bound is fitted on
the validation split, a seed each: of the right answers with a rationale there 2 % may be lost.

{table(["run", "first tokens", "log-probability, each seed", "right ones lost", "wrong ones given up"], fits)}
On the test split; `miniworld-text-more-hops` and new pairs are of no training:

{table([*header, "tokens with veto", "veto - adaptive", "veto - never"], rows)}"""


def _gains_of_veto(both: pd.DataFrame) -> dict[str, Any]:
    """Columns of a run (the other being the same with a veto, as its adaptive mode)."""
    veto = both.adaptive_other
    return {
        **{name: both[name] for name in ("never", "always", "adaptive")},
        "veto": veto,
        "vetoed": both.reasoned_adaptive - both.reasoned_adaptive_other,
        "tokens": both.tokens_adaptive,
        "tokens_veto": both.tokens_adaptive_other,
        "over_adaptive": veto - both.adaptive,
        "over_never": veto - both.never,
    }


def _variants(results: Results, done: Sequence[Variant], numbers: Numbers) -> str:
    if not done:
        return ""
    partly = any(results.seeds_of(variant.name) != results.seeds for variant in done)
    names = (BASE, *(variant.name for variant in done))
    of_all = {name: results.groups(name) for name in names}
    settings = "\n".join(
        f"- `{variant.name}`: {' '.join(f'`{each}`' for each in variant.set) or variant.checkpoint}" for variant in done
    )
    header = ["task", "run", "never", "always", "adaptive", "oracle", "share", "tokens", "adaptive - base's"]
    rows = _variant_rows(of_all, numbers.setdefault("variants", {}))
    whole = table([*header, "seeds"], rows) if partly else table(header, [row[:-1] for row in rows])
    text = f"## Variants\n\n{settings}\n\nAll seeds. The difference is paired by query.\n\n" + whole
    if results.config.valid is None:
        return text
    formed = {name: {task: _formed(results, name, task) for task in results.config.tasks} for name in names}
    rows = _variant_rows(formed, numbers.setdefault("variants_formed", {}))
    if not rows:
        return f"{text}\nThe look-ups had formed in no seed of any run.\n"
    return f"""{text}
Only those seeds of each run in which the look-ups had formed, which is a choice by outcome: runs are of other seeds
then, and a mean says what a model is worth that can follow a table, not what a training is worth. The difference is
over seeds in which they had formed in both.

{table([*header, "seeds"], rows)}"""


def _formed(results: Results, run: str, task: str) -> Group:
    formed = results.formed(run, task)
    return results.groups(run)[task].of(seed for seed, has_formed in formed.items() if has_formed)


def _variant_rows(groups: Mapping[str, Mapping[str, Group]], numbers: Numbers) -> list[list[str]]:
    """A row a task and run; runs without seeds are left out.

    Args:
        groups: run, the base's first → task → its queries.
    """
    columns = ("score_never", "score_always", "score_adaptive", "score_oracle", "share_adaptive")
    rows = []
    for task, base in groups[BASE].items():
        for name, own in groups.items():
            group, difference = own[task], None
            if not group.seeds:
                continue
            means = group.means([*columns, "tokens_adaptive"])
            both = group.of(base.seeds)
            if name != BASE and both.seeds:
                paired = _paired(both, base, lambda both: {"gain": both.adaptive - both.adaptive_other})
                difference = estimate(paired, itemgetter("gain"))
            rows.append([task, name, *(value_of(means[column]) for column in columns)])
            rows[-1] += [f"{means['tokens_adaptive'].value:.1f}", interval(difference), str(len(group.seeds))]
            described = {**_described(means), "difference": difference and dataclasses.asdict(difference)}
            numbers.setdefault(name, {})[task] = {**described, "seeds": group.seeds}
    return rows


def _paired(group: Group, other: Group, columns: Callable[[pd.DataFrame], dict[str, Any]]) -> list[Sample]:
    """Columns of both runs' queries side by side, the other run's with `_other` behind their names; a sample a seed.

    Args:
        other: of all the group's seeds at least.
    """
    samples = []
    others = dict(zip(other.seeds, other.frames, strict=True))
    for number, (seed, frame) in enumerate(zip(group.seeds, group.frames, strict=True)):
        both = frame.merge(others[seed], on="query_id", suffixes=("", "_other"), validate="1:1")
        samples.append(sampled({name: values.to_numpy(float) for name, values in columns(both).items()}, number))
    return samples


def _costs(results: Results, done: Sequence[Variant], target: Path, numbers: Numbers) -> str:
    """Accuracy over the share that reasons, as the length cost changes."""
    settings = [(*variant.set[0].partition("="), variant.name) for variant in done if len(variant.set) == 1]
    runs = [(float(cost), name) for key, _, cost, name in settings if key == COST_KEY]
    if not runs:
        return ""
    own_cost = results.json("config.json")[0]["adapt"]["reward"]["length_cost"]
    columns = ("share_adaptive", "tokens_adaptive", "score_adaptive", "score_always")
    rows, curves = [], dict[str, list[dict[str, float]]]()
    for task in results.config.tasks:
        for cost, name in sorted([*runs, (float(own_cost), BASE)]):
            means = results.groups(name)[task].means(columns)
            curves.setdefault(task, []).append({"cost": cost, **{key: mean.value for key, mean in means.items()}})
            rows.append([task, f"{cost:g}", value_of(means["share_adaptive"]), f"{means['tokens_adaptive'].value:.1f}"])
            rows[-1] += [interval(means["score_adaptive"]), value_of(means["score_always"])]
    numbers["costs"] = curves
    figures.costs(curves, target / "cost.png")
    header = ["task", "c", "share", "tokens", "adaptive", "always"]
    return "## The length cost c\n\n" + table(header, rows) + "\n![accuracy over share](cost.png)\n"


def _checks(results: Results, numbers: Numbers) -> str:
    if not results.config.checked:
        return ""
    checks = results.json(CHECKS)
    numbers["checks"] = dict(zip(map(str, results.seeds), checks, strict=True))
    swap, leak, other = [], [], []
    for task in results.config.tasks:
        for part in ("hard", "easy"):
            if own := [seed[task]["swap"][part] for seed in checks if part in seed[task]["swap"]]:
                cosine, *hits = (_mean([row[name] for row in own]) for name in ("cosine", "own", "swapped"))
                swap.append([task, part, f"{cosine:.2f}", *map(percent, hits)])
        names = ("rationale", "query", "difference")
        leak.append([task, *(percent(_mean([seed[task]["leak"][name] for seed in checks])) for name in names)])
        batches = [row for seed in checks for row in seed[task]["batches"].values()]
        formats = [seed[task]["format"] for seed in checks]
        other.append(
            [
                task,
                f"{min(row['least_cosine'] for row in batches):.7f}",
                str(sum(row["other_rationales"] for row in batches)),
                f"{sum(form['closed_by_rule'] for form in formats)} of {sum(form['queries'] for form in formats)}",
            ]
        )
    return f"""## Checks

**Swap.** A query with the rationale of another one of its kind and hops: cosine to its own reasoned vector, and hit@1.

{table(["task", "queries", "cosine", "hit@1, own rationale", "swapped"], swap)}
**Leak.** hit@1 of the model's own rationale as a bare text, against that of the query on the direct path. No worker
sees the other side here: a high figure on chains is the reasoning itself, written down.

{table(["task", "rationale alone", "query alone", "difference"], leak)}
**Batches and format.** Least cosine of a vector in batches of 1 or 7 to the same in batches of 64, rationales that came
out otherwise, generations that had to be closed by rule (always mode).

{table(["task", "least cosine", "other rationales", "closed by rule"], other)}"""


def _selection(results: Results, numbers: Numbers) -> str:
    measured = results.json(f"selected/{QUALITY}")
    numbers["selection"] = dict(zip(map(str, results.seeds), measured, strict=True))
    shares = ["right", "right_where_one_is_wrong", "precise", "direct_only"]
    shares += ["direct_only_where_none_is_right", "direct_only_where_one_is_right"]
    rows = []
    for group in measured[0]:
        parts = [seed[group] for seed in measured]
        auc = " / ".join(_mean_auc(parts, name) for name in ("delta", "margin"))
        for rule in parts[0]["rules"]:
            means = [[part["rules"][rule].get(name) for part in parts] for name in shares]
            known = [[share for share in of_seeds if share is not None] for of_seeds in means]
            rows.append([group, rule, *(percent(_mean(own)) if own else "" for own in known), auc])
    header = [
        "sides",
        "rule",
        "chosen is right",
        "same, where a wrong one is at hand",
        "chosen is the precise worker's",
    ]
    return f"""## Selection

On the training data, in % of sides. AUC: a right rationale gains more than a wrong one, any two of the group.

{table([*header, "direct-only", "of those with none right", "of the others", "AUC, delta / margin"], rows)}"""


def _mean_auc(parts: Sequence[dict[str, Any]], name: str) -> str:
    values = [part["auc"][name] for part in parts if part["auc"][name] is not None]
    return f"{np.mean(values):.3f}" if values else ""


def _training(results: Results, target: Path, numbers: Numbers) -> str:
    seconds = defaultdict[str, list[float]](list)
    evaluator = results.folder / EVALUATOR / "times.jsonl"
    for rows in ([list(read_rows(evaluator))] if evaluator.is_file() else []) + results.rows("times.jsonl"):
        own = defaultdict[str, float](float)
        for row in rows:  # a stage that was broken off has several
            own[row["stage"]] += row["seconds"]
        for stage, total in own.items():
            seconds[stage].append(total)
    numbers["seconds"] = seconds
    logs = {stage: results.rows(f"{stage}/log.jsonl") for stage in ("joint", "adaptive")}
    figures.losses(logs, target / "losses.png")
    cells = [
        [stage, f"{np.mean(each):.0f}", " / ".join(f"{took:.0f}" for took in each)] for stage, each in seconds.items()
    ]
    return f"""## Time and losses

Seconds of each stage on one core, with other work beside it; what is shared ran once.

{table(["stage", "mean", "each"], cells)}
![losses](losses.png)
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as long as the header, as lines."""
    return markdown_table(header, rows) + "\n"


def value_of(estimate: OverSeeds | None) -> str:
    """An estimate's value in %; empty where there is none."""
    return "" if estimate is None else percent(estimate.value)


def interval(estimate: OverSeeds | None) -> str:
    """An estimate in %: value, interval over queries, interval over seeds."""
    if estimate is None or math.isnan(estimate.value):
        return value_of(estimate)
    parts = (value_of(estimate), bounds(*estimate.queries), bounds(*estimate.seeds))
    return " ".join(part for part in parts if part)
