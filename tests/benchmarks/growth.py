"""How the time grows: with candidates, queries, frames of a video, and tokens written.

python -m tests.benchmarks.growth [--model NAME] [--repeats N] [--dimensions N] [--output FOLDER]

On made-up items, and on those queries of the mini suite that make the model write most. Writes growth.json and a
picture, growth.png and growth.svg. Up to a million candidates are ranked, for which memory must have room twice.

Each curve is measured several times over, points in turn. The exponent of a power law is fitted to the upper half of
its points, where what doesn't grow no longer matters: a straight line through the logarithms, by least squares.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from mmeb_tasks import TASKS
from mmeb_tasks.mini import SUITE
from numpy.typing import NDArray

from mmeb_harness.bench.make import Note, num_threads, open_encoders
from mmeb_harness.bench.values import SCHEMA_VERSION, Spread
from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import OptionError, UnknownNameError
from mmeb_harness.core.files import write_json
from mmeb_harness.core.items import Item, Profile, Scalar, Vectors
from mmeb_harness.core.registry import ModelSpec, resolve_model
from mmeb_harness.data.folder import describe, ensure_suite, load_samples
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS, Keyed, plan_chunks
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.encode.memory import MemorySink
from mmeb_harness.encode.whole_workers import workers_for
from mmeb_harness.ranking.corpus import rank_corpus, require_faiss
from mmeb_harness.ranking.task import DEPTH
from mmeb_harness.show.pictures.picture import save_pictures

#: Main metrics look at so many places at most.
_CUT = 5
#: Videos of a point, and items of a point of the curve over written tokens.
_VIDEOS, _WRITERS = 4, 16
_FRAME = (128, 128)
#: Of each task of the mini suite, for the curve over written tokens to choose from.
_QUERIES_A_TASK = 8


@dataclass(frozen=True)
class Sizes:
    """Points of the curves, and what is held fixed.

    Attributes:
        dimensions: of the vectors that are ranked.
        ranked_queries: against which the candidates are ranked.
        ranked_candidates: that the queries are ranked against.
    """

    candidates: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    queries: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    frames: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    new_tokens: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    dimensions: int = 64
    ranked_queries: int = 64
    ranked_candidates: int = 10_000


@dataclass(frozen=True)
class Point:
    """`each`: seconds, repeat by repeat."""

    size: float
    seconds: Spread
    each: tuple[float, ...]


@dataclass(frozen=True)
class Fit:
    """seconds ≈ scale * size ** exponent.

    Attributes:
        exponent: of the medians, and the least and most of single repeats.
        first, last: sizes of the points it was fitted to.
    """

    exponent: Spread
    scale: float
    first: float
    last: float


@dataclass(frozen=True)
class Curve:
    """Seconds over a size.

    Attributes:
        over: what the size counts; curves of the same are drawn together.
        what: that is timed.
        fit: `None` if fewer than two sizes were left to fit.
    """

    over: str
    what: str
    points: tuple[Point, ...]
    fit: Fit | None


@dataclass(frozen=True)
class NotMeasured:
    """A curve that this model can't have, and why."""

    over: str
    why: str


@dataclass(frozen=True)
class Growth:
    """All curves of a model on a machine."""

    model: str
    model_args: Mapping[str, str]
    model_settings: Mapping[str, Scalar]
    curves: tuple[Curve, ...]
    left_out: tuple[NotMeasured, ...]
    repeats: int
    sizes: Sizes
    machine: Mapping[str, Scalar]
    threads: int | None
    versions: Mapping[str, str]
    git_commit: str | None
    schema_version: int = SCHEMA_VERSION


Once = Callable[[], float]  # measures a point once; seconds


