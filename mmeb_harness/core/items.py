"""Items and samples: what is embedded and ranked, and how a model is shown it. Frozen data only."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import DataError

Vectors: TypeAlias = NDArray[np.float32]


Modality = Literal["image", "video", "visdoc", "audio", "text", "tool", "gui", "memory"]


#: What an item may hold beside its text, by the name of what a model has to take.
Medium = Literal["image", "video", "audio"]


Role = Literal["query", "candidate"]


MetricName = Literal["hit@1", "ndcg_linear@5"]


Scalar: TypeAlias = str | int | float | bool | None


#: "unstated": the adapter doesn't say, and nobody can compare its scores knowingly.
InstructionPlacement = Literal["unstated", "none", "system turn", "user text"]


CandidateInstruction = Literal["unstated", "none", "the task's own", "one for all"]


Whitespace = Literal["unstated", "kept", "stripped", "official"]


ShortClips = Literal["as they are", "spread"]


#: How a page in an annotation table becomes a file: its bytes, or as the official code writes it.
PageFiles = Literal["stored", "official"]


#: "dot": one vector an item. "max_sim": several, compared token by token (late interaction).
Similarity = Literal["dot", "max_sim"]


Quantization = Literal["none", "int8", "binary"]


#: Letters of an item's text in a message.
LONGEST_BEGINNING = 40

#: Of the benchmark's tasks, in the order of its submission files.
MODALITIES: tuple[Modality, ...] = get_args(Modality)


#: Which of the benchmark's own text layouts a row goes through in the official evaluation. A fact about
#: the row; what string follows from it is the business of the adapter that reproduces a given model.
#: The rules stand in `mmeb_baselines.official_text`.
Layout = Literal[
    "bare",  # the text alone, untouched
    "basic",  # [media token +] instruction [+ space + text]
    "classification",  # image tasks: image_cls and image_i2t queries
    "question",  # image tasks: image_qa and image_i2i_vg queries
    "text_query",  # image tasks: image_t2i queries
    "dialogue_query",  # image tasks: image_t2i queries of VisDial
    "captioned",  # image tasks: image candidates of a row whose first caption is not blank
    "uncaptioned_line",  # image tasks: caption-less image_t2i candidates
    "uncaptioned",  # image tasks: caption-less image_i2i_vg candidates
    "video_question",  # video tasks: the five video QA sets
    "joined",  # instruction + space + text, stripped; a text without instruction is untouched
    "interleaved",  # a token for each picture, at its place in the text
    "sound_query",  # audio tasks: instruction [+ newline + "Query: " + text]
]


@dataclass(frozen=True, slots=True)
class Source:
    """How the benchmark's own data and code spell an item.

    Only adapters that must reproduce an official input string byte for byte look here.
    """

    layout: Layout
    instruction: str = ""  # as stored: legacy tokens and outer whitespace kept


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file, or a part of it.

    Attributes:
        start, end: seconds from the file's beginning; `end` is `None` for all that follows.
        window: seconds that are heard at most, from `start`; what is longer is cut. `None`: all.
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed: the data set's own words and media, no template and no special tokens.

    `images` and `frames` are never both set. `instruction` is ready to use: legacy media tokens and
    outer whitespace are gone; `source` keeps them.

    Attributes:
        places: offsets into `text`, rising, one an image: where in the words each of them stands. Empty: all of them
            before the text. A model that has no such places shows its pictures first.
    """

    id: str
    text: str = ""
    images: tuple[Path, ...] = ()
    frames: tuple[Path, ...] = ()
    instruction: str = ""
    source: Source = field(default=Source("basic"))
    places: tuple[int, ...] = ()
    sound: Sound | None = None

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Its images, or its frames in order."""
        return self.images or self.frames

    @property
    def media(self) -> tuple[Path, ...]:
        """The item's files: its pictures and its sound."""
        return self.pictures if self.sound is None else (*self.pictures, self.sound.path)

    @property
    def pieces(self) -> tuple[str | Path, ...]:
        """Its pictures or frames and its words, as they follow each other; no empty words."""
        pieces, told = list[str | Path](), 0
        for picture, place in zip(self.pictures, self.places or (0,) * len(self.pictures), strict=True):
            pieces += [self.text[told:place], picture]
            told = place
        return tuple(piece for piece in (*pieces, self.text[told:]) if piece)

    def between(self, before: str = "", after: str = "") -> Item:
        """The same with more words around its own; pictures keep their places among these."""
        places = tuple(place + len(before) for place in self.places)
        return dataclasses.replace(self, text=before + self.text + after, places=places)

    @property
    def kinds(self) -> frozenset[Medium]:
        """What a model has to take to see all of it, beside text."""
        held: tuple[tuple[Medium, object], ...] = (
            ("image", self.images),
            ("video", self.frames),
            ("audio", self.sound),
        )
        return frozenset(medium for medium, content in held if content)


def described(items: Sequence[Item], role: Role) -> str:
    """Which items a message is about: "query 'q17' ('What is the …')"; of several the number, and the first."""
    first = items[0] if items else Item("")
    says = " ".join(first.text.split()) or (first.media[0].name if first.media else "")
    begins = says if len(says) <= LONGEST_BEGINNING else f"{says[:LONGEST_BEGINNING]}…"
    named = f"{first.id!r} ({begins!r})"
    if len(items) == 1:
        return f"{role} {named}"
    kind = {"query": "queries", "candidate": "candidates"}[role]
    return f"{len(items)} {kind}, the first {named}" if items else f"no {kind}"


