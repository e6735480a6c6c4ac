"""MMEmb-R1 as the harness sees it: items in, unit vectors and traces out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmeb_harness import EncodeResult, Item, ModelInfo, OptionError, Profile, Role, Trace, Work
from mmeb_harness.adapter.checkpoints import resolve_place
from mmeb_harness.adapter.memory import peak_device_memory
from mmemb_r1_model.checkpoint import Checkpoint, load_weights, open_checkpoint
from mmemb_r1_model.collate import Collated, Uploaded, collate
from mmemb_r1_model.items import ItemReader
from mmemb_r1_model.prompt import END_OF_TEXT, Prompt, extended
from mmemb_r1_model.settings import EMB, Settings

if TYPE_CHECKING:
    from mmemb_r1_model.engine import Embedded, Engine, Readout

Reasoning = Literal["adaptive", "always", "never"]
Graphs = Literal["auto", "on", "off"]

#: Characters of one text token, for estimates.
_CHARACTERS_PER_TOKEN = 3


def load(
    path: str | None = None,
    revision: str | None = None,
    reasoning: Reasoning = "adaptive",
    candidate_reasoning: Reasoning = "never",
    device: str = "auto",
    dtype: str = "auto",
    attention: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto",
    threshold: float | None = None,
    max_new_tokens: int | None = None,
    trust_remote_code: bool = False,
    graphs: Graphs = "auto",
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
        threshold: gate probability above which an item reasons; default: the checkpoint's.
        max_new_tokens: longest rationale; default: the checkpoint's.
        graphs: record the steps of writing once and replay them (CUDA graphs); auto: on a GPU.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: a device or dtype that is none.
    """
    checkpoint = open_checkpoint(path, revision)
    stored = checkpoint.settings
    settings = dataclasses.replace(
        stored,
        threshold=stored.threshold if threshold is None else threshold,
        max_new_tokens=stored.max_new_tokens if max_new_tokens is None else max_new_tokens,
    )
    if not 0 <= settings.threshold <= 1:
        raise OptionError(f"threshold must be between 0 and 1, not {settings.threshold}")
    if settings.max_new_tokens < 1:
        raise OptionError(f"max_new_tokens must be at least 1, not {settings.max_new_tokens}")
    modes: dict[Role, Reasoning] = {"query": reasoning, "candidate": candidate_reasoning}
    return MMEmbR1Embedder(checkpoint, settings, modes, device, dtype, attention, trust_remote_code, graphs)


def _profile(settings: Settings) -> Profile:
    """What the harness compares by. Eight frames, the benchmark's default; `mmeb-eval run --frames` shows others."""
    return Profile(
        name="mmemb_r1",
        instruction="system turn",
        candidate_instruction="the task's own",
        whitespace="kept",
        pooling="<emb>, after the final norm",
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        video_min_pixels=settings.video_min_pixels,
        video_max_pixels=settings.video_max_pixels,
    )