def measure_growth(
    spec: ModelSpec,
    batch_tokens: int,
    repeats: int,
    workers: int | None,
    sizes: Sizes,
    queries: Sequence[Item],
    folder: Path,
    note: Note,
) -> Growth:
    """Measure all curves.

    Args:
        queries: of real tasks; those that make the model write most are used for the curve over written tokens.
        workers: as in a run.
        folder: for made-up pictures.
        note: told what is going on.

    Raises:
        HarnessError: the model can't be used.
    """
    require_faiss()
    embedder = spec.load()
    note("ranking, over candidates")
    curves = [ranking_over_candidates(sizes, repeats)]
    count = workers_for(embedder) if workers is None else workers
    with open_encoders(embedder, spec, count, note) as make_encoder:
        encoder = make_encoder(batch_tokens)
        encode = _timed_encoding(embedder, encoder, batch_tokens)
        note("encoding and ranking, over queries")
        curves += [_curve("queries", "encoding", sizes.queries, repeats, lambda size: encode(_questions(size)))]
        curves += [ranking_over_queries(sizes, repeats)]
        note("encoding, over frames")
        videos = {size: _videos(folder, size) for size in sizes.frames}
        what = f"encoding of {_VIDEOS} videos"
        curves += [_curve("frames of a video", what, sizes.frames, repeats, lambda size: encode(videos[size]))]
    note("encoding, over tokens written")
    written = _over_written_tokens(spec, batch_tokens, repeats, sizes, queries, note)
    if isinstance(written, Curve):
        curves.append(written)
    left_out = (written,) if isinstance(written, NotMeasured) else ()
    return Growth(
        model=embedder.info.name,
        model_args=dict(spec.args),
        model_settings=dict(embedder.info.settings),
        curves=tuple(curves),
        left_out=left_out,
        repeats=repeats,
        sizes=sizes,
        machine=environment.machine(),
        threads=num_threads(),
        versions=environment.package_versions(),
        git_commit=environment.git_commit(),
    )


def ranking_over_candidates(sizes: Sizes, repeats: int) -> Curve:
    """Some queries against ever more candidates, as a run ranks a corpus."""
    queries = _unit_vectors(sizes.ranked_queries, sizes.dimensions)
    everything = _unit_vectors(max(sizes.candidates), sizes.dimensions)
    what = f"ranking of {sizes.ranked_queries} queries"
    return _curve("candidates", what, sizes.candidates, repeats, lambda size: _timed_rank(queries, everything[:size]))


def ranking_over_queries(sizes: Sizes, repeats: int) -> Curve:
    """Ever more queries against some candidates."""
    everything = _unit_vectors(max(sizes.queries), sizes.dimensions)
    candidates = _unit_vectors(sizes.ranked_candidates, sizes.dimensions)
    what = f"ranking of {sizes.ranked_candidates:,} candidates"
    return _curve("queries", what, sizes.queries, repeats, lambda size: _timed_rank(everything[:size], candidates))


def _timed_rank(queries: Vectors, candidates: Vectors) -> float:
    relevant = [np.array([place % len(candidates)]) for place in range(len(queries))]
    started = time.perf_counter()
    rank_corpus(queries, candidates, relevant, depth=DEPTH, cut=_CUT)
    return time.perf_counter() - started


