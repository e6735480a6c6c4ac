"""The values that flow through an evaluation: Samples → EncodeResult → ranking → TaskResult.

Frozen data only; behaviour lives in functions elsewhere. Nothing here knows a model's template or a
benchmark's file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.errors import DataError, ModelError

Vectors: TypeAlias = NDArray[np.float32]
Modality = Literal["image", "video", "visdoc"]
Role = Literal["query", "candidate"]
MetricName = Literal["hit@1", "ndcg_linear@5"]
EncodePath = Literal["direct", "reasoned"]
Scalar: TypeAlias = str | int | float | bool | None

#: "unstated": the adapter doesn't say, and nobody can compare its scores knowingly.
InstructionPlacement = Literal["unstated", "none", "system turn", "user text"]
CandidateInstruction = Literal["unstated", "none", "the task's own", "one for all"]
Whitespace = Literal["unstated", "kept", "stripped", "official"]
ShortClips = Literal["as they are", "last frame repeated"]
#: "dot": one vector an item. "max_sim": several, compared token by token (late interaction).
Similarity = Literal["dot", "max_sim"]
Quantization = Literal["none", "int8", "binary"]

MODALITIES: tuple[Modality, ...] = ("image", "video", "visdoc")

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
]


@dataclass(frozen=True, slots=True)
class Source:
    """How the benchmark's own data and code spell an item.

    Only adapters that must reproduce an official input string byte for byte look here.
    """

    layout: Layout
    instruction: str = ""  # as stored: legacy tokens and outer whitespace kept


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed: the data set's own words and media, no template and no special tokens.

    `images` and `frames` are never both set. `instruction` is ready to use: legacy media tokens and
    outer whitespace are gone; `source` keeps them.
    """

    id: str
    text: str = ""
    images: tuple[Path, ...] = ()
    frames: tuple[Path, ...] = ()
    instruction: str = ""
    source: Source = field(default=Source("basic"))

    @property
    def media(self) -> tuple[Path, ...]:
        """The item's image, or its frames in order."""
        return self.images or self.frames


@dataclass(frozen=True)
class Samples:
    """One task, read: what to embed, what to rank, and what is relevant.

    Attributes:
        queries: in the data set's order; unique ids.
        candidates: all distinct candidates in the official order; unique ids.
        gains: query id → {candidate id → relevance > 0}, in the official label order.
        pools: query id → candidate ids to rank, in official order, repeats kept; `None` if every query
            ranks all candidates.
        unanswerable: queries whose relevant candidates the data itself leaves out of the candidate set. They
            score 0, as officially, and count; any other query without its answer is refused.
        notes: what the reader defined rather than refused, e.g. {"short clips": 3}; counted in the result.

    Raises:
        DataError: if a score computed from these values would be silently wrong.
    """

    queries: tuple[Item, ...]
    candidates: tuple[Item, ...]
    gains: Mapping[str, Mapping[str, float]]
    pools: Mapping[str, tuple[str, ...]] | None = None
    unanswerable: frozenset[str] = frozenset()
    notes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.queries:
            raise DataError("no queries")
        query_ids = _unique("query", [query.id for query in self.queries])
        candidate_ids = _unique("candidate", [candidate.id for candidate in self.candidates])
        for query_id in query_ids:
            _check_gains(query_id, self.gains.get(query_id, {}), candidate_ids, query_id in self.unanswerable)
            if self.pools is not None:
                _check_pool(query_id, self.pools.get(query_id, ()), candidate_ids)
        for name, ids in (("gains", self.gains.keys()), ("pools", (self.pools or {}).keys())):
            if stray := next((key for key in ids if key not in query_ids), None):
                raise DataError(f"{name} name a query {stray!r} that does not exist")


