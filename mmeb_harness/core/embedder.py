"""What a model is to the harness: its identity, its vectors and how they came about, the protocols it may follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import ModelError
from mmeb_harness.core.items import Item, Medium, Profile, Role, Scalar, Similarity, Vectors

if TYPE_CHECKING:
    import pyarrow as pa

EncodePath = Literal["direct", "reasoned", "vetoed"]


@dataclass(frozen=True, slots=True)
class Trace:
    """How one vector came about.

    Attributes:
        path: whether the model wrote a rationale before it embedded. vetoed: it began one, gave it up, and embedded
            without it; counted by itself, not as reasoned, though its tokens are.
        gate: p(reason | item) in [0, 1]; `None` if the model has no gate.
        rationale: the text it wrote, as far as it came; on the direct path what it read off the item's pictures, "" if
            it found nothing.
        reasoning_tokens: generated tokens, markers included.
        truncated: the generation was ill-formed or too long and was closed by rule.
        seconds: from the start of the batch's encoding until this vector was ready; `None`: with the whole
            batch. The harness adds what preparing the batch took.
        left_out: what of the item the model wasn't shown, as a plural: "texts cut at 2,048 tokens". A task's notes
            count it.
        state: (`info.state_dimensions`,) finite numbers, which the gate reads; of a query, `run --keep-states` keeps
            them as float16.
        shared: the harness says so of a query that was embedded in several modes at once: its seconds are not those
            that this mode takes alone.
    """

    path: EncodePath = "direct"
    gate: float | None = None
    rationale: str | None = None
    reasoning_tokens: int = 0
    truncated: bool = False
    seconds: float | None = None
    left_out: str = ""
    state: NDArray[np.floating[Any]] | None = field(default=None, compare=False)
    shared: bool = False


#: A column of tables in which states were kept.
STATE = "state"
#: A column of tables of which some rows are shared by several modes.
SHARED = "shared"


def state_column(states: Sequence[NDArray[np.floating[Any]] | None]) -> pa.Array:
    """States (D,) as a column of float16, null where there is none; one at least is there."""
    import pyarrow as pa

    width = next(len(state) for state in states if state is not None)
    flat = np.zeros((len(states), width), dtype=np.float16)
    for row, state in enumerate(states):
        flat[row] = 0 if state is None else state
    lacking = pa.array([state is None for state in states])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width, mask=lacking)


def trace_columns(traces: Sequence[Trace]) -> dict[str, pa.Array]:
    """Traces as columns of a table, one a field but for what is left out, states, and the seconds: a row's own are
    latency.
    """
    import pyarrow as pa

    kinds = {
        "path": pa.string(),
        "gate": pa.float64(),
        "rationale": pa.string(),
        "reasoning_tokens": pa.int64(),
        "truncated": pa.bool_(),
    }
    return {name: pa.array([getattr(trace, name) for trace in traces], kind) for name, kind in kinds.items()}


def shared_column(traces: Sequence[Trace]) -> dict[str, pa.Array]:
    """Which are shared by several modes, as a column; no column if none is."""
    import pyarrow as pa

    shared = [trace.shared for trace in traces]
    return {SHARED: pa.array(shared, pa.bool_())} if any(shared) else {}


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
        for name, array in (("flat", self.flat), ("offsets", self.offsets)):
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise ModelError(f"`{name}` of token vectors must be a numpy array, not {type(array).__name__}")
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
        """Join one array (t_i, d) an item; at least one item."""
        offsets = np.cumsum([0, *(len(vectors) for vectors in items)], dtype=np.int64)
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
    `work`: what the accelerator did for them, where the model counts it. `others`: the same queries in the
    further modes of a `ModesEmbedder`.
    """

    vectors: Vectors | TokenVectors
    traces: tuple[Trace, ...] | None = None
    work: Work | None = None
    others: tuple[EncodeResult, ...] = ()


