"""Tests an embedder offline in seconds, on inputs made here: does it keep the promises the harness relies on?"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import os
import random
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import (
    MODES,
    BudgetedEmbedder,
    Embedder,
    Encoded,
    EncodeResult,
    ModelInfo,
    ModesEmbedder,
    TokenVectors,
    Trace,
    in_modes,
    infos_of,
)
from mmeb_harness.core.errors import (
    HarnessError,
    ModelError,
    is_out_of_memory,
    of_the_system,
    one_line,
    shortened,
)
from mmeb_harness.core.items import Item, Role, Sound, described
from mmeb_harness.core.plugins import HINT, plugin_code
from mmeb_harness.encode.chunks import PLAIN_BATCH_ITEMS, Batch, Chunk
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.encode.memory import MemorySink
from mmeb_harness.encode.plausible import SETTINGS, early_problem, late_problem, mode_problem, trace_problem
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.encode.returned import kind_of, own_result, own_results

#: One array (t, d) an item, of unit vectors; t is 1 for a model of one vector an item.
ItemVectors: TypeAlias = list[NDArray[np.floating[Any]]]

#: Cosine between an item's vectors from two batches. Loose enough for bfloat16, far from any other item.
SAME_COSINE = 0.999
#: The same from the same batch twice: nothing but what came before can differ.
SAME_BATCH_COSINE = 0.99999
#: Items of a batch where a run is tried.
RUN_BATCH = 2
#: Times that a batch's seconds are looked at, until they can be.
TIMINGS = 3
KINDS = ("text", "image", "places", "frames", "mixed", "sound")
ROLES: tuple[Role, ...] = ("query", "candidate")


@dataclass(frozen=True)
class CheckOutcome:
    """One check: its name, whether it held, and the figure or reason."""

    name: str
    passed: bool
    detail: str


def check_embedder(
    embedder: Embedder, folder: Path, modes: Mapping[Role, str | None] | None = None
) -> Iterator[CheckOutcome]:
    """Run every check; pictures and sounds are written to `folder`.

    What the embedder raises is a check that failed. Checks: text, image, frames, mixed items, several pictures an item
    and sounds, as far as it says that it takes them, in both roles, of which number, width, unit length and finiteness
    (all of `own_result`) and that the items stay as they are; then, of the items that it can embed at all, what is in
    `_checks`.

    Args:
        modes: when it was asked to reason; of a role that isn't there as its settings say.
    """
    probe, media = _Probe(embedder, modes or {}), embedder.info.media
    items = [item for item in probe_items(folder) + probe_sounds(folder) if item.kinds.issubset(media)]
    before = _files_of(folder)
    if left_out := [medium for medium in ModelInfo.media if medium not in media]:
        yield CheckOutcome("not tried", True, f"{' and '.join(left_out)}: not in its info.media")
    usable: list[Item] = []
    for kind in KINDS:
        if not (of_kind := [item for item in items if item.id.startswith(kind)]):
            continue
        outcomes = [_tried(f"{kind} as {role}", partial(_check_kind, probe, of_kind, role)) for role in ROLES]
        yield from outcomes
        usable += of_kind if all(outcome.passed for outcome in outcomes) else []
    if usable:
        for name, check in _checks(probe, usable).items():
            yield _tried(name, check)
        yield _tried("own memory", lambda: _check_memory(probe))
        yield _tried("media files", lambda: _check_media(folder, before))


def _tried(name: str, check: Callable[[], str]) -> CheckOutcome:
    """A check raises what is wrong, and returns the figure."""
    try:
        return CheckOutcome(name, True, check())
    except HarnessError as error:
        return CheckOutcome(name, False, one_line(error).removesuffix(HINT))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return CheckOutcome(name, False, of_the_system(error) or one_line(error))


class _Probe:
    """Calls the model, and keeps what it returned: all of it has to stay as it is.

    Attributes:
        kept: results as they were returned, their items and role, and what was in them.
    """

    def __init__(self, embedder: Embedder, modes: Mapping[Role, str | None]) -> None:
        self.embedder, self.info, self.modes = embedder, embedder.info, modes
        self.kept: list[tuple[EncodeResult, Sequence[Item], Role, ItemVectors]] = []

    def call(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """What the model returns, as it is.

        Raises:
            ModelError: it changed the items, or the list of them.
        """
        with _unchanged(items) as given, self.models_code(items, role):
            return self.embedder.encode(given, role)

    def timed(self, items: Sequence[Item], role: Role) -> tuple[tuple[Trace, ...], float]:
        """How the items' vectors came about, and the seconds that encoding took, preparing left out."""
        embedder = self.embedder
        with _unchanged(items) as given, self.models_code(items, role):
            prepared = embedder.prepare(given, role) if isinstance(embedder, BudgetedEmbedder) else None
            started = time.perf_counter()
            if isinstance(embedder, BudgetedEmbedder):
                result = embedder.encode_prepared(prepared)
            else:
                result = embedder.encode(given, role)
            seconds = time.perf_counter() - started
        self.vectors_of(result, items, role)
        return result.traces or (Trace(),) * len(items), seconds

    def encode(self, items: Sequence[Item], role: Role) -> ItemVectors:
        """The items' vectors, once they can be used at all."""
        result = self.call(items, role)
        vectors = self.vectors_of(result, items, role)
        self.kept.append((result, copy.deepcopy(list(items)), role, vectors))  # not the items: some have to be gone
        return vectors

    def vectors_of(self, result: object, items: Sequence[Item], role: Role) -> ItemVectors:
        """What a run would take from a result of these items."""
        return _per_item(own_result(self.info, result, [(item.id, item) for item in items], role))

    def models_code(self, items: Sequence[Item], role: Role, how: str = "") -> AbstractContextManager[None]:
        """Inside, code of the model's runs over these items."""
        return plugin_code(f"model {self.info.name!r}", lambda: f" over {described(items, role)}{how}")