def _unit_vectors(number: int, dimensions: int) -> Vectors:
    vectors: NDArray[np.float32] = np.random.default_rng(number).standard_normal((number, dimensions), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _timed_encoding(embedder: Embedder, encoder: LocalEncoder, batch_tokens: int) -> Callable[[Sequence[Item]], float]:
    """Plan and encode queries, as a run does."""

    def encode(items: Sequence[Item]) -> float:
        started = time.perf_counter()
        keyed = [(item.id, item) for item in items]
        encoder.encode(plan_chunks(embedder, keyed, "query", batch_tokens), MemorySink())
        return time.perf_counter() - started

    return encode


def _over_written_tokens(
    spec: ModelSpec, batch_tokens: int, repeats: int, sizes: Sizes, queries: Sequence[Item], note: Note
) -> Curve | NotMeasured:
    """The same queries with ever higher bounds; over the tokens that were really written, since a model may stop."""
    over = "tokens written an item"
    points: dict[float, list[float]] = {}
    keyed = [(str(place), item) for place, item in enumerate(queries)]
    for bound in (max(sizes.new_tokens), *sizes.new_tokens):
        bounded = dataclasses.replace(spec, args={**spec.args, "max_new_tokens": str(bound)}).in_modes(["always"])
        try:
            embedder = bounded.load()
        except (OptionError, UnknownNameError) as error:
            return NotMeasured(over, str(error))
        with open_encoders(embedder, bounded, 0, note) as make_encoder:
            encoder = make_encoder(batch_tokens)
            tokens, _ = _written_once(embedder, encoder, batch_tokens, keyed)  # the first time to choose, then to warm
            if len(keyed) > _WRITERS:
                keyed = [keyed[place] for place in np.argsort(-tokens, kind="stable")[:_WRITERS]]
                continue
            for _ in range(repeats):
                tokens, seconds = _written_once(embedder, encoder, batch_tokens, keyed)
                points.setdefault(float(tokens.mean()), []).append(seconds)
    return curve_of(over, f"encoding of {len(keyed)} queries", points, repeats)


def _written_once(
    embedder: Embedder, encoder: LocalEncoder, batch_tokens: int, keyed: Sequence[Keyed]
) -> tuple[NDArray[np.int64], float]:
    """Tokens written for each, and the seconds of all."""
    sink, started = MemorySink(), time.perf_counter()
    encoder.encode(plan_chunks(embedder, keyed, "query", batch_tokens), sink)
    seconds = time.perf_counter() - started
    traces = sink.get([key for key, _ in keyed]).traces
    return np.array([trace.reasoning_tokens for trace in traces], dtype=np.int64), seconds


def _curve(over: str, what: str, sizes: Sequence[int], repeats: int, once: Callable[[int], float]) -> Curve:
    for size in sizes[:2]:
        once(size)  # warm
    seconds: dict[float, list[float]] = {float(size): [] for size in sizes}
    for repeat in range(repeats):
        for size in sizes if repeat % 2 == 0 else sizes[::-1]:
            seconds[float(size)].append(once(size))
    return curve_of(over, what, seconds, repeats)


def curve_of(over: str, what: str, seconds: dict[float, list[float]], repeats: int) -> Curve:
    """From sizes and what each repeat took; a size may have been met more often than that."""
    points = tuple(Point(size, Spread.of(each), tuple(each)) for size, each in sorted(seconds.items()))
    return Curve(over, what, points, fit_power(points, repeats))


def fit_power(points: Sequence[Point], repeats: int) -> Fit | None:
    """Of the upper half of the points, at least two."""
    upper = points[min(len(points) // 2, max(0, len(points) - 2)) :]
    if len(upper) < 2:
        return None
    sizes = [point.size for point in upper]
    exponent, scale = power_law(sizes, [point.seconds.median for point in upper])
    single = [power_law(sizes, [point.each[repeat] for point in upper])[0] for repeat in range(repeats)]
    spread = Spread(exponent, min(*single, exponent), max(*single, exponent))
    return Fit(spread, scale, sizes[0], sizes[-1])


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(exponent, scale) of the straight line through the logarithms."""
    exponent, logarithm = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(exponent), float(np.exp(logarithm))


def _questions(number: int) -> list[Item]:
    """Texts alike in length, no two the same."""
    find = "Find an image that matches the given caption:"
    return [
        Item(f"question {i}", text=f"a red circle above {i:07d} small blue squares", instruction=find)
        for i in range(number)
    ]


def _videos(folder: Path, frames: int) -> list[Item]:
    """Videos of so many frames, no two frames the same."""
    asked = "Understand the content of the provided video."
    return [Item(f"video {i}", frames=tuple(_frames(folder, i, frames)), instruction=asked) for i in range(_VIDEOS)]


def _frames(folder: Path, video: int, number: int) -> Iterator[Path]:
    from PIL import Image

    for place in range(number):
        path = folder / f"video_{video}" / f"frame_{place:04d}.jpg"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", _FRAME, (60 * video, 3 * place, 255 - 3 * place)).save(path)
        yield path


def first_queries() -> list[Item]:
    """The first queries of each task of the mini suite."""
    info = describe(ensure_suite(SUITE, 0))
    return [query for task in TASKS for query in load_samples(task, info, Profile(), _QUERIES_A_TASK).queries]


@click.command(help=__doc__)
@click.option("--model", "name", default="mmemb_r1", show_default=True, help="NAME or NAME:VALUE.")
@click.option("--device", help="auto, cpu, cuda, cuda:1 …")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=DEFAULT_BATCH_TOKENS, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--workers", type=int, help="See `mmeb-eval run`.")
@click.option("--dimensions", type=click.IntRange(min=2), default=64, show_default=True, help="Of ranked vectors.")
@click.option("--output", type=click.Path(path_type=Path), default="runs/growth", show_default=True)
def main(
    name: str,
    device: str | None,
    batch_tokens: int,
    repeats: int,
    workers: int | None,
    dimensions: int,
    output: Path,
) -> None:
    from tests.benchmarks.growth_picture import draw_growth, in_words

    spec = ModelSpec(*resolve_model(name, {}), {"device": device})
    sizes, queries = Sizes(dimensions=dimensions), first_queries()
    with tempfile.TemporaryDirectory(prefix="mmeb-growth-") as folder:
        growth = measure_growth(spec, batch_tokens, repeats, workers, sizes, queries, Path(folder), click.echo)
    write_json(output / "growth.json", dataclasses.asdict(growth))
    save_pictures([draw_growth(growth)], output)
    for curve in growth.curves:
        click.echo(f"{curve.what} over {curve.over}: {in_words(curve.fit)}")
    for missing in growth.left_out:
        click.echo(f"left out: {missing.over}: {missing.why}")


if __name__ == "__main__":
    main()
