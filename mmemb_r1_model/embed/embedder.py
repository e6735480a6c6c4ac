"""MMEmb-R1 as the harness sees it: items in, unit vectors and traces out."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmeb_harness import MODES, EncodeResult, Item, Mode, ModelInfo, OptionError, Profile, Role
from mmeb_harness.adapter.checkpoints import resolve_place
from mmeb_harness.adapter.memory import peak_device_memory
from mmeb_harness.adapter.texts import cut_at
from mmeb_harness.adapter.uploads import Uploads
from mmemb_r1_model.model.checkpoint import Checkpoint, load_weights, open_checkpoint
from mmemb_r1_model.model.collate import Collated, Uploaded, collate
from mmemb_r1_model.model.items import MAX_TEXT_TOKENS, ItemReader
from mmemb_r1_model.model.prompt import END_OF_TEXT, Prompt, extended
from mmemb_r1_model.model.settings import EMB, LONGEST_CONTEXT, Budget, Settings, Veto
from mmemb_r1_model.vllm.server import RATIONALES, Server, check_server

if TYPE_CHECKING:
    from mmemb_r1_model.embed.engine import Engine
    from mmemb_r1_model.embed.reference import Write
    from mmemb_r1_model.embed.served import ServedEngine
    from mmemb_r1_model.vllm.client import Question

Graphs = Literal["auto", "on", "off"]
Gate = Literal["auto", "raw"]

#: Characters of one text token, for estimates.
_CHARACTERS_PER_TOKEN = 3


def load(
    path: str | None = None,
    revision: str | None = None,
    reasoning: Mode = "adaptive",
    candidate_reasoning: Mode = "never",
    device: str = "auto",
    dtype: str = "auto",
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto",
    gate: Gate = "auto",
    threshold: float | None = None,
    budget: Budget = "graded",
    veto: str | None = None,
    max_new_tokens: int | None = None,
    max_text_tokens: int | None = None,
    trust_remote_code: bool = False,
    graphs: Graphs = "auto",
    rationales: str | None = None,
    rationales_model: str | None = None,
    rationales_key_env: str | None = None,
    rationales_parallel: int = 64,
) -> MMEmbR1Embedder:
    """MMEmb-R1 on any Qwen3-VL checkpoint that has its tokens; the embedded tiny one if no path is given.

    Args:
        path: checkpoint folder or hub id.
        revision: of a hub id.
        reasoning: when queries write a rationale before they are embedded.
        candidate_reasoning: the same for candidates. Short labels gain nothing from it.
        device: auto takes a GPU if there is one.
        dtype: auto is bfloat16 on a GPU, float32 on a CPU.
        attention: of transformers; auto is its default (sdpa).
        gate: auto: calibrated, if the checkpoint has a calibration; raw: the soft-max over <think> and <emb> as it is.
        threshold: probability of that gate above which an item reasons; default: the checkpoint's for it.
        budget: of the rationales of a checkpoint whose gate is graded: short or long as the gate says (where it says
            whether to reason; long in mode always), or all of them short or long.
        veto: BOUND or BOUND:TOKENS, e.g. -1.5:4: a rationale with a token of a lower log-probability (in nats), among
            its first TOKENS if they are named, is given up, and the item embedded directly.
        max_new_tokens: longest rationale; default: the checkpoint's.
        max_text_tokens: of the prompt of an item without media; a longer text loses its end. Default: 8,192, or as many
            as the model reads.
        graphs: record the steps of writing once and replay them (CUDA graphs); auto: on a GPU.
        rationales: address of a vLLM server that serves this checkpoint and writes the rationales; by default they are
            written here.
        rationales_model: the server's name for it; by default the only one it has.
        rationales_key_env: name of the variable with the server's key.
        rationales_parallel: requests under way at once.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: a device, dtype or address that is none.
    """
    checkpoint = open_checkpoint(path, revision)
    stored = checkpoint.settings
    calibration = None if gate == "raw" else stored.calibration
    settings = dataclasses.replace(
        stored,
        calibration=calibration,
        threshold=(calibration or stored).threshold if threshold is None else threshold,
        max_new_tokens=stored.max_new_tokens if max_new_tokens is None else max_new_tokens,
    )
    if not 0 <= settings.threshold <= 1:
        raise OptionError(f"threshold must be between 0 and 1, not {settings.threshold}")
    if not 1 <= settings.max_new_tokens <= LONGEST_CONTEXT:
        raise OptionError(f"max_new_tokens must be between 1 and {LONGEST_CONTEXT}, not {settings.max_new_tokens}")
    if stored.short is None and budget != "graded":
        raise OptionError(
            f"budget {budget!r} is for a checkpoint with a graded gate, which {checkpoint.name} hasn't: leave it out, "
            "or train one with adapt.short_tokens"
        )
    if stored.short is not None and settings.max_new_tokens <= stored.short.tokens:
        raise OptionError(
            f"max_new_tokens must be above the {stored.short.tokens} of a short rationale of {checkpoint.name}, not "
            f"{settings.max_new_tokens}"
        )
    if max_text_tokens is not None and not 1 <= max_text_tokens <= checkpoint.positions:
        raise OptionError(f"max_text_tokens must be between 1 and {checkpoint.positions}, not {max_text_tokens}")
    modes: dict[Role, Mode] = {"query": _mode(reasoning), "candidate": _mode(candidate_reasoning)}
    vetoes = None if veto is None else _veto(veto, modes)
    server = None
    if rationales is not None:
        if vetoes is not None:
            raise OptionError(f"veto={veto}: a server writes whole rationales; leave out veto, or rationales")
        server = Server(rationales, rationales_model, rationales_key_env, max_parallel=rationales_parallel)
        check_server(server, RATIONALES)
    elif rationales_model is not None or rationales_key_env is not None:
        given = "rationales_model" if rationales_model is not None else "rationales_key_env"
        raise OptionError(f"{given} says how to ask a server for rationales: also give rationales=http://HOST:PORT/v1")
    place = (device, dtype, attention, trust_remote_code, graphs)
    return MMEmbR1Embedder(checkpoint, settings, modes, *place, server, max_text_tokens, budget, vetoes)


def _mode(text: str) -> Mode:
    if text not in MODES:
        raise OptionError(f"reasoning must be {', '.join(MODES)}, not {text!r}")
    return text


def _veto(text: str, modes: Mapping[Role, Mode]) -> Veto:
    bound, _, tokens = text.partition(":")
    try:
        veto = Veto(float(bound), int(tokens or 0))
    except ValueError:
        veto = Veto(math.nan)
    if not veto.bound <= 0 or veto.tokens < 0:
        raise OptionError(
            f"veto={text} must be BOUND or BOUND:TOKENS, a log-probability of at most 0 and a number of tokens: -1.5:4"
        )
    if modes["query"] != "adaptive" or modes["candidate"] == "always":
        raise OptionError(
            f"veto={text} gives rationales up for direct vectors, which only --reasoning adaptive has at hand; "
            "--candidate-reasoning may be never, too"
        )
    return veto


@dataclass(frozen=True)
class Prepared:
    """A batch, read and tokenised, perhaps on its way to a GPU.

    Attributes:
        questions: an item each, where a server writes rationales.
        left_out: of each item, see `Trace`; empty: nothing of any.
    """

    batch: Collated | Uploaded
    role: Role
    questions: tuple[Question, ...] = ()
    left_out: tuple[str, ...] = ()


class MMEmbR1Embedder:
    """Loads the weights when the first item comes: what is already done needs none."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings,
        modes: dict[Role, Mode],
        device: str,
        dtype: str,
        attention: str,
        trust_remote_code: bool,
        graphs: Graphs,
        server: Server | None = None,
        max_text_tokens: int | None = None,
        budget: Budget = "graded",
        veto: Veto | None = None,
    ) -> None:
        import torch

        self._checkpoint, self._settings, self._budget, self._veto = checkpoint, settings, budget, veto
        most = min(MAX_TEXT_TOKENS, checkpoint.positions) if max_text_tokens is None else max_text_tokens
        self._items = ItemReader(checkpoint, settings, most)
        self._device, self._dtype = resolve_place(torch, device, dtype)
        self._uploads = Uploads(torch, self._device, self._dtype)
        self._attention, self._trust_remote_code, self._graphs = attention, trust_remote_code, graphs
        self._asked, self._max_text_tokens = server, max_text_tokens
        self._engines: dict[bool, Engine] = {}  # whether it writes → it; those that `in_modes` makes have it in common
        self._set_modes([modes["query"]], modes["candidate"])

    def _set_modes(self, queries: Sequence[Mode], candidate: Mode) -> None:
        self._modes: dict[Role, tuple[Mode, ...]] = {"query": tuple(queries), "candidate": (candidate,)}
        self.infos = tuple(self._info(mode, candidate) for mode in queries)  # as `ModesEmbedder` has it
        self.info = self.infos[0]
        # Where nothing reasons, there is nothing to ask for.
        self._server = self._asked if {*queries, candidate} != {"never"} else None

    def _info(self, query: Mode, candidate: Mode) -> ModelInfo:
        checkpoint, settings, stored = self._checkpoint, self._settings, self._checkpoint.settings
        server = self._asked if {query, candidate} != {"never"} else None
        # Candidates that never reason are encoded in one way, whatever queries do.
        named = dataclasses.asdict(settings)
        del named["calibration"], named["short"]  # which are the checkpoint's own: its revision tells the numbers
        if stored.calibration is not None:
            named["gate"] = "raw" if settings.calibration is None else "calibrated"
        if settings.short is not None:
            named["budget"] = self._budget
        of_reasoning: list[str] = [name for name in ("gate", "threshold", "max_new_tokens", "budget") if name in named]
        of_reasoning += [] if server is None else ["rationales"]
        of_reasoning += [] if self._veto is None else ["veto"]
        veto = self._veto
        return ModelInfo(
            name="mmemb_r1",
            revision=checkpoint.revision,
            dimensions=checkpoint.hidden_size,
            settings={
                "checkpoint": Path(checkpoint.name).name,
                "reasoning": query,
                "candidate_reasoning": candidate,
                "device": self._device.split(":")[0],
                "dtype": self._dtype,
                "attention": self._attention,
                "video_layout": "timestamp, vision_start, pads, vision_end per temporal patch",
                **named,
                # The default is that of vectors from before there was a limit, to which no text came near.
                **({} if self._max_text_tokens is None else {"max_text_tokens": self._max_text_tokens}),
                # Its address is no part of results.
                **({} if server is None else {"rationales": "vllm"}),
                **({} if veto is None else {"veto": f"{veto.bound}" + (f":{veto.tokens}" if veto.tokens else "")}),
            },
            reasons=True,
            # Eight frames, the benchmark's default; `mmeb-eval run --frames` shows others.
            profile=Profile(
                name="mmemb_r1",
                instruction="system turn",
                candidate_instruction="the task's own",
                whitespace="kept",
                pooling="<emb>, after the final norm",
                min_pixels=settings.min_pixels,
                max_pixels=settings.max_pixels,
                video_min_pixels=settings.video_min_pixels,
                video_max_pixels=settings.video_max_pixels,
                max_text_tokens=self._items.max_text_tokens,
            ),
            parameters=checkpoint.parameters,
            state_dimensions=checkpoint.hidden_size,
            query_settings=("reasoning", *(of_reasoning if candidate == "never" else ())),
        )

    def in_modes(self, modes: Sequence[str]) -> MMEmbR1Embedder | None:
        """The same model, its weights in common, which embeds queries in these modes at once.

        Raises:
            OptionError: a mode that is none.
        """
        queries = [_mode(mode) for mode in modes]
        if len(queries) > 1 and self._veto is not None:
            return None  # the other modes can't be had with a veto, and say so
        other = copy.copy(self)
        vars(other).pop("served", None)
        other._set_modes(queries, *self._modes["candidate"])
        return other

    @property
    def engine(self) -> Engine:
        """The model with its weights, which the first call loads."""
        writes = any(set(modes) != {"never"} for modes in self._modes.values())
        if writes not in self._engines:
            self._engines[writes] = self._load_engine(writes)
        return self._engines[writes]

    def _load_engine(self, writes: bool) -> Engine:
        import torch

        model = load_weights(
            self._checkpoint,
            torch.device(self._device),
            getattr(torch, self._dtype),
            self._attention,
            self._trust_remote_code,
            writes=writes,
        )
        from mmemb_r1_model.embed.engine import Engine  # after the weights, with which transformers is imported at ease

        settings = self._settings
        return Engine(
            *(model, self._checkpoint.tokenizer, settings.max_new_tokens, self._graphs),
            calibration=settings.calibration,
            short=settings.short,
            budget=self._budget,
            veto=self._veto,
        )

    @cached_property
    def served(self) -> ServedEngine | None:
        """The same with rationales of a server, if there is one."""
        if self._server is None:
            return None
        from mmemb_r1_model.embed.served import ServedEngine
        from mmemb_r1_model.vllm.client import Client, Reader
        from mmemb_r1_model.vllm.request import ids_of

        rule, name = self.engine.rule, self.info.settings["checkpoint"]
        reader = Reader(self._checkpoint.tokenizer, rule.never, (rule.emb, rule.turn_end), str(name))
        client = Client(self._server, RATIONALES, reader, ids_of)
        return ServedEngine(self.engine, client, self._settings.planned_rationale)

    def warm_up(self) -> None:
        """Load the weights, and run them once: the first batch on a device pays for its set-up.

        Raises:
            ModelError: the server that writes rationales can't be reached, or doesn't serve this checkpoint.
        """
        item = Item("warm-up", text="warm-up")
        if self.served is not None:
            from mmemb_r1_model.vllm.request import two_frames

            self.served.check(self.prompt(item), self._question(item))
            with tempfile.TemporaryDirectory() as folder:
                clip = two_frames(Path(folder))
                self.served.learn_clips(self.prompt(clip), self._question(clip))
        self.encode([item], "query")

    def cost(self, item: Item, role: Role) -> int:
        """Prompt tokens, estimated from the text's length and the pictures' sizes, and a share of the rationale's."""
        most = _CHARACTERS_PER_TOKEN * (self._items.max_text_tokens or len(item.text))
        characters = min(len(item.text), most) + len(item.instruction) + len(self._settings.request)
        rationale = 0 if self._modes[role] == ("never",) else self._settings.planned_rationale
        return 24 + characters // _CHARACTERS_PER_TOKEN + self._items.visual_tokens(item) + rationale

    def prepare(self, items: Sequence[Item], role: Role) -> Prepared:
        """Open, resize and tokenise; on the CPU."""
        fitted = [self._items.fitted(item) for item in items]
        modes, prompts = self._modes[role], [self._items.prompt(item) for item in fitted]
        if modes != ("always",):
            prompts = [extended(prompt, [self._checkpoint.tokenizer.id_of(EMB)]) for prompt in prompts]
        asks = self._server is not None and modes != ("never",)
        questions = tuple(map(self._question, fitted)) if asks else ()
        batch = collate(prompts, pad_id=self._checkpoint.tokenizer.id_of(END_OF_TEXT))
        cut = [short is not item for short, item in zip(fitted, items, strict=True)]
        left_out = tuple(cut_at(self._items.max_text_tokens or 0) if is_cut else "" for is_cut in cut)
        return Prepared(batch, role, questions, left_out if any(cut) else ())

    def _question(self, item: Item) -> Question:
        from mmemb_r1_model.vllm.client import Question
        from mmemb_r1_model.vllm.request import chat

        return Question(item.id, chat(item, self._settings, self._checkpoint.vision.factor))

    def upload(self, prepared: Prepared) -> Prepared:
        """Start the copy to a GPU; elsewhere, or if a server has to write first, there is nothing to do."""
        waits = bool(prepared.questions) and self._modes[prepared.role] == ("always",)
        if not self._device.startswith("cuda") or waits or not isinstance(prepared.batch, Collated):
            return prepared
        uploaded = Uploaded(prepared.batch, self._uploads.start(prepared.batch.named))
        return dataclasses.replace(prepared, batch=uploaded)

    def encode_stream(self, prepared: Iterator[Prepared]) -> Iterator[EncodeResult]:
        """Gate, direct or reasoned readout; rationales of several batches are written side by side.

        Raises:
            ModelError: a server that is to write rationales doesn't.
        """
        first = next(prepared, None)
        if first is None:
            return
        modes, threshold = self._modes[first.role], self._settings.threshold
        begun: deque[tuple[str, ...]] = deque()

        def every() -> Iterator[Prepared]:
            for given in itertools.chain([first], prepared):
                begun.append(given.left_out)
                yield given

        if modes == ("never",) or self.served is None:
            results = self.engine.stream((given.batch for given in every()), modes, threshold)
        else:
            results = self.served.stream(((given.batch, given.questions) for given in every()), modes, threshold)
        for result in results:
            yield _told(result, begun.popleft())

    def encode_prepared(self, prepared: Prepared) -> EncodeResult:
        """The same for one batch."""
        (result,) = self.encode_stream(iter([prepared]))
        return result

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same in one call."""
        return self.encode_prepared(self.prepare(items, role))

    def encode_reference(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same as papers do it: `generate` of transformers on one padded batch, then a second pass."""
        return self._encode_plainly(items, role, None)

    def encode_continuously(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same by transformers' continuous batching, which takes texts alone."""
        from mmemb_r1_model.embed.reference import write_continuously

        return self._encode_plainly(items, role, write_continuously)

    def _encode_plainly(self, items: Sequence[Item], role: Role, write: Write | None) -> EncodeResult:
        from mmemb_r1_model.embed.reference import embed_plainly

        if self._veto is not None:
            raise OptionError("the plain way writes whole rationales; leave out veto")
        prompts = [self.prompt(item) for item in items]
        (mode,) = self._modes[role]
        vectors, traces = embed_plainly(self.engine, prompts, mode, self._settings.threshold, write)
        return EncodeResult(vectors.numpy(), tuple(traces))

    def with_server(self, address: str) -> MMEmbR1Embedder:
        """The same model, its weights shared, with rationales that a vLLM server writes.

        Raises:
            OptionError: an address that is none, or a model that writes none.
        """
        if set(self._modes.values()) == {("never",)}:
            raise OptionError("reasoning is never asked for, so a server has nothing to write")
        if self._veto is not None:
            raise OptionError("a server writes whole rationales; leave out veto")
        server = Server(address, None, max_parallel=64)
        check_server(server, RATIONALES)
        other = copy.copy(self)
        other._server = server
        vars(other).pop("served", None)
        return other

    def peak_device_memory(self) -> int | None:
        """Bytes that tensors took at most since the last call, as `MemoryEmbedder` asks for."""
        import torch

        return peak_device_memory(torch, self._device)

    def prompt(self, item: Item) -> Prompt:
        """An item as tokens and patches; a text that is too long without its end.

        Raises:
            DataError: a picture that can't be opened or used; it is named.
        """
        return self._items.prompt(self._items.fitted(item))


def _told(result: EncodeResult, left_out: Sequence[str]) -> EncodeResult:
    """A result whose traces say what of the items is left out."""
    if not left_out or result.traces is None:
        return result
    pairs = zip(result.traces, left_out, strict=True)
    traces = tuple(dataclasses.replace(trace, left_out=cut) for trace, cut in pairs)
    return dataclasses.replace(result, traces=traces, others=tuple(_told(other, left_out) for other in result.others))