@contextmanager
def _unchanged(items: Sequence[Item]) -> Iterator[list[Item]]:
    """A list of the items for the model, which neither changes them nor the list.

    Raises:
        ModelError: it did.
    """
    given, before = list(items), copy.deepcopy(list(items))
    yield given
    if given != before:
        changed = [(item or now).id for item, now in itertools.zip_longest(before, given) if item != now]
        raise ModelError(f"it changed the items that it was given: {shortened(map(repr, changed), 3)}")


def _checks(probe: _Probe, items: list[Item]) -> Mapping[str, Callable[[], str]]:
    """Same vectors, whatever else is encoded before or beside; nothing else in the process changes."""
    first: ItemVectors = []
    few, embedder = items[::3], probe.embedder

    def again() -> str:
        first[:] = probe.encode(items, "query")
        return _same(first, probe.encode(items, "query"), items, SAME_BATCH_COSINE)

    def like(encode: Callable[[], ItemVectors], cosine: float = SAME_COSINE) -> Callable[[], str]:
        return lambda: _same(first or probe.encode(items, "query"), encode(), items, cosine)

    checks = {
        "same again": again,
        "order": like(lambda: probe.encode(items[::-1], "query")[::-1]),
        "batch of one": like(lambda: _one_by_one(probe, items, "query")),
        "padding": like(lambda: probe.encode([*items, _long_item()], "query")[: len(items)]),
        "other ids": like(lambda: probe.encode(_renamed(items), "query")),
        "as in a run": like(lambda: _encode_as_run(probe, items, "query")),
        "candidates": lambda: _check_candidates(probe, items),
        "kind of numbers": lambda: _check_numbers(probe, few),
        "seconds": lambda: _check_seconds(probe, items),
        "traces": lambda: _check_traces(probe, items),
        "leaves the rest": lambda: _check_rest(probe, few),
        "different inputs": lambda: _distinct(first or probe.encode(items, "query"), items),
        "same in the end": like(lambda: probe.encode(items, "query"), SAME_BATCH_COSINE),
    }
    if isinstance(embedder, BudgetedEmbedder):
        ahead = like(lambda: _encode_prepared_ahead(probe, embedder, items))
        checks = {"prepared ahead": ahead, "cost": lambda: _check_cost(probe, embedder, items), **checks}
    if isinstance(embedder, ModesEmbedder):
        checks["modes at once"] = lambda: _check_modes(embedder, items)
    return checks


