"""`mmemb-r1 select`: counterfactual gains of all rationales, and what stage 1 is to be shown.

rationales.jsonl → judged.jsonl (every Delta, kept or not) → selected.jsonl (the same with chances)

Of several processes each judges its own share into a file of its own: judged.jsonl, judged-1.jsonl, …
The second step needs no judge: any rule or threshold can be studied on what was judged once.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmemb_r1_model.data.pairs import OTHER_SIDE, SIDES, Item, Pair, PairSet, Side, item_of, side_content
from mmemb_r1_model.data.rationales import WAY_OUT, RationaleRow, read_rationales, some_of
from mmemb_r1_model.disk.config import Least0, Least1, Seed, build_config
from mmemb_r1_model.disk.errors import DataError, OptionError, progress_of, say
from mmemb_r1_model.disk.files import make_folder, matching, read_object, write_json
from mmemb_r1_model.disk.hashing import file_fingerprint, hash64
from mmemb_r1_model.disk.jsonl import KeyedRecords, RowWriter, read_records, rewrite
from mmemb_r1_model.selection.judge import Judge, JudgeConfig, Shown
from mmemb_r1_model.selection.rule import Chosen, Judged, RuleConfig, chances
from mmemb_r1_model.training.batches import labels_of
from mmemb_r1_model.training.distributed import World

JUDGE, JUDGED, JUDGED_STEM = "judge.json", "judged.jsonl", "judged"
SELECTED, SUMMARY, QUALITY = "selected.jsonl", "summary.json", "quality.json"
_WAY_OUT = "delete that line, then `mmemb-r1 select` judges what it was again"
#: Of chances in selected.jsonl.
_DIGITS, _ROUNDING = 6, 1e-6


@dataclass(frozen=True)
class SelectConfig:
    """The settings of stage 0b.

    Attributes:
        negatives: hard ones for the margin; 0: none, and margin equals delta.
        negative_pool: wrong candidates of the same data set that the judge sees without a rationale; those that it
            likes best are the hard ones. A pair's own hard negatives are always among them.
        pairs_at_once: how many pairs' cases are collected before the judge runs.
    """

    judge: JudgeConfig = field(default_factory=JudgeConfig)
    rule: RuleConfig = field(default_factory=RuleConfig)
    negatives: Least0 = 3
    negative_pool: Least0 = 8
    pairs_at_once: Least1 = 64
    seed: Seed = 0


@dataclass(frozen=True)
class JudgedSide:
    """A line of judged.jsonl: what the judge made of all rationales of one side of a pair.

    Attributes:
        without: C(q, t | no r).
        content: of both sides of the pair when it was judged, see `side_content`; "": an earlier release didn't say.
    """

    dataset: str
    pair: str
    side: Side
    without: float
    judged: tuple[Judged, ...]
    content: str = ""


@dataclass(frozen=True)
class SelectedSide:
    """A line of selected.jsonl: what was judged with chances, which add up to 1.

    Attributes:
        direct_only: no rationale was worth it: all chances are 0.
    """

    dataset: str
    pair: str
    side: Side
    without: float
    judged: tuple[Chosen, ...]
    direct_only: bool

    def __post_init__(self) -> None:
        shares = [rationale.chance for rationale in self.judged]
        if min(shares, default=0) < 0 or abs(sum(shares) - (not self.direct_only)) > _ROUNDING * (1 + len(shares)):
            raise ValueError(f"chances are {shares}, expected some that add up to {1 - self.direct_only}")


def key_of(side: RationaleRow | JudgedSide | SelectedSide) -> str:
    """The key of a line of any of the three files: its data set, pair and side."""
    return side_key(side.dataset, side.pair, side.side)


def side_key(dataset: str, pair: str, side: str) -> str:
    """The key of a pair's side: data set, pair id and side."""
    return "\x1f".join((dataset, pair, side))


