"""Scores that others published, by model, edition and source: the table that comes with the package."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb_harness.core.benchmark import MMEB_V2, MMEB_V3, PAGE_FIXED, V2_0_0, V3
from mmeb_harness.core.errors import ResultError, UnknownNameError
from mmeb_harness.core.files import regular_file
from mmeb_harness.core.items import Medium
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.files import fraction
from mmeb_harness.results.official_names import PAGE_TASKS
from mmeb_harness.results.scores import Scores, TaskScore

_FOLDER = Path(__file__).resolve().parent.parent / "published"
#: MMEB-V2's and MMEB-V3's.
PUBLISHED_FILES = (_FOLDER / "scores.csv", _FOLDER / "scores_v3.csv")
#: model,parameters,source: how large published models are, where somebody says so.
SIZES_FILE = _FOLDER / "models.csv"
#: Published means, to the tenth of a point, of models that have a set of all tasks under another name;
#: tests/test_published.py holds the two against each other.
SAME_MODEL: Mapping[str, str] = {
    "VLM2Vec-V2": "VLM2Vec-V2.0-Qwen2VL-2B",
    "VLM2Vec-2B": "VLM2Vec-V1-Qwen2VL-2B",
    "GME-2B": "gme-Qwen2-VL-2B-Instruct",
    "GME-7B": "gme-Qwen2-VL-7B-Instruct",
}

#: Where published scores come from (the official score files of a release, the leaderboard, a model's own authors,
#: somebody who ran it again, a table of means in a README; of MMEB-V3, the experiment) → what must be said of them.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "v2.0.0": (),
    "v2.0.1": ("ViDoRe, ViDoSeek and MMLongBench were run without instructions",),
    "v2.1": ("the scores of v2.0.1 (ViDoRe without instructions) but for the two fixed page tasks; no -doc tasks",),
    "leaderboard": (),
    "self-reported": (),
    "reproduction": (),
    "readme": ("published means, rounded to 0.1 point; no scores of single tasks",),
    "v3-paper": (
        "the paper's values, rounded to 0.1 point; by their size VLM2Vec's are on the corrected pages, all others on "
        "the first ones; its MCMR was not reproduced (42.0, 38.0, 47.0 there; 21.6, 20.3, 26.0 run again)",
    ),
    "v3-kit": (
        "run again with the official reproduction kit, on the corrected pages, rounded to 0.1 point; its MCMR is half "
        "of the paper's, why is unknown; its MomentSeeker may be over the 1,800 rows with duplicates",
    ),
    "v3-rerun": ("run again by the paper's authors, audio tasks only: those are the same in v3 and v3-unfixed",),
    "v3-wemm": (
        "published means of several experiments: MMEB-V2's 78 tasks as on its leaderboard, where that can be checked; "
        "MCMR the paper's for some models, run again for others; audio 0 where a model has none; pages unstated",
    ),
    "v3-board": (
        "published means, text by hit@1, audio 0 where a model has none; overall is over 189 tasks, without MCMR; "
        "pages unstated",
    ),
    "v3-card": ("published means by the model's authors; pages unstated",),
}
_MEAN = "mean:"
#: How the kinds of MMEB-V3's sources begin.
_OF_V3 = "v3-"
#: Of the models with scores of its tasks those that take no sound: published tables of means count their audio 0.
_WITHOUT_SOUND = ("Qwen3-VL-Embedding-2B", "Qwen3-VL-Embedding-8B", "VLM2Vec-Qwen2VL-7B", "VLM2Vec-V2.0-2B", "GME-7B")


@dataclass(frozen=True, slots=True)
class _PublishedRow:
    """A row of the table; a field is a column of its name."""

    model: str
    edition: str
    task: str
    metric: str
    value: float
    kind: str
    source: str


def load_published(path: Path | None = None) -> list[Scores]:
    """Published scores, one value a model and kind of source; the leaderboard's rows of official baselines too.

    A model's leaderboard row, or its only set, bears the model's name; any other is named model@kind. MMEB-V3's always
    are: no two of its sources ran one experiment.

    Args:
        path: of a table; `None`: those that come with the package.

    Raises:
        ResultError: a file is missing, or a row can't be read.
    """
    sets: dict[tuple[str, str], list[_PublishedRow]] = {}
    for row in [row for file in (PUBLISHED_FILES if path is None else (path,)) for row in _published_rows(file)]:
        sets.setdefault((row.model, row.kind), []).append(row)
    models = Counter(model for model, kind in sets if not kind.startswith(_OF_V3))
    published = [_published_scores(rows, models[model] == 1) for (model, _), rows in sets.items()]
    return leaderboard_rows(published) + published


def published_sizes() -> dict[str, int]:
    """Parameters of published models, as far as known, by all names that a model has."""
    with SIZES_FILE.open(encoding="utf-8", newline="") as file:
        sizes = {row["model"]: int(row["parameters"]) for row in csv.DictReader(file)}
    return sizes | {name: sizes[same] for name, same in SAME_MODEL.items() if same in sizes}


def find_published(published: Sequence[Scores], name: str) -> Scores:
    """A published set by name.

    Raises:
        UnknownNameError: there is none of that name; the nearest is suggested.
    """
    by_name = {scores.name: scores for scores in published}
    if name not in by_name:
        raise UnknownNameError("published model", name, by_name)
    return by_name[name]


def leaderboard_rows(published: Iterable[Scores]) -> list[Scores]:
    """The leaderboard's rows of the official baselines, as far as they can be composed.

    They are not any one file: v2.0.0 values, in which the two page tasks are those of the fixed data.
    """
    by_name = {scores.name: scores for scores in published}
    return [
        compose_page_fixed(name.removesuffix("@v2.0.0"), released, by_name[fixed])
        for name, released in by_name.items()
        if name.endswith("@v2.0.0") and (fixed := name.replace("@v2.0.0", "@v2.1")) in by_name
    ]


def compose_page_fixed(name: str, released: Scores, fixed: Scores) -> Scores:
    """`released` with the two page tasks of `fixed`: what the leaderboard does for the official baselines."""
    seekers = " (MomentSeeker with 1,800 rows)" if released.edition == V2_0_0 else ""
    return Scores(
        name=name,
        edition=PAGE_FIXED,
        origin="published",
        source=f"{released.source}; {fixed.source}",
        tasks={**released.tasks, **{task: fixed.tasks[task] for task in PAGE_TASKS}},
        notes=(f"composed: {released.edition} values{seekers}, but {' and '.join(PAGE_TASKS)} on the fixed pages",),
    )


def _published_rows(path: Path) -> list[_PublishedRow]:
    try:
        with regular_file(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = [field.name for field in dataclasses.fields(_PublishedRow)]
            if reader.fieldnames != columns:
                raise ResultError(f"{path} is no table of published scores: expected columns {', '.join(columns)}")
            return [_published_row(row, f"{path}:{reader.line_num}") for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ResultError(
            f"can't read published scores {path}: {why}; they come with the package; "
            "--published-file names another table"
        ) from error


def _published_row(row: dict[str | Any, str | Any], where: str) -> _PublishedRow:
    if None in (*row, *row.values()):
        raise ResultError(f"{where}: expected a value for each of {', '.join(key for key in row if key)}, and no more")
    try:
        value = float(row["value"])
    except (TypeError, ValueError):
        raise ResultError(f"{where}: value {row['value']!r} is not a number") from None
    if row["kind"] not in _KINDS:
        raise ResultError(f"{where}: kind {row['kind']!r} is none of {', '.join(_KINDS)}")
    editions = (*MMEB_V2.editions, *MMEB_V3.editions)
    if row["edition"] not in editions:
        raise ResultError(f"{where}: edition {row['edition']!r} is none of {', '.join(editions)}")
    if row["metric"] not in METRIC_NAMES and not row["task"].startswith(_MEAN):
        raise ResultError(f"{where}: no metric is named {row['metric']!r}")
    fields: dict[str, Any] = {**row, "value": fraction(value, f"{where}: {row['task']}")}
    return _PublishedRow(**fields)


def _published_scores(rows: Sequence[_PublishedRow], only: bool) -> Scores:
    first = rows[0]
    if odd := next((row for row in rows if row.edition != first.edition), None):
        raise ResultError(f"published scores of {odd.model} ({odd.kind}) are of {first.edition} and {odd.edition}")
    means = {row.task.removeprefix(_MEAN): row.value for row in rows if row.task.startswith(_MEAN)}
    alone = first.kind == "leaderboard" or (only and not first.kind.startswith(_OF_V3))
    return Scores(
        name=first.model if alone else f"{first.model}@{first.kind}",
        edition=first.edition,
        origin="published",
        source="; ".join(dict.fromkeys(row.source for row in rows)),
        tasks={row.task: TaskScore({row.metric: row.value}) for row in rows if not row.task.startswith(_MEAN)},
        unsupported=_unsupported(first),
        means={"overall" if name == "ALL" else name: value for name, value in means.items()},
        notes=_KINDS[first.kind],
    )


def _unsupported(of_set: _PublishedRow) -> dict[str, tuple[Medium, ...]]:
    """Tasks that a model can't take, where its set has others."""
    if of_set.model not in _WITHOUT_SOUND or not of_set.kind.startswith(_OF_V3):
        return {}
    return {name: ("audio",) for name, row in load_tasks(V3).items() if "audio" in row.task.media}