def probe_items(folder: Path) -> list[Item]:
    """Text, image, frames and mixed items, and such of several pictures.

    There are an odd number of frames, a tall and a wide picture, odd text. A word stands on each
    picture: some models see nothing else of it.
    """
    red = _picture(folder / "red.png", (64, 64), (220, 30, 30), "red")
    tall = _picture(folder / "tall.png", (48, 160), (30, 180, 30), "tall")
    wide = _picture(folder / "wide.png", (160, 48), (40, 40, 225), "wide")
    clip = tuple(
        _picture(folder / f"frame_{place:04d}.png", (64, 64), (50 * place, 40, 220 - 50 * place), word)
        for place, word in enumerate(("one", "two", "three"), start=1)
    )
    find = "Find an image that matches the given caption:"
    return [
        Item("text short", text="a red circle", instruction=find),
        Item(
            "text long",
            text="a small blue square to the left of a large green triangle, " * 4,
            instruction=find,
        ),
        Item("text symbols", text="Naïve 東京 <b>100 %</b>\n\nline <|im_end|>", instruction=""),
        Item("image square", images=(red,), instruction="Represent the given image."),
        Item("image tall", images=(tall,), instruction="Represent the given image."),
        Item("places two", text="First:\nThen:", images=(red, wide), places=(6, 12), instruction="What comes next?"),
        Item("places none", text="what is in both?", images=(tall, red), instruction="Answer the question:"),
        Item("frames three", frames=clip, instruction="Understand the content of the provided video."),
        Item("frames one", frames=clip[:1], instruction="Understand the content of the provided video."),
        Item("mixed image", text="make it blue", images=(wide,), instruction="Find the image with the change:"),
        Item(
            "mixed frames",
            text="what moves?",
            frames=clip[:2],
            instruction="Answer the question about the video:",
        ),
    ]


def probe_sounds(folder: Path) -> list[Item]:
    """Short tones: a sound, a part of one, a sound beside a text."""
    low, high = (_tone(folder / f"{name}.wav", hertz) for name, hertz in (("low", 220), ("high", 1760)))
    recognise = "Recognize the environmental sound category of the audio."
    return [
        Item("sound low", sound=Sound(low), instruction=recognise),
        Item("sound high in part", sound=Sound(high, 0.1, 0.6), instruction=recognise),
        Item("sound and text", text="something high", sound=Sound(high), instruction="Find where in the audio it is:"),
    ]


def _tone(path: Path, hertz: float) -> Path:
    """Three quarters of a second, which fade."""
    times = np.arange(12_000) / 16_000
    samples = np.sin(2 * np.pi * hertz * times) * (1 - times) * 16_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def _long_item() -> Item:
    return Item("text padding", text="one two three four five six seven eight nine ten " * 20)


def _filler(number: int) -> Item:
    return Item(f"text filler {number}", text=f"object {number}")