def judge_rationales(
    judge: Judge,
    sets: Sequence[PairSet],
    rationales: Path,
    config: SelectConfig,
    folder: Path,
    world: World,
    wait: Callable[[], object],
    on_units: Callable[[str, int], None],
) -> None:
    """Write judged.jsonl; what is judged already, by whatever number of processes, is not judged again.

    Unless the pair, or what is written of the side, has changed since.

    Args:
        rationales: rationales.jsonl.
        world: chunks of pairs are dealt out to its processes.
        wait: until all of them have come so far.
        on_units: told of a data set and how many pairs of it are judged; of none of them when a chunk begins.

    Raises:
        DataError: no rationale of any pair: the file is of another data set.
        OptionError: the folder was begun by another evaluator, or with other negatives.
    """
    with progress_of("select, reading rationales", shown=world.is_first):
        written = KeyedRecords(rationales, RationaleRow, WAY_OUT, key_of)
        _check_same_judge(judge, config, folder, world.is_first)
    if world.is_first:
        _drop_changed(sets, written, folder)
    wait()
    done = {key_of(side) for side in all_judged(folder)}
    seen, outdated = len(done), 0
    size, total = config.pairs_at_once, sum(map(len, sets))
    with (
        RowWriter(folder / (JUDGED if world.is_first else f"{JUDGED_STEM}-{world.rank}.jsonl")) as writer,
        progress_of("select, pairs judged", -(-total // world.size), shown=world.is_first) as advance,
    ):
        for pairs in sets:
            for first in range(world.rank * size, len(pairs), world.size * size):
                places = range(len(pairs))[first : first + size]
                on_units(pairs.name, 0)
                cases = list(_cases(pairs, places, written, done))
                outdated += sum(case.outdated for case in cases)
                cases = [case for case in cases if case.written]
                for side in _judge_cases(judge, pairs, cases, config):
                    writer.write(dataclasses.asdict(side))
                seen += len(cases)
                on_units(pairs.name, len(places))
                advance(len(places))
    if outdated:
        say(
            f"select: {outdated:,} rationales of pairs that changed since are left out; `mmemb-r1 rationales` writes "
            "them again"
        )
    if not seen and not outdated and world.is_first:
        names = ", ".join(sorted({row.dataset for row in read_rationales(rationales.parent)}))
        raise DataError(
            f"{rationales} has no rationale for any pair of {', '.join(pairs.name for pairs in sets)}; it is of {names}"
        )


def _drop_changed(sets: Sequence[PairSet], written: KeyedRecords[RationaleRow], folder: Path) -> None:
    """Rewrite what was judged without the sides of pairs, or with rationales, that are others now."""
    keys, known = set[int](), set[int]()
    for judged in all_judged(folder):
        keys.add(hash64(key_of(judged)))
        known.add(_judged_hash(key_of(judged), judged.content, judged.judged))
    if not keys:
        return
    changed = set[str]()
    with progress_of("select, pairs compared", sum(map(len, sets))) as advance:
        for pair in (pairs[place] for pairs in sets for place in range(len(pairs))):
            for side in SIDES:
                key = side_key(pair.dataset, pair.id, side)
                if hash64(key) in keys:
                    usable = _case(pair, side, written).written
                    if not any(_judged_hash(key, content, usable) in known for content in ("", _content(pair))):
                        changed.add(key)
            advance()
    if changed:
        say(f"select: {len(changed):,} sides of pairs that changed since, or their rationales, are judged again")
        for path in _judged_files(folder):
            kept = (side for side in read_records(path, JudgedSide, _WAY_OUT) if key_of(side) not in changed)
            rewrite(path, map(dataclasses.asdict, kept))


def _judged_hash(key: str, content: str, rationales: Sequence[RationaleRow | Judged]) -> int:
    """Of what a side's gains depend on, wrong candidates aside."""
    texts = sorted(f"{rationale.worker}/{rationale.sample}\x1f{rationale.text}" for rationale in rationales)
    return hash64(key, content, *texts)


def _content(pair: Pair) -> str:
    return "".join(side_content(pair, side) for side in SIDES)


def _check_same_judge(judge: Judge, config: SelectConfig, folder: Path, writes: bool) -> None:
    """Gains of two evaluators, or over other negatives, must not stand in one file."""
    path = folder / JUDGE
    now = {
        "checkpoint": judge.checkpoint.name,
        "revision": judge.checkpoint.revision,
        "negatives": config.negatives,
        "negative_pool": config.negative_pool,
        "seed": config.seed,
    }
    if path.is_file():
        before = read_object(path, f"remove {JUDGED_STEM}*.jsonl and {JUDGE} in {folder} to judge again")
        if odd := [name for name in now if now[name] != before.get(name) and name != "checkpoint"]:
            differences = ", ".join(f"{name} {before.get(name)!r}, now {now[name]!r}" for name in odd)
            raise OptionError(
                f"{folder} was judged by {before.get('checkpoint')} with {differences}; remove {JUDGED_STEM}*.jsonl "
                f"and {JUDGE} in it to judge again, or choose another --output"
            )
    elif writes:
        write_json(path, now)


def all_judged(folder: Path) -> Iterator[JudgedSide]:
    """What all processes have judged.

    Raises:
        DataError: a line that is nothing of the kind.
    """
    return (side for path in _judged_files(folder) for side in read_records(path, JudgedSide, _WAY_OUT))


def _judged_files(folder: Path) -> list[Path]:
    paths = [folder / JUDGED, *matching(folder, f"{JUDGED_STEM}-*.jsonl")]
    return [path for path in paths if path.is_file()]


@dataclass(frozen=True)
class _Case:
    """A side whose rationales are to be judged.

    Attributes:
        written: whole rationales, each once.
        outdated: how many more are of what the side was before.
    """

    pair: Pair
    side: Side
    written: tuple[RationaleRow, ...]
    outdated: int

    @property
    def other(self) -> Item:
        return item_of(self.pair, OTHER_SIDE[self.side])

    def question(self, other: Item, rationale: str | None) -> tuple[Shown, Shown]:
        """(query, candidate), the rationale behind the side that it belongs to."""
        own = Shown(item_of(self.pair, self.side), rationale)
        return (own, Shown(other)) if self.side == "query" else (Shown(other), own)


def _cases(pairs: PairSet, places: range, written: KeyedRecords[RationaleRow], done: set[str]) -> Iterator[_Case]:
    """The sides that aren't judged yet."""
    for pair in (pairs[place] for place in places):
        for side in SIDES:
            if side_key(pair.dataset, pair.id, side) not in done:
                yield _case(pair, side, written)


def _case(pair: Pair, side: Side, written: KeyedRecords[RationaleRow]) -> _Case:
    rows = written.get(side_key(pair.dataset, pair.id, side))
    if twice := [name for name, count in Counter(row.name for row in rows).items() if count > 1]:
        raise DataError(
            f"{written.path} has twice {pair.dataset}, pair {pair.id!r}, {side}, worker/sample {twice[0]}: "
            "delete one of the lines"
        )
    usable = [row for row in rows if row.usable]
    now = {"", *(side_content(pair, side, carried=carried) for carried in (False, True) if usable)}
    kept = tuple(row for row in usable if row.content in now)
    return _Case(pair, side, kept, len(usable) - len(kept))


def _judge_cases(judge: Judge, pairs: PairSet, cases: Sequence[_Case], config: SelectConfig) -> Iterator[JudgedSide]:
    """First all wrong items without a rationale, to find the hard ones; then every rationale with those."""
    pools = [_pool(pairs, case, config) for case in cases]
    bare = _ask(
        judge,
        [
            [case.question(other, None) for other in (case.other, *pool)]
            for case, pool in zip(cases, pools, strict=True)
        ],
    )
    hard = [_hardest(scores[1:], config.negatives) for scores in bare]
    asked = [
        [case.question(other, written.text) for other in (case.other, *(pool[place] for place in chosen))]
        for case, pool, chosen in zip(cases, pools, hard, strict=True)
        for written in case.written
    ]
    scores = iter(_ask(judge, asked))
    for case, chosen, without in zip(cases, hard, bare, strict=True):
        judged = tuple(
            _gains(written, next(scores), [without[0], *(without[1 + place] for place in chosen)])
            for written in case.written
        )
        yield JudgedSide(case.pair.dataset, case.pair.id, case.side, without[0], judged, _content(case.pair))


def _gains(written: RationaleRow, confidences: Sequence[float], without: Sequence[float]) -> Judged:
    """Both lists: the positive's first, then the hard negatives'."""
    delta, *lifts = (now - before for now, before in zip(confidences, without, strict=True))
    margin = delta - (sum(lifts) / len(lifts) if lifts else 0.0)
    return Judged(written.worker, written.sample, written.text, confidences[0], delta, margin)


def _ask(judge: Judge, questions: Sequence[Sequence[tuple[Shown, Shown]]]) -> list[list[float]]:
    flat = iter(judge.confidences([question for own in questions for question in own]))
    return [[next(flat) for _ in own] for own in questions]


def _pool(pairs: PairSet, case: _Case, config: SelectConfig) -> list[Item]:
    """Wrong items for the other side of the pair: its own hard negatives, then others of the data set."""
    if not config.negatives:
        return []
    own = list(case.pair.negatives) if case.side == "query" else []
    rng = np.random.default_rng((config.seed, 6, *case.pair.id.encode()))
    labels = labels_of(case.pair)
    for place in rng.integers(len(pairs), size=8 * config.negative_pool).tolist():
        if len(own) >= config.negative_pool:
            break
        drawn = pairs[place]
        theirs = labels_of(drawn)
        wanted, given = (labels, theirs) if case.side == "query" else (theirs, labels)
        if wanted.right.isdisjoint(given.has):
            own.append(item_of(drawn, OTHER_SIDE[case.side]))
    return own


def _hardest(scores: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count]


def select_rationales(config: SelectConfig, folder: Path) -> Path:
    """Write selected.jsonl and summary.json from what was judged in the folder; no judge is needed."""
    make_folder(folder)
    path, counts = folder / SELECTED, dict[str, dict[str, float]]()
    with progress_of("select, choosing"):
        rewrite(path, (dataclasses.asdict(_selected(side, config.rule, counts)) for side in all_judged(folder)))
    write_json(folder / SUMMARY, dataclasses.asdict(_Summary(config.rule, counts)))
    return path


def _selected(side: JudgedSide, rule: RuleConfig, counts: dict[str, dict[str, float]]) -> SelectedSide:
    """A judged side with the chances of its rationales; counted."""
    shares = chances(side.judged, rule, key_of(side))
    direct_only = not any(shares)
    own = counts.setdefault(f"{side.dataset}/{side.side}", {"sides": 0, "direct_only": 0, "rationales": 0})
    own["sides"] += 1
    own["direct_only"] += direct_only
    own["rationales"] += len(side.judged)
    for rationale, share in zip(side.judged, shares, strict=True):
        own[f"chosen {rationale.worker}"] = own.get(f"chosen {rationale.worker}", 0.0) + share
    chosen = tuple(
        Chosen(**vars(rationale), chance=round(share, _DIGITS))
        for rationale, share in zip(side.judged, shares, strict=True)
    )
    return SelectedSide(side.dataset, side.pair, side.side, side.without, chosen, direct_only)


@dataclass(frozen=True)
class _Summary:
    """summary.json, beside what was selected.

    Attributes:
        sets: data set and side → what is counted → how often.
    """

    rule: RuleConfig
    sets: dict[str, dict[str, float]]


class SelectedRationales:
    """selected.jsonl as stage 1 draws from it."""

    def __init__(self, path: Path) -> None:
        """Read it once.

        Raises:
            DataError: it isn't what was selected, or not all of it.
        """
        self._datasets: set[str] = set()
        way_out = "write the file again: mmemb-r1 select"
        note = self._datasets.add
        self._sides = KeyedRecords(path, SelectedSide, way_out, key_of, lambda side: note(side.dataset))
        summary = path.with_name(SUMMARY)
        if summary.is_file():  # a file that was cut between two lines is whole by itself
            counts = build_config(_Summary, read_object(summary, way_out), str(summary)).sets.values()
            if (expected := round(sum(own.get("sides", 0) for own in counts))) != len(self._sides):
                raise DataError(f"{path} has {len(self._sides)} sides, {summary} counts {expected}; {way_out}")
        self.fingerprint = file_fingerprint(path)

    def check(self, sets: Sequence[PairSet]) -> None:
        """That it is of these data sets, by their names and some of their pairs.

        Raises:
            OptionError: it isn't: every pair would silently be direct-only.
        """
        for pairs in sets:
            if pairs.name not in self._datasets:
                known = ", ".join(sorted(self._datasets)) or "nothing"
                raise OptionError(
                    f"{self._sides.path} has no rationales of {pairs.name!r}; it is of {known}. "
                    "Select for this data set, or leave it out"
                )
            some = some_of(pairs)
            if not any(self._has(pair) for pair in some):
                raise OptionError(
                    f"{self._sides.path} has rationales of {pairs.name!r}, but none for {len(some)} of its pairs, "
                    f"{some[0].id!r} among them: it is of another split or revision. Select for this one"
                )

    def _has(self, pair: Pair) -> bool:
        return any(self._sides.get(side_key(pair.dataset, pair.id, side)) for side in SIDES)

    def draw(self, pair: Pair, side: Side, rng: Callable[[], np.random.Generator]) -> str | None:
        """By the chances of the pair's rationales; `None` for a side that is direct-only or has none."""
        selected = self._sides.get(side_key(pair.dataset, pair.id, side))
        if not selected or selected[-1].direct_only:
            return None
        judged = selected[-1].judged
        shares = np.array([rationale.chance for rationale in judged])
        if shares.max() == shares.sum():
            return judged[int(shares.argmax())].text
        return judged[int(rng().choice(len(judged), p=shares / shares.sum()))].text