@dataclass(frozen=True)
class Samples:
    """One task, read: what to embed, what to rank, and what is relevant.

    Attributes:
        queries: in the data set's order; unique ids.
        candidates: all distinct candidates in the official order; unique ids.
        gains: query id → {candidate id → relevance > 0}, in the official label order.
        pools: query id → candidate ids to rank, in official order, repeats kept; `None` if every query
            ranks all candidates.
        incomplete: queries of which the data itself names no relevant candidate, or leaves some or all of them out of
            the candidate set. They count, as officially, and what is not there is never found; any other query
            without its answers is refused.
        notes: what the reader defined rather than refused, e.g. {"short clips": 3}; counted in the result.

    Raises:
        DataError: if a score computed from these values would be silently wrong.
    """

    queries: tuple[Item, ...]
    candidates: tuple[Item, ...]
    gains: Mapping[str, Mapping[str, float]]
    pools: Mapping[str, tuple[str, ...]] | None = None
    incomplete: frozenset[str] = frozenset()
    notes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.queries:
            raise DataError("no queries")
        _check_places((*self.queries, *self.candidates))
        query_ids = _unique("query", [query.id for query in self.queries])
        candidate_ids = _unique("candidate", [candidate.id for candidate in self.candidates])
        for query_id in query_ids:
            _check_gains(query_id, self.gains.get(query_id, {}), candidate_ids, query_id in self.incomplete)
            if self.pools is not None:
                _check_pool(query_id, self.pools.get(query_id, ()), candidate_ids)
        for name, ids in (("gains", self.gains.keys()), ("pools", (self.pools or {}).keys())):
            if stray := next((key for key in ids if key not in query_ids), None):
                raise DataError(f"{name} name a query {stray!r} that does not exist")


def _check_places(items: Iterable[Item]) -> None:
    for item in items:
        if not item.places:
            continue
        rising = all(0 <= before <= after for before, after in itertools.pairwise((0, *item.places, len(item.text))))
        if len(item.places) != len(item.images) or not rising:
            raise DataError(
                f"item {item.id!r}: places {item.places} of {len(item.images)} images in a text of {len(item.text)} "
                "letters; expected a rising one for each image"
            )


def _unique(kind: str, ids: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    for item_id in ids:
        if item_id in seen:
            raise DataError(f"duplicate {kind} id {item_id!r}; ids must be unique within a task")
        seen.add(item_id)
    return seen


#: Of larger ones 2**gain, which metrics sum, is no number.
_MOST_GAIN = 1000


def _check_gains(query_id: str, relevant: Mapping[str, float], candidate_ids: set[str], incomplete: bool) -> None:
    if not relevant and not incomplete:
        raise DataError(f"query {query_id!r} has no relevant candidate")
    for candidate_id, gain in relevant.items():
        if candidate_id not in candidate_ids and not incomplete:
            raise DataError(f"query {query_id!r}: relevant candidate {candidate_id!r} is not in the candidate set")
        if not 0 < gain <= _MOST_GAIN:
            expected = f"expected > 0, at most {_MOST_GAIN:,}"
            raise DataError(f"query {query_id!r}: candidate {candidate_id!r} has gain {gain}, {expected}")


def _check_pool(query_id: str, pool: tuple[str, ...], candidate_ids: set[str]) -> None:
    if not pool:
        raise DataError(f"query {query_id!r} has an empty candidate pool")
    if missing := next((candidate for candidate in pool if candidate not in candidate_ids), None):
        raise DataError(f"query {query_id!r}: pool candidate {missing!r} is not in the candidate set")


@dataclass(frozen=True, slots=True)
class Frames:
    """Which of the saved frames and pages a model is shown. A score is comparable only with one of equal frames.

    Attributes:
        video: of a whole video, evenly spaced, both ends included.
        clip: of a clip in moment retrieval.
        short: what happens to a video with fewer frames. The official evaluation of MMEB-V2 uses them as they
            are; that of MMEB-V3 shows as many as asked for, and repeats frames evenly: 3 as 8 are 0 0 0 0 1 1 1 2.
        pages: of documents. "official": VisRAG's that are called .jpg are JPEGs written anew, of quality 75.
    """

    video: int = 8
    clip: int = 8
    short: ShortClips = "as they are"
    pages: PageFiles = "stored"


@dataclass(frozen=True)
class Profile:
    """The choices of input and readout that move a score, by name. Stands in every result, table and comparison.

    Attributes:
        name: of the whole, e.g. that of the code it follows.
        instruction: where a query's instruction stands.
        candidate_instruction: what candidates carry.
        whitespace: of the data's texts.
        pooling: which hidden state becomes the vector.
        min_pixels, max_pixels: bounds of one image, after resizing; `None`: none, or unstated.
        video_min_pixels, video_max_pixels: the same for all frames of a video together.
        dimensions: how many of a vector's first dimensions are compared; `None`: all.
        quantization: of the vectors compared: "int8" of candidates, "binary" of both sides.
        max_text_tokens: of an item without media; what is longer is cut. `None`: as the model takes, or unstated. A
            limit that can be chosen is among the model's settings as well: fingerprints name it from there.
        audio_seconds: of a sound, from its start; what is longer is cut.
    """

    name: str = "unstated"
    instruction: InstructionPlacement = "unstated"
    candidate_instruction: CandidateInstruction = "unstated"
    whitespace: Whitespace = "unstated"
    pooling: str = "unstated"
    frames: Frames = Frames()
    min_pixels: int | None = None
    max_pixels: int | None = None
    video_min_pixels: int | None = None
    video_max_pixels: int | None = None
    dimensions: int | None = None
    quantization: Quantization = "none"
    max_text_tokens: int | None = None
    audio_seconds: float = 30.0