def _unique(kind: str, ids: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise DataError(f"duplicate {kind} id {one!r}; ids must be unique within a task")
        seen.add(one)
    return seen


def _check_gains(query_id: str, relevant: Mapping[str, float], candidate_ids: set[str], unanswerable: bool) -> None:
    if not relevant:
        raise DataError(f"query {query_id!r} has no relevant candidate")
    for candidate_id, gain in relevant.items():
        if candidate_id not in candidate_ids and not unanswerable:
            raise DataError(f"query {query_id!r}: relevant candidate {candidate_id!r} is not in the candidate set")
        if not gain > 0:
            raise DataError(f"query {query_id!r}: candidate {candidate_id!r} has gain {gain}, expected > 0")


def _check_pool(query_id: str, pool: tuple[str, ...], candidate_ids: set[str]) -> None:
    if not pool:
        raise DataError(f"query {query_id!r} has an empty candidate pool")
    if missing := next((one for one in pool if one not in candidate_ids), None):
        raise DataError(f"query {query_id!r}: pool candidate {missing!r} is not in the candidate set")


@dataclass(frozen=True, slots=True)
class Frames:
    """How many saved frames a model is shown. A score is comparable only with one of equal frames.

    Attributes:
        video: of a whole video, evenly spaced, both ends included.
        clip: of a clip in moment retrieval.
        short: what happens to a video with fewer frames. The official evaluation of MMEB-V2 uses them as they
            are; later upstream code repeats the last one (HMDB51: 86.8 and 84.5 for one model).
    """

    video: int = 8
    clip: int = 8
    short: ShortClips = "as they are"


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


@dataclass(frozen=True, slots=True)
class Table:
    """An annotation table on the hub: repository, configuration (`None`: the only one) and split.

    On disk: `annotations/<owner>/<name>/<configuration or "default">/<split>.parquet`, or in shards
    `<split>-00000-of-00002.parquet`, below the data folder.
    """

    repo: str
    config: str | None
    split: str

    @property
    def folder(self) -> str:
        """Folder of its files, below the data folder."""
        return f"annotations/{self.repo}/{self.config or 'default'}"

    @property
    def patterns(self) -> tuple[str, str]:
        """Glob patterns of its files: one file, or shards."""
        return f"{self.folder}/{self.split}.parquet", f"{self.folder}/{self.split}-*-of-*.parquet"


@dataclass(frozen=True, slots=True)
class Pages:
    """A table that carries one image a row, to become a file each.

    Attributes:
        id_column, image_column: names of the columns.
        file_of: a row's id → the image's path below the data folder.
        content_of: a row's id and the stored image → the file's bytes.
    """

    table: Table
    id_column: str
    image_column: str
    file_of: Callable[[str], str]
    content_of: Callable[[str, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Archive:
    """A task's media on the hub, inside a tar archive that several tasks share.

    Attributes:
        file: regular expression that the archive's base name matches in full. Several matching files are the
            parts of one archive, in the order of their names.
        place_in: data folder, which holds the annotations by then → a function from a member's path to where
            it belongs below the data folder; `None` if it isn't this task's.
        expansion: size of all that is in it over its own size, roughly: how much room to keep.
        by_tables: which members are the task's is said by its tables: other rows, other members.
    """

    repo: str
    file: str
    place_in: Callable[[Path], Callable[[str], str | None]]
    expansion: float = 1.1
    by_tables: bool = False


HubSource: TypeAlias = Table | Pages | Archive


@dataclass(frozen=True)
class Task:
    """One evaluation task, as a value. `load` reads it from a local data folder.

    Attributes:
        name: as on the leaderboard.
        group: meta-task, e.g. "I-CLS"; a group score is the plain mean over its tasks.
        metric: the main metric.
        load: data folder, frames to show → samples; raises `DataError`, never downloads.
        annotations: glob patterns below the data folder; the files (and names of folders) decide the samples and are
            hashed into the data revision.
        num_queries: how many queries the real data has; `None` if not declared.
        num_candidates: distinct candidates (global) or candidates of a query (local), where declared.
        source: hub repository the annotations come from.
        in_distribution: "IND" or "OOD", by the benchmark's own split.
        edition: of the benchmark; "" for a task that has none.
        sources: what `mmeb-eval data get` fetches for it.
        recognise: real samples → the edition they are of, where known rows tell; `None` where they don't.
    """

    name: str
    modality: Modality
    group: str
    metric: MetricName
    load: Callable[[Path, Frames], Samples]
    annotations: tuple[str, ...] = ()
    num_queries: int | None = None
    num_candidates: int | None = None
    source: str = ""
    in_distribution: Literal["IND", "OOD"] | None = None
    edition: str = ""
    sources: tuple[HubSource, ...] = ()
    recognise: Callable[[Samples], str | None] | None = None


@dataclass(frozen=True)
class Suite:
    """Data that can be made on this machine, in the tree that the readers read."""

    name: str
    version: str
    make: Callable[[Path, int], None]  # folder, seed


@dataclass(frozen=True, slots=True)
class Trace:
    """How one vector came about.

    Attributes:
        path: whether the model wrote a rationale before it embedded.
        gate: p(reason | item) in [0, 1]; `None` if the model has no gate.
        rationale: the text it wrote.
        reasoning_tokens: generated tokens, markers included.
        truncated: the generation was ill-formed or too long and was closed by rule.
        seconds: from the start of the batch's encoding until this vector was ready; `None`: with the whole
            batch. The harness adds what preparing the batch took.
    """

    path: EncodePath = "direct"
    gate: float | None = None
    rationale: str | None = None
    reasoning_tokens: int = 0
    truncated: bool = False
    seconds: float | None = None


class TokenSequence(Protocol):
    """Several vectors an item, wherever they lie: in memory, or in files that are read as items are asked for."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, item: int, /) -> NDArray[np.floating[Any]]:
        """One item's vectors (t_item, d)."""
        ...


AnyVectors: TypeAlias = Vectors | TokenSequence


@dataclass(frozen=True, eq=False)
class TokenVectors:
    """Several unit vectors an item, of a late-interaction model: all items' vectors, one after another.

    Attributes:
        flat: (t, d), float32 or float16.
        offsets: (n + 1,), int64; item i's vectors are `flat[offsets[i]:offsets[i + 1]]`.

    Raises:
        ModelError: if the two don't fit together.
    """

    flat: NDArray[np.floating[Any]]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.flat.ndim != 2 or self.flat.dtype not in (np.float32, np.float16):
            raise ModelError(
                f"token vectors must be (t, d), float32 or float16, not {self.flat.shape} {self.flat.dtype}"
            )
        offsets = self.offsets
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) == 0:
            raise ModelError(f"offsets of token vectors must be (n + 1,) int64, not {offsets.shape} {offsets.dtype}")
        if offsets[0] != 0 or offsets[-1] != len(self.flat) or (np.diff(offsets) < 0).any():
            raise ModelError(
                f"offsets of token vectors must rise from 0 to the {len(self.flat)} vectors there are; they go from "
                f"{offsets[0]} to {offsets[-1]}"
            )

    @classmethod
    def of_items(cls, items: Sequence[NDArray[np.floating[Any]]]) -> TokenVectors:
        """From one array (t_i, d) an item; at least one item."""
        offsets = np.cumsum([0, *(len(one) for one in items)], dtype=np.int64)
        return cls(np.concatenate(items), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: int, /) -> NDArray[np.floating[Any]]:
        return self.flat[self.offsets[item] : self.offsets[item + 1]]


@dataclass(frozen=True)
class Work:
    """What an accelerator did: how long, and what it could not have done without. Adds up.

    The least that had to be computed and moved bounds the time from below: `mmeb-eval bench` holds it against the
    machine's speed.

    Attributes:
        seconds: stage ("prefill", "gate", "generate", "readout") → time on the accelerator.
        prompt_tokens: tokens of the prompts, visual ones included, padding not.
        new_tokens: tokens fed after a prompt.
        prefill_flops: floating-point operations of all prompts, the vision tower's included.
        decode_flops: the same of the tokens after them.
        prefill_bytes: least memory traffic of the prefills: the weights, once a pass.
        decode_bytes: of the steps: the weights once a step, and what of the cache each row has to read.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_flops: float = 0.0
    decode_flops: float = 0.0
    prefill_bytes: float = 0.0
    decode_bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        stages = dict.fromkeys((*self.seconds, *other.seconds))
        return Work(
            {stage: self.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0) for stage in stages},
            self.prompt_tokens + other.prompt_tokens,
            self.new_tokens + other.new_tokens,
            self.prefill_flops + other.prefill_flops,
            self.decode_flops + other.decode_flops,
            self.prefill_bytes + other.prefill_bytes,
            self.decode_bytes + other.decode_bytes,
        )


@dataclass(frozen=True)
class EncodeResult:
    """Vectors, and how each item's came about (`None`: all direct).

    One vector an item (n, d), float32 and of unit length; or several, of a model whose similarity is "max_sim".
    `work`: what the accelerator did for them, where the model counts it.
    """

    vectors: Vectors | TokenVectors
    traces: tuple[Trace, ...] | None = None
    work: Work | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What identifies a model's vectors. All of it enters run.json, and all but the parameters the fingerprint.

    Attributes:
        revision: of weights and code: a hub commit, or a hash of the weight files.
        settings: every choice that can move a vector: prompt, dtype, mode …
        reasons: whether the model can write rationales at all.
        similarity: how its vectors are compared: "dot" of one vector an item, or "max_sim" of several.
        profile: the choices by which scores are compared, in the harness's own words. Its frames are those the
            model asks for; a run may ask for others.
        parameters: how many numbers its weights are, where known.
    """

    name: str
    revision: str
    dimensions: int
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    reasons: bool = False
    profile: Profile = Profile()
    similarity: Similarity = "dot"
    parameters: int | None = None


class Embedder(Protocol):
    """A model, as the harness sees it. Implement `info` and `encode`; no base class."""

    @property
    def info(self) -> ModelInfo:
        """Identity and settings."""
        ...

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Embed `items`, in order: unit vectors, the same in whatever batch an item is."""
        ...


@runtime_checkable
class BudgetedEmbedder(Protocol):
    """An embedder that can say what an item costs and split CPU work from accelerator work.

    The harness then sorts by cost, fills batches up to a token budget and prepares batches ahead, in processes of
    their own where the model runs on an accelerator. Where a batch doesn't fit in memory (`torch.OutOfMemoryError`,
    let through), it tries again with half of the budget.
    """

    @property
    def info(self) -> ModelInfo:
        """Identity and settings."""
        ...

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """As for `Embedder`: the same as `encode_prepared(prepare(items, role))`."""
        ...

    def cost(self, item: Item, role: Role) -> int:
        """Estimated tokens of one item, generated ones included. Must be cheap: called once an item."""
        ...

    def prepare(self, items: Sequence[Item], role: Role) -> Any:
        """Read media and tokenise, on the CPU; called from another thread, or in another process.

        What it returns is pickled on its way back; numpy arrays travel without being copied. The process has an
        embedder of its own, made alike: nothing here may need the weights.
        """
        ...

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        """The accelerator's part."""
        ...


@runtime_checkable
class StreamingEmbedder(BudgetedEmbedder, Protocol):
    """An embedder that works on several batches at once: an item that is done makes room for one of a later batch."""

    def encode_stream(self, prepared: Iterator[Any]) -> Iterator[EncodeResult]:
        """The results of prepared batches of one role, one a batch, in order.

        May take further batches before it gives the first result. What comes out depends on the batches alone, not on
        how fast they come: the same batches give the same vectors, on whatever machine of a kind.
        """
        ...


@runtime_checkable
class UploadingEmbedder(BudgetedEmbedder, Protocol):
    """An embedder that can move a prepared batch to its accelerator while another one is computed there."""

    def upload(self, prepared: Any) -> Any:
        """Start the copy; called from another thread. What it returns goes to `encode_prepared` or `encode_stream`."""
        ...


@runtime_checkable
class ReferenceEmbedder(BudgetedEmbedder, Protocol):
    """An embedder that can also be used as its papers do, for `mmeb-eval bench` to compare with."""

    def encode_reference(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same as `encode`, by the library's own `generate` on one padded batch, then a pass for the vector."""
        ...


@runtime_checkable
class WarmableEmbedder(Protocol):
    """An embedder that loads its weights late."""

    def warm_up(self) -> None:
        """Load the weights and run them once. Called before the first item, outside of all timings."""
        ...


@runtime_checkable
class MemoryEmbedder(Protocol):
    """An embedder that can say how much of its accelerator's memory it takes, for `mmeb-eval bench`."""

    def peak_device_memory(self) -> int | None:
        """Bytes: the most that was in use since the last call; `None` on a CPU."""
        ...