#: The setting in which a model says when its queries reason, and what stands there.
REASONING = "reasoning"
Mode = Literal["never", "always", "adaptive"]
MODES: tuple[Mode, ...] = get_args(Mode)


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
        media: what it takes, beside text. A task that needs more is unsupported: neither read nor a failure.
        query_settings: names of settings that bear on queries alone. Vectors of candidates are shared by models that
            are otherwise equal.
        candidate_profile: of a model with `query_settings`, the profile as far as it bears on candidates; `None`: all.
        state_dimensions: how many numbers the `state` of a query's trace has; `None`: the model gives none.
    """

    name: str
    revision: str
    dimensions: int
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    reasons: bool = False
    profile: Profile = field(default=Profile())
    similarity: Similarity = "dot"
    parameters: int | None = None
    media: tuple[Medium, ...] = ("image", "video")
    query_settings: tuple[str, ...] = ()
    state_dimensions: int | None = None
    candidate_profile: Profile | None = None

    @property
    def mode(self) -> str | None:
        """When its queries reason, as far as it says so."""
        mode = self.settings.get(REASONING)
        return mode if isinstance(mode, str) else None

    @property
    def of_candidates(self) -> ModelInfo:
        """As far as the vectors of candidates depend on it."""
        settings = {name: value for name, value in self.settings.items() if name not in self.query_settings}
        profile = self.candidate_profile or self.profile
        return dataclasses.replace(self, settings=settings, query_settings=(), profile=profile, candidate_profile=None)


class Embedder(Protocol):
    """A model, as the harness sees it. Implement `info` and `encode`; no base class."""

    @property
    def info(self) -> ModelInfo:
        """What the model is called, its revision, and what it was set to."""
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
        """What the model is called, its revision, and what it was set to."""
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
        """Embed what `prepare` returned, on the accelerator."""
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
class ModesEmbedder(Protocol):
    """An embedder that can embed queries in several modes of reasoning at once, and computes once what these share.

    Its `query_settings` name "reasoning": a candidate's vector is the same in all modes.
    """

    @property
    def info(self) -> ModelInfo:
        """The first of `infos`."""
        ...

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """What the model says of itself in each of its modes: one, unless `in_modes` made it."""
        ...

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """As for `Embedder`; of queries `others` are those of the second mode and so on, equal to what each mode gives
        alone but for rounding.
        """
        ...

    def in_modes(self, modes: Sequence[str]) -> Embedder | None:
        """The same model, its weights in common, with these modes; `None`: it can't have them at once."""
        ...


def infos_of(embedder: Embedder) -> tuple[ModelInfo, ...]:
    """What a model says of itself in each mode in which it embeds queries at once."""
    return embedder.infos if isinstance(embedder, ModesEmbedder) else (embedder.info,)


def in_modes(embedder: Embedder, modes: Sequence[str | None]) -> Embedder:
    """The same model with these modes; as it is if it can't have them, or has them already.

    Raises:
        ModelError: candidates of its modes would be different ones.
    """
    if not isinstance(embedder, ModesEmbedder) or [info.mode for info in embedder.infos] == list(modes):
        return embedder
    other = embedder.in_modes([mode for mode in modes if mode is not None])
    if other is None:
        return embedder
    if len({repr(info.of_candidates) for info in (embedder.info, *infos_of(other))}) > 1:
        raise ModelError(
            f"model {embedder.info.name!r} embeds queries in several modes at once, but its candidates differ in "
            'them: name "reasoning" in the `query_settings` of its `info`, and make those of `in_modes` from it'
        )
    return other


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


@dataclass(frozen=True)
class Encoded:
    """Encoded items, in order: their vectors, how each came about, and what each took.

    Attributes:
        vectors: (n, d); or several an item.
        latency_seconds: (n,) preparing an item's batch, and encoding until its vector was ready.
        share_seconds: (n,) an item's share of the wall time its batch added; sums to the time spent encoding.
        others: the same queries in the model's further modes.
    """

    vectors: AnyVectors
    traces: tuple[Trace, ...]
    latency_seconds: np.ndarray[Any, np.dtype[np.float64]]
    share_seconds: np.ndarray[Any, np.dtype[np.float64]]
    others: tuple[Encoded, ...] = ()


#: Unit length is checked this closely: vectors normalised in bfloat16 pass, unnormalised ones don't.
UNIT_TOLERANCE = 5e-3