def _picture(path: Path, size: tuple[int, int], colour: tuple[int, int, int], word: str) -> Path:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", size, (115, 115, 115))
    width, height = size
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    draw.text((2, 0), word, fill="white", font=ImageFont.load_default(20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def _per_item(result: EncodeResult | Encoded) -> ItemVectors:
    vectors = [np.atleast_2d(result.vectors[item]).astype(np.float64) for item in range(len(result.vectors))]
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]


def _renamed(items: Sequence[Item]) -> list[Item]:
    """The same items, each with the id of another one: every task has its own first query."""
    return [dataclasses.replace(item, id=other.id) for item, other in zip(items, [*items[1:], items[0]], strict=True)]


def _one_by_one(probe: _Probe, items: Sequence[Item], role: Role) -> ItemVectors:
    """Each as an object of its own, which is gone when the next one comes: that is told by its content alone."""
    return [probe.encode([dataclasses.replace(item)], role)[0] for item in items]


def _check_candidates(probe: _Probe, items: Sequence[Item]) -> str:
    """The same of the other role: again, at the end of as large a batch as a run has, one by one from the last on."""
    earlier = {
        item.id: vectors
        for _, of_kind, role, of_each in probe.kept
        for item, vectors in zip(of_kind, of_each, strict=True)
        if role == "candidate"
    }
    first, fillers = probe.encode(items, "candidate"), [_filler(n) for n in range(len(items), PLAIN_BATCH_ITEMS)]
    ways: Mapping[str, Callable[[], ItemVectors]] = {
        "beside its own kind only": lambda: [earlier[item.id] for item in items],
        f"at the end of a batch of {PLAIN_BATCH_ITEMS}": lambda: probe.encode([*fillers, *items], "candidate")[
            len(fillers) :
        ],
        "one by one, the last first": lambda: _one_by_one(probe, items[::-1], "candidate")[::-1],
        "as in a run": lambda: _encode_as_run(probe, items, "candidate"),
        "again": lambda: probe.encode(items, "candidate"),
    }
    for way, encode in ways.items():
        try:
            figure = _same(first, encode(), items, SAME_COSINE)
        except ModelError as error:
            raise ModelError(f"{way}: {error}") from error
    return figure


def _encode_as_run(probe: _Probe, items: Sequence[Item], role: Role) -> ItemVectors:
    """Through the local encoder: small batches, prepared in a thread, uploaded, streamed, as the model can."""
    keyed = [(item.id, item) for item in items]
    batches = [keyed[start : start + RUN_BATCH] for start in range(0, len(keyed), RUN_BATCH)]
    chunk = Chunk(role, tuple(Batch(tuple(batch), len(batch)) for batch in batches))
    with probe.models_code(items, role):
        preparation = InlinePreparation(probe.embedder) if isinstance(probe.embedder, BudgetedEmbedder) else None
        encoder = LocalEncoder(probe.embedder, preparation, RUN_BATCH)
    sink = MemorySink()
    with _unchanged(items), preparation or nullcontext():
        encoder.encode([chunk], sink)
    return _per_item(sink.get([item.id for item in items]))


def _encode_prepared_ahead(probe: _Probe, embedder: BudgetedEmbedder, items: Sequence[Item]) -> ItemVectors:
    """All is prepared before the first item is encoded: nothing may wait for it in the model itself."""
    with _unchanged(items), probe.models_code(items, "query", ", prepared ahead"):
        prepared = [embedder.prepare([item], "query") for item in items]
        results = [embedder.encode_prepared(payload) for payload in prepared]
    return [probe.vectors_of(result, [item], "query")[0] for item, result in zip(items, results, strict=True)]


def _check_kind(probe: _Probe, items: Sequence[Item], role: Role) -> str:
    vectors = probe.encode(items, role)
    return f"{sum(map(len, vectors))} vectors of width {vectors[0].shape[1]}, unit length"


def _check_modes(embedder: Embedder, items: Sequence[Item]) -> str:
    """Each gives what it gives by itself."""
    keyed = [(item.id, item) for item in items]

    def encoded(modes: Sequence[str | None]) -> EncodeResult:
        model = in_modes(embedder, modes)
        return own_results(infos_of(model), model.encode(items, "query"), keyed, "query")

    names = [info.mode for info in infos_of(in_modes(embedder, MODES))]
    if len(names) == 1:
        return "not several, so that they are run one after another"
    first = encoded(names)
    told = [
        f"{name}: {_same(_per_item(encoded([name])), _per_item(own), items, SAME_COSINE)}"
        for name, own in zip(names, (first, *first.others), strict=True)
    ]
    return ", ".join(told)


def _check_memory(probe: _Probe) -> str:
    """All results so far, of many calls of few items: also of buffers that take turns, or are written to later."""
    for result, items, role, before in probe.kept:
        with suppress(ModelError):  # which they weren't before
            after = probe.vectors_of(result, items, role)
            if all(np.array_equal(first, second) for first, second in zip(before, after, strict=True)):
                continue
        raise ModelError(
            "the vectors of one call changed during later ones: it returns views of a buffer that it uses again; "
            "return a copy"
        )
    return f"the vectors of {len(probe.kept)} calls stay as they were returned"


def _check_numbers(probe: _Probe, items: Sequence[Item]) -> str:
    kinds = {}
    for role in ROLES:
        result = probe.call(items, role)
        probe.vectors_of(result, items, role)
        vectors = result.vectors
        array = vectors.flat if isinstance(vectors, TokenVectors) else vectors
        allowed = (np.float32, np.float16) if isinstance(vectors, TokenVectors) else (np.float32,)
        if type(array) is not np.ndarray or array.dtype not in allowed:
            raise ModelError(f"vectors as {role} are {kind_of(array)}; return a numpy.ndarray of float32")
        kinds[role] = str(array.dtype)
    if len(set(kinds.values())) > 1:
        raise ModelError(f"vectors are of {kinds['query']} as query and of {kinds['candidate']} as candidate")
    return kinds["query"]


def _check_seconds(probe: _Probe, items: Sequence[Item]) -> str:
    own, names = 0, [repr(item.id) for item in items]
    for role in ROLES:
        for attempt in range(TIMINGS):
            traces, wall = probe.timed(items, role)
            if problem := late_problem(traces, names, wall):
                raise ModelError(f"as {role}: {problem}")
            if not (problem := early_problem(traces, wall)):
                break
            if attempt == TIMINGS - 1:
                raise ModelError(f"as {role}: {problem}")
        own += sum(trace.seconds is not None for trace in traces)
    return f"{own} of {len(ROLES) * len(items)} traces have their own, and none that can't be"


def _check_traces(probe: _Probe, items: Sequence[Item]) -> str:
    told, info = [], probe.info
    for role in ROLES:
        asked = probe.modes.get(role)
        if problem := mode_problem(info, role, asked):
            raise ModelError(problem)
        mode = asked or info.settings.get(SETTINGS[role])
        traces, _ = probe.timed(items, role)
        for item, trace in zip(items, traces, strict=True):
            if problem := trace_problem(trace, mode, info):
                raise ModelError(f"the trace of {described([item], role)} {problem}")
        told.append(f"{sum(trace.path == 'reasoned' for trace in traces)} of {len(items)} reason as {role}")
    if info.reasons and not any(probe.modes.values()):
        told.append("other modes by a check with --reasoning")
    return ", ".join(told)


def _check_rest(probe: _Probe, items: Sequence[Item]) -> str:
    _stir()
    before = _surroundings()
    with tempfile.TemporaryFile("w+") as file:
        with _stdout_to(file):
            probe.call(items, "query")
        file.seek(0)
        said = file.read()
    if said:
        raise ModelError(f"it writes to the standard output, where results go: {one_line(ValueError(said), 60)!r}")
    after = _surroundings()
    if changed := [name for name in before if before[name] != after.get(name)]:
        os.chdir(str(before["the working directory"]))
        raise ModelError(f"a call changes what others use as well: {', '.join(changed)}")
    with probe.models_code(items, "query"):
        info = probe.embedder.info
    if info != probe.info:
        raise ModelError("its `info` changes from call to call: vectors are stored by it")
    return "no output, nothing changed"


def _stir() -> None:
    """Move the random states on: a call that sets them to the same as the one before would change nothing."""
    random.random()
    np.random.random()
    if torch := sys.modules.get("torch"):
        torch.rand(1)


def _surroundings() -> dict[str, object]:
    """What a call must leave as it is, by name."""
    numpys = np.random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    return {
        "the working directory": os.getcwd(),
        "the environment": dict(os.environ),
        "the state of `random`": random.getstate(),
        "the random state of numpy": repr(numpys["state"]["pos"]) + numpys["state"]["key"].tobytes().hex(),
        "how numpy treats errors": np.geterr(),
        "the random state of torch": torch.random.get_rng_state().tolist() if torch else None,
        "torch's default type": torch.get_default_dtype() if torch else None,
    }


@contextmanager
def _stdout_to(file: IO[str]) -> Iterator[None]:
    """What is printed, and what is written to the descriptor itself."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        with redirect_stdout(file):
            yield
        file.flush()
    finally:
        os.dup2(before, 1)
        os.close(before)


def _check_cost(probe: _Probe, embedder: BudgetedEmbedder, items: Sequence[Item]) -> str:
    with _unchanged(items), plugin_code(f"model {probe.info.name!r}", lambda: " over what items cost"):
        costs = [embedder.cost(item, "query") for item in items]
        again = [embedder.cost(item, "query") for item in items]
    for item, cost, second in zip(items, costs, again, strict=True):
        if isinstance(cost, bool) or not isinstance(cost, int | np.integer) or cost < 0 or cost != second:
            raise ModelError(f"{item.id!r} costs {cost!r} and then {second!r}; a number of tokens, always the same")
    return f"{min(costs)} to {max(costs)} tokens"


def _files_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """By name what is in a file, when it was written and its mode; media stay as they are, and nothing comes beside."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        str(name): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode)
        for name, path in paths.items()
    }