class MMEmbR1Embedder:
    """Loads the weights when the first item comes: what is already done needs none."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: Settings,
        modes: dict[Role, Reasoning],
        device: str,
        dtype: str,
        attention: str,
        trust_remote_code: bool,
        graphs: Graphs,
    ) -> None:
        import torch

        self._checkpoint, self._settings, self._modes = checkpoint, settings, modes
        self._items = ItemReader(checkpoint, settings)
        self._device, self._dtype = resolve_place(torch, device, dtype)
        self._attention, self._trust_remote_code, self._graphs = attention, trust_remote_code, graphs
        self._engine: Engine | None = None
        self.info = ModelInfo(
            name="mmemb_r1",
            revision=checkpoint.revision,
            dimensions=checkpoint.hidden_size,
            settings={
                "checkpoint": Path(checkpoint.name).name,
                "reasoning": modes["query"],
                "candidate_reasoning": modes["candidate"],
                "device": self._device.split(":")[0],
                "dtype": self._dtype,
                "attention": attention,
                "video_layout": "timestamp, vision_start, pads, vision_end per temporal patch",
                **dataclasses.asdict(settings),
            },
            reasons=True,
            profile=_profile(settings),
            parameters=checkpoint.parameters,
        )

    @property
    def engine(self) -> Engine:
        """The loaded model."""
        if self._engine is None:
            import torch

            from mmemb_r1_model.engine import Engine

            model = load_weights(
                self._checkpoint,
                torch.device(self._device),
                getattr(torch, self._dtype),
                self._attention,
                self._trust_remote_code,
            )
            self._engine = Engine(model, self._checkpoint.tokenizer, self._settings.max_new_tokens, self._graphs)
        return self._engine

    def warm_up(self) -> None:
        """Load the weights, and run them once: the first batch on a device pays for its set-up."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def cost(self, item: Item, role: Role) -> int:
        """Prompt tokens, estimated from the text's length and the pictures' sizes, and a share of the rationale's."""
        characters = len(item.text) + len(item.instruction) + len(self._settings.request)
        rationale = 0 if self._modes[role] == "never" else self._settings.max_new_tokens // 4
        return 24 + characters // _CHARACTERS_PER_TOKEN + self._items.visual_tokens(item) + rationale

    def prepare(self, items: Sequence[Item], role: Role) -> tuple[Collated, Role]:
        """Open, resize and tokenise; on the CPU."""
        prompts = [self.prompt(item) for item in items]
        if self._modes[role] != "always":
            prompts = [extended(prompt, [self._checkpoint.tokenizer.id_of(EMB)]) for prompt in prompts]
        return collate(prompts, pad_id=self._checkpoint.tokenizer.id_of(END_OF_TEXT)), role

    def upload(self, prepared: tuple[Collated, Role]) -> tuple[Collated | Uploaded, Role]:
        """Start the copy to a GPU; elsewhere there is nothing to do."""
        import torch

        batch, role = prepared
        device = torch.device(self._device)
        return (Uploaded.of(batch, device, getattr(torch, self._dtype)) if device.type == "cuda" else batch), role

    def encode_stream(self, prepared: Iterator[tuple[Collated | Uploaded, Role]]) -> Iterator[EncodeResult]:
        """Gate, direct or reasoned readout; rationales of several batches are written side by side."""
        first = next(prepared, None)
        if first is None:
            return
        role, threshold = first[1], self._settings.threshold
        batches = (batch for batch, _ in itertools.chain([first], prepared))
        for embedded in self.engine.stream(batches, self._modes[role], threshold):
            yield self._result(embedded)

    def encode_prepared(self, prepared: tuple[Collated | Uploaded, Role]) -> EncodeResult:
        """The same for one batch."""
        (result,) = self.encode_stream(iter([prepared]))
        return result

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same in one call."""
        return self.encode_prepared(self.prepare(items, role))

    def encode_reference(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same as papers do it: `generate` of transformers on one padded batch, then a second pass."""
        from mmemb_r1_model.reference import embed_plainly

        prompts = [self.prompt(item) for item in items]
        vectors, readouts = embed_plainly(self.engine, prompts, self._modes[role], self._settings.threshold)
        return EncodeResult(vectors.numpy(), tuple(map(_trace, readouts)))

    def _result(self, embedded: Embedded) -> EncodeResult:
        usage = embedded.usage
        decode = self.engine.costs.decode(usage.steps, usage.tokens, usage.columns)
        work = Work(
            usage.seconds,
            embedded.prompt_tokens,
            usage.tokens,
            embedded.prefill.flops,
            decode.flops,
            embedded.prefill.bytes,
            decode.bytes,
        )
        return EncodeResult(embedded.vectors_BD.numpy(), tuple(map(_trace, embedded.readouts)), work)

    def peak_device_memory(self) -> int | None:
        """See `MemoryEmbedder`."""
        import torch

        return peak_device_memory(torch, self._device)

    def prompt(self, item: Item) -> Prompt:
        """An item as tokens and patches.

        Raises:
            DataError: a picture that can't be opened or used; it is named.
        """
        return self._items.prompt(item)


def _trace(readout: Readout) -> Trace:
    return Trace(
        path="reasoned" if readout.reasoned else "direct",
        gate=readout.gate,
        rationale=readout.rationale,
        reasoning_tokens=readout.generated,
        truncated=readout.truncated,
        seconds=readout.seconds,
    )
