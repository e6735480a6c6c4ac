"""UME-R1: Qwen2-VL that thinks and sums up before it embeds, or embeds at once.

    never  (disc): … TEXT <disc_emb>                         state at <disc_emb>, in the prompt
    always (gen):  … TEXT <disc_emb> PROMPT → … <gen_emb>    state at the last <gen_emb> that the model wrote

Source: XMUDeepLIT/UME-R1, src/eval/VLM2Vec/eval_twomode.py; its collator was read in a sibling, and in mteb's wrapper.
Published scores have both sides in one mode, gen by default.

Unlike that code:
- greedy always; there, the checkpoint's generation_config decides, which samples in the 7B.
- an answer without <gen_emb> gets one, and counts as truncated; there, its vector is that of the batch's last step,
  which may be padding.
- of the states that the steps compute anyway only the last <gen_emb>'s is kept, of every row.

A literal <gen_emb> or <disc_emb> in data stays text; there, it becomes the token.

A batch's padding can turn a near tie between two next tokens, and with it a rationale; in bfloat16 that happens. Who
wants the vectors of single items runs `--batch-tokens 1`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmeb_baselines.cards import MODELS_OF_TYPE, Card, find_pinned
from mmeb_baselines.embedder import Attention, Batch, Place
from mmeb_baselines.official_text import official_pieces
from mmeb_baselines.qwen.embedder import Family, QwenEmbedder, limited, open_embedder
from mmeb_baselines.qwen.prompt import (
    DEFAULT_SYSTEM,
    END_OF_TEXT,
    IMAGE_PAD,
    TEXT,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    Blank,
    Parts,
    Prompt,
    Recipe,
    Slot,
    between_vision_tokens,
    chat,
    pictures,
    video,
)
from mmeb_baselines.qwen.sizes import TOKEN, Resize, within
from mmeb_baselines.weights import load_weights
from mmeb_harness import EncodeResult, Item, ModelError, OptionError, Profile, Role, Trace, Work
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.texts import Template

if TYPE_CHECKING:
    from mmeb_baselines.qwen.generation import Writer, Writing
    from mmemb_r1_model.decoding import Answer

Reasoning = Literal["always", "never"]
Spelling = Literal["training", "readme"]
Graphs = Literal["auto", "on", "off"]

GEN, DISC = "<gen_emb>", "<disc_emb>"
#: What ends an answer: Qwen2-VL's own two.
STOPS = (END_OF_TEXT, "<|im_end|>")
#: What an answer can't have: the model would look for the picture.
VISUAL = (VISION_START, IMAGE_PAD, VIDEO_PAD, VISION_END)

FETCHED = within(4 * TOKEN, 16384 * TOKEN, 28)
IMAGE_SIZES: tuple[Resize, ...] = (FETCHED, within(TOKEN, 2_359_296, 28))
#: Frames: those of qwen-vl-utils 0.0.9 to 0.0.11, which treats a listed frame as an image, then transformers' own.
FRAME_SIZES: tuple[Resize, ...] = (FETCHED, within(128 * TOKEN, 768 * TOKEN, 28))
#: Shown before a text that has no picture; 56 x 56 after resizing.
WHITE = Slot((Blank(28),), False, IMAGE_SIZES)

#: The published limit. A finished answer pays nothing for it, and a lower one would cut long answers before their
#: <gen_emb>, which stands at the very end. One that never ends costs all of it, and its batch waits.
MAX_NEW_TOKENS = 8192
#: Of an ordinary rationale, to plan batches with; a guess.
_PLANNED_TOKENS = 512

_SENTENCES = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings.",
    "First output the thinking process in <think> </think> tags and then summarize the entire input in a word or "
    "sentence.",
    f"Finally, use the {GEN} tag to represent the entire input.",
)
PROMPTS: dict[Spelling, str] = {"training": " ".join(_SENTENCES), "readme": " \n".join(_SENTENCES)}

_card = functools.partial(
    Card,
    model="ume_r1",
    prompt=f"chat: user image, INSTRUCTION TEXT, {DISC} and the request to think and to write {GEN}",
    pooling=f"last {GEN} of the answer (gen) or {DISC} (disc), after the final norm",
    resolution="3,136 to 2,359,296 pixels; a text has a white image of 56 x 56",
    frames="8, as a video; 100,352 to 602,112 pixels each",
    license="apache-2.0",
    source="XMUDeepLIT/UME-R1, src/eval/VLM2Vec/eval_twomode.py; mteb, ume_r1.py",
    unsure="its collator: spelling of the request, text without a picture, bounds; version of qwen-vl-utils",
)
CARDS = (
    _card("zhibinlan/UME-R1-2B", "e7aaa253cd315be20bd15c8704ad281b4fdf82c9", 2_208_985_600, 1536),
    _card("zhibinlan/UME-R1-7B", "b5c08e3273d979e0f22445306717c39ca8d45df0", 8_291_375_616, 3584),
)
PROFILE = Profile(
    name="ume_r1",
    instruction="user text",
    candidate_instruction="the task's own",
    whitespace="stripped",
    min_pixels=4 * TOKEN,
    max_pixels=2_359_296,
)


def load(
    path: str | None = None,
    revision: str | None = None,
    reasoning: Reasoning = "always",
    candidate_reasoning: Reasoning = "always",
    max_new_tokens: int = MAX_NEW_TOKENS,
    prompt: Spelling = "training",
    max_text_tokens: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
    graphs: Graphs = "auto",
) -> UmeR1Embedder:
    """UME-R1 on Qwen2-VL 2B and 7B: embeds after a rationale (gen) or at once (disc).

    Args:
        reasoning: of queries; always: gen, never: disc.
        candidate_reasoning: the same for candidates.
        max_new_tokens: longest answer; one that has no <gen_emb> by then gets it.
        prompt: training: the request as its training data have it, on one line; readme: on three.
        max_text_tokens: of an item without media, template included; a longer text loses its end.
        graphs: record the steps of writing once and replay them (CUDA graphs); auto: on a GPU.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: another mode, device or dtype, or no tokens.
    """
    modes: dict[Role, Reasoning] = {"query": reasoning, "candidate": candidate_reasoning}
    _check(modes, max_new_tokens)
    family = Family(
        cards=CARDS,
        profile=_profile(modes, prompt),
        recipe=recipe(modes, prompt),
        positions="multimodal",
        load=_writer,
        keeps_template=True,
        settings={
            "reasoning": reasoning,
            "candidate_reasoning": candidate_reasoning,
            "max_new_tokens": max_new_tokens,
            "prompt": prompt,
            "decoding": "greedy",
            "frame_sizes": "qwen-vl-utils 0.0.11, then 100,352 to 602,112 pixels each",
        },
    )
    core = open_embedder(
        limited(family, max_text_tokens), find_pinned(CARDS, path, revision), Place(device, dtype, attention)
    )
    return UmeR1Embedder(core, modes, max_new_tokens, graphs)


def _check(modes: Mapping[Role, Reasoning], max_new_tokens: int) -> None:
    for option, mode in zip(("--reasoning", "--candidate-reasoning"), modes.values(), strict=True):
        if mode not in ("always", "never"):
            raise OptionError(f"model 'ume_r1' can't choose for itself: {option} always or never, not {mode!r}")
    if max_new_tokens < 1:
        raise OptionError(f"max_new_tokens must be at least 1, not {max_new_tokens}")


def _profile(modes: Mapping[Role, Reasoning], prompt: Spelling) -> Profile:
    name = PROFILE.name if prompt == "training" else f"{PROFILE.name} {prompt}"
    return dataclasses.replace(PROFILE, name=name, pooling=_pooled(modes))


def _pooled(modes: Mapping[Role, Reasoning]) -> str:
    tokens = [GEN if mode == "always" else DISC for mode in modes.values()]
    pooled = tokens[0] if tokens[0] == tokens[1] else f"{tokens[0]} of queries, {tokens[1]} of candidates"
    return f"{pooled}, after the final norm"


def _writer(checkpoint: CheckpointFolder, *place: str) -> Any:
    from transformers import GenerationConfig

    model = load_weights("Qwen2VLForConditionalGeneration", checkpoint, *place)
    # Whatever `Writer` and `write` don't set would come from the checkpoint's generation_config.json: penalties, too.
    model.generation_config = GenerationConfig()
    return model


def recipe(modes: Mapping[Role, Reasoning], prompt: Spelling) -> Recipe:
    """As its evaluation writes items, both sides alike."""

    def parts(item: Item, role: Role) -> Parts:
        shown = [video(item, FRAME_SIZES)] if item.frames else pictures(item, IMAGE_SIZES, white=True) or [WHITE]
        before = [*between_vision_tokens(shown), (f"{plain_text(item)}\n", Template(DISC))]
        if modes[role] == "never":
            return chat(DEFAULT_SYSTEM, before)[:-1]  # the model is causal: what follows <disc_emb> is no matter
        return chat(DEFAULT_SYSTEM, [*before, Template(f"\n{PROMPTS[prompt]}")])

    return parts


def plain_text(item: Item) -> str:
    """The official string without its media tokens, stripped; such ones in data are text, and stay."""
    return "".join(piece for piece in official_pieces(item) if not isinstance(piece, Template)).strip()


@dataclass(frozen=True)
class Question:
    """Prompts that are answered before they are embedded, and their batches, padded on the left."""

    prompts: list[Prompt]
    batches: list[Batch]


def ended(written: Sequence[int], gen: int) -> list[int]:
    """An answer up to its last <gen_emb>, whose id is `gen`."""
    return list(written[: len(written) - written[::-1].index(gen)])


class UmeR1Embedder:
    """Asks, and embeds prompt and answer; or embeds the prompt alone."""

    def __init__(
        self, core: QwenEmbedder, modes: Mapping[Role, Reasoning], max_new_tokens: int, graphs: Graphs
    ) -> None:
        self._core, self._modes, self._max_new_tokens, self._graphs = core, modes, max_new_tokens, graphs
        self._ids = _token_ids(core, (GEN, DISC, *STOPS, *VISUAL))
        of_candidates = _pooled({"query": modes["candidate"], "candidate": modes["candidate"]})
        self.info = dataclasses.replace(
            core.info,
            reasons=True,
            query_settings=("reasoning",),
            candidate_profile=dataclasses.replace(core.info.profile, pooling=of_candidates),
        )

    def warm_up(self) -> None:
        """Load the weights, and run them once; nothing is written."""
        self._core.warm_up()

    def peak_device_memory(self) -> int | None:
        return self._core.peak_device_memory()

    def cost(self, item: Item, role: Role) -> int:
        """Estimated tokens, with those of an ordinary rationale."""
        planned = min(_PLANNED_TOKENS, self._max_new_tokens) if self._modes[role] == "always" else 0
        return self._core.cost(item, role) + planned

    def prepare(self, items: Sequence[Item], role: Role) -> Question | list[Batch]:
        if self._modes[role] == "never":
            return self._core.prepare(items, role)
        prompts = self._core.form.prompts(items, role)
        return Question(prompts, self._core.form.collate(prompts, side="left"))

    def encode_stream(self, prepared: Iterator[Question | list[Batch]]) -> Iterator[EncodeResult]:
        """States at <disc_emb>, or at the <gen_emb> of answers; those of several batches are written side by side."""
        first = next(prepared, None)
        if first is None:
            return
        whole = itertools.chain([first], prepared)
        if isinstance(first, Question):
            yield from self._asked(question for question in whole if isinstance(question, Question))
        else:
            yield from (self._core.encode_prepared(batches) for batches in whole if not isinstance(batches, Question))

    def encode_prepared(self, prepared: Question | list[Batch]) -> EncodeResult:
        (result,) = self.encode_stream(iter([prepared]))
        return result

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self.encode_prepared(self.prepare(items, role))

    def encode_reference(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same by `generate` of transformers, and a pass of its own over prompt and answer."""
        from mmeb_baselines.qwen.generation import write

        prepared = self.prepare(items, role)
        if not isinstance(prepared, Question):
            return self._core.encode_prepared(prepared)
        written: dict[int, list[int]] = {}
        for batch in prepared.batches:
            written |= zip(batch.rows, write(self._core.model, batch, self._writing), strict=True)
        answers = [written[row] for row in range(len(prepared.prompts))]
        gen = self._ids[GEN]
        marked = [ids if gen in ids else [*ids, gen] for ids in answers]
        whole = [_continued(prompt, ended(ids, gen)) for prompt, ids in zip(prepared.prompts, marked, strict=True)]
        vectors = self._core.encode_prepared(self._core.form.collate(whole)).vectors
        traces = [self._trace(fed, truncated=len(fed) > len(ids)) for fed, ids in zip(marked, answers, strict=True)]
        return EncodeResult(vectors, _told(traces, prepared))

    def _asked(self, questions: Iterator[Question]) -> Iterator[EncodeResult]:
        """A question's batches go their own ways; its result is theirs together."""
        begun: deque[Question] = deque()

        def batches() -> Iterator[Batch]:
            for question in questions:
                begun.append(question)
                yield from question.batches

        results = self._writer.stream(batches())
        for written, work in results:
            question = begun.popleft()
            rows = dict(zip(question.batches[0].rows, written, strict=True))
            for batch, (more, more_work) in zip(question.batches[1:], results, strict=False):
                rows |= zip(batch.rows, more, strict=True)
                work += more_work
            yield self._result([rows[row] for row in range(len(rows))], question, work)

    def _result(self, answers: Sequence[Answer], question: Question, work: Work) -> EncodeResult:
        vectors = np.stack([answer.state.numpy() for answer in answers])
        traces = [self._trace(answer.fed, answer.truncated, answer.seconds) for answer in answers]
        return EncodeResult(vectors, _told(traces, question), work)

    @functools.cached_property
    def _writer(self) -> Writer:
        from mmeb_baselines.qwen.generation import Writer

        return Writer(self._core.model, self._writing, self._graphs)

    @property
    def _writing(self) -> Writing:
        from mmeb_baselines.qwen.generation import Writing

        stops, never = (tuple(self._ids[token] for token in tokens) for tokens in (STOPS, VISUAL))
        return Writing(self._max_new_tokens, stops, never, self._ids[GEN])

    def _trace(self, fed: Sequence[int], truncated: bool, seconds: float | None = None) -> Trace:
        rationale = self._core.form.reader.tokenizer.decode(ended(fed, self._ids[GEN])[:-1]).strip()
        return Trace("reasoned", None, rationale, len(fed), truncated, seconds)


def _told(traces: Sequence[Trace], question: Question) -> tuple[Trace, ...]:
    """Traces that say what of the items is left out."""
    pairs = zip(traces, question.prompts, strict=True)
    return tuple(dataclasses.replace(trace, left_out=prompt.left_out) for trace, prompt in pairs)


def _continued(prompt: Prompt, ids: list[int]) -> Prompt:
    return Prompt([*prompt.ids, *ids], [*prompt.types, *[TEXT] * len(ids)], prompt.images, prompt.videos)


def _token_ids(core: QwenEmbedder, tokens: Sequence[str]) -> dict[str, int]:
    known: dict[str, int] = core.form.reader.tokenizer.get_added_vocab()
    missing = [token for token in tokens if token not in known]
    if missing:
        others = ", ".join(repr(model) for model in MODELS_OF_TYPE["qwen2_vl"] if model != "ume_r1")
        raise ModelError(
            f"the tokenizer of {core.info.settings['checkpoint']} has no token {' and no '.join(missing)}: it is no "
            f"UME-R1. Other models of its architecture: {others}"
        )
    return {token: known[token] for token in tokens}