def _check_media(folder: Path, before: Mapping[str, object]) -> str:
    after = _files_of(folder)
    if changed := [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]:
        raise ModelError(f"it changed files of media: {shortened(changed, 3)}")
    return f"{len(before)} files are as they were"


def _same(before: ItemVectors, after: ItemVectors, items: Sequence[Item], cosine: float) -> str:
    for item, first, second in zip(items, before, after, strict=True):
        if len(first) != len(second):
            raise ModelError(f"{len(first)} and then {len(second)} vectors for {item.id!r}")
    cosines = [float((first * second).sum(axis=1).min()) for first, second in zip(before, after, strict=True)]
    worst = int(np.argmin(cosines))
    detail = f"lowest cosine {cosines[worst]:.6f}"
    if cosines[worst] < cosine:
        raise ModelError(f"{detail} for {items[worst].id!r}, expected ≥ {cosine}")
    return detail


def _distinct(vectors: ItemVectors, items: Sequence[Item]) -> str:
    pairs = itertools.combinations(range(len(vectors)), 2)
    nearest, first, second = max((_likeness(vectors[i], vectors[j]), i, j) for i, j in pairs)
    detail = f"nearest pair: {items[first].id!r} and {items[second].id!r}, cosine {nearest:.4f}"
    if nearest >= 1 - 1e-6:
        raise ModelError(detail)
    return detail


def _likeness(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """MaxSim a vector, the lower of both directions: 1 for what can't be told apart; a plain cosine where t is 1."""
    cosines = first @ second.T
    return float(min(cosines.max(axis=0).mean(), cosines.max(axis=1).mean()))
