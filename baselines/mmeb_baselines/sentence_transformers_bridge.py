"""Anything that sentence-transformers 6 loads as a SentenceTransformer or MultiVectorEncoder, of text or multimodal.

    mmeb-eval run --model st:sentence-transformers/all-MiniLM-L6-v2

What a query's prompt is, in this order (sentence-transformers puts a prompt right before the text; where a model takes
chat messages it becomes the system turn; a picture alone carries none in models without chat, e.g. CLIP):

    query_prompt_name=NAME   the prompt the model saved under NAME, for every query; the item's instruction is not used
    instruction=prompt       the item's own instruction (and a space, where text follows it in one string)
    instruction=none         the model's saved `query` prompt, or nothing if it saved none; what `encode_query` does
    none of them             `prompt` if the model saved no `query` prompt or takes chat messages, else `none`: a model
                             trained with a fixed prefix keeps it

A candidate's prompt is the saved one of `document_prompt_name`, else the first of `document`, `passage` and `corpus`
that isn't empty (`encode_document` by itself stops at an empty `document`, which every model has). Its instruction is
not used. What came of it stands in the settings of the results.

One vector an item is compared by cosine, whatever similarity the model was saved with; that one is in the settings as
well. Several (late interaction: ColBERT, PyLate's models) are compared by MaxSim, and a model that was saved with
another score is refused. ColPali and ColQwen2 have adapters of their own, `colpali` and `colqwen2`: this library runs
transformers' ColQwen2 as it is, without the M-RoPE of its training.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from mmeb_baselines.sentence_transformers_kinds import ModelKind, Returned, model_kind_of, refuse_made_up_head
from mmeb_harness import (
    EncodeResult,
    Item,
    Medium,
    ModelError,
    ModelInfo,
    OptionError,
    Profile,
    Role,
    Trace,
    UnknownNameError,
)
from mmeb_harness.adapter.checkpoints import CHECKPOINT_FILES, CheckpointFolder, find_checkpoint, resolve_place
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.texts import cut_at
from mmeb_harness.adapter.weights import HEAD, loading_weights

INSTALL = "pip install 'mmeb-harness[st]'"
#: Names of saved prompts, as `encode_document` looks for them.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
#: The last one holds the settings of ColBERT's first checkpoints.
FILES = (*CHECKPOINT_FILES, "artifact.metadata")
#: Many checkpoints lack BERT's own pooler, whose output their modules don't take, and keep the head of their training.
UNUSED = ("*pooler.*", "cls.*", *HEAD)

Instruction = Literal["prompt", "none"]
_MEDIA: tuple[Medium, ...] = ("image", "video")


def load(
    path: str,
    revision: str | None = None,
    instruction: Instruction | None = None,
    query_prompt_name: str | None = None,
    document_prompt_name: str | None = None,
    max_text_tokens: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> SentenceTransformerEmbedder:
    """Any SentenceTransformer or MultiVectorEncoder, by folder or hub id.

    The weights are loaded at once: only the loaded model says how wide its vectors are, and which prompts it saved.

    Args:
        path: checkpoint folder or hub id, with its organisation.
        revision: of a hub id.
        instruction: what queries do with an item's instruction; see the module.
        query_prompt_name: a prompt that the model saved, for all queries.
        document_prompt_name: the same for candidates.
        max_text_tokens: of a text, its prompt included; what is longer loses its end. Default: the model's own.
        batch_size: items that the model is given at once.
        device: auto takes a GPU if there is one.
        dtype: auto is bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ModelError: the package is missing or too old, or the checkpoint can't be used.
        OptionError: arguments that contradict each other, or a device or dtype that is none.
        UnknownNameError: the model saved no prompt of that name.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size must be at least 1, not {batch_size}")
    if max_text_tokens is not None and max_text_tokens < 1:
        raise OptionError(f"max_text_tokens must be at least 1, not {max_text_tokens}")
    if query_prompt_name is not None and instruction == "prompt":
        raise OptionError("query_prompt_name and instruction=prompt both say what a query's prompt is; choose one")
    library = _import_library()
    checkpoint = find_checkpoint(path, revision, (*FILES, "*.py") if trust_remote_code else FILES)
    kind = model_kind_of(checkpoint)
    import torch

    place = resolve_place(torch, device, dtype)
    model = _load_weights(getattr(library, kind.name), torch, checkpoint, place, trust_remote_code)
    refuse_made_up_head(kind, model, checkpoint)
    if max_text_tokens is not None:
        model.max_seq_length = max_text_tokens
    prompts = choose_prompts(
        model.prompts, "message" in model.modalities, instruction, query_prompt_name, document_prompt_name
    )
    return SentenceTransformerEmbedder(model, kind, checkpoint, prompts, place, batch_size)


@dataclass(frozen=True)
class Prompts:
    """What is put before queries and candidates.

    Attributes:
        query: `{instruction}` in it stands for the item's own.
    """

    query: str
    document: str

    def of(self, item: Item, role: Role) -> str:
        """An item's prompt. Without an instruction there is no space for one either."""
        if role == "candidate":
            return self.document
        if "{instruction}" in self.query and not item.instruction:
            return ""
        return self.query.replace("{instruction}", item.instruction)


def choose_prompts(
    saved: dict[str, str],
    chat: bool,
    instruction: Instruction | None,
    query_prompt_name: str | None,
    document_prompt_name: str | None,
) -> Prompts:
    """What the module's docstring says.

    Args:
        saved: the model's own prompts by name.
        chat: whether the model takes messages.

    Raises:
        UnknownNameError: no saved prompt of that name.
    """
    for name in (query_prompt_name, document_prompt_name):
        if name is not None and name not in saved:
            raise UnknownNameError("saved prompt", name, saved)
    own = saved.get("query", "")
    if query_prompt_name is not None:
        query = saved[query_prompt_name]
    elif instruction == "none" or (instruction is None and own and not chat):
        query = own
    else:
        query = "{instruction}" if chat else "{instruction} "
    names = DOCUMENT_PROMPTS if document_prompt_name is None else (document_prompt_name,)
    return Prompts(query, next((saved[name] for name in names if saved.get(name)), ""))


class SentenceTransformerEmbedder:
    """A loaded model of either kind."""

    def __init__(
        self,
        model: Any,
        kind: ModelKind,
        checkpoint: CheckpointFolder,
        prompts: Prompts,
        place: tuple[str, str],
        batch_size: int,
    ) -> None:
        self._model, self._kind, self._prompts, self._batch_size = model, kind, prompts, batch_size
        self._name = f"st:{checkpoint.label}"
        self._device, self._dtype = place
        self._keeps_frames = _keeps_frames(model)
        self._tokens = _special_tokens(model)
        self.info = ModelInfo(
            name=self._name,
            revision=checkpoint.revision,
            dimensions=_width(model, self._name),
            settings={
                "query_prompt": prompts.query,
                "document_prompt": prompts.document,
                "modalities": ", ".join(model.modalities),
                "max_seq_length": model.max_seq_length,  # longer texts are cut
                "saved_similarity": str(model.similarity_fn_name),
                "device": self._device.split(":")[0],
                "dtype": self._dtype,
                **kind.settings(model),
            },
            profile=_profile(prompts, "message" in model.modalities, model.max_seq_length),
            similarity=kind.similarity,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            media=tuple(medium for medium in _MEDIA if model.supports(medium)),
        )

    def warm_up(self) -> None:
        """Run the weights once: the first batch on a device pays for its set-up."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """By `encode_query` or `encode_document`, items of one prompt and kind together.

        Raises:
            ModelError: an item of a kind that the model doesn't take, or vectors that can't be ranked.
            DataError: a picture that can't be opened.
        """
        alike: dict[tuple[str, tuple[str, ...], bool], list[int]] = {}
        for place, item in enumerate(items):
            kinds = kinds_of(item)
            self._check_kinds(item, kinds)
            # Models without chat refuse batches of several kinds; a prompt is of a whole call.
            alike.setdefault((self._prompts.of(item, role), kinds, self._spells(item)), []).append(place)
        returned_at: dict[int, Returned] = {}
        for (prompt, kinds, spells), places in alike.items():
            returned = self._encode([items[place] for place in places], role, prompt, kinds, spells)
            returned_at.update(zip(places, returned, strict=True))
        in_order = [returned_at[place] for place in range(len(items))]
        traces = tuple(Trace(left_out=self._left_out(item, role)) for item in items)
        told = traces if any(trace.left_out for trace in traces) else None
        return EncodeResult(self._kind.vectors(in_order, items, self._name, self._dtype), told)

    @property
    def library(self) -> Any:
        """The library's own model, with its weights."""
        return self._model

    def texts(self, items: Sequence[Item], role: Role) -> list[str]:
        """Items as one string each, their prompts before them: what one hands to the library's `encode`.

        Raises:
            ModelError: an item that isn't a text alone.
        """
        if strange := next((item for item in items if kinds_of(item) != ("text",)), None):
            raise ModelError(f"item {strange.id!r} has pictures, and only texts are compared here")
        return [self._prompts.of(item, role) + item.text for item in items]

    def room(self, item: Item, role: Role) -> float:
        """How many tokens of text the model reads beside an item's prompt and its own tokens; infinity: any number.

        Raises:
            ModelError: it doesn't count tokens as tokenizers of transformers do.
        """
        longest: int | None = self._model.max_seq_length
        if longest is None:
            return math.inf
        own: int = self._counting.num_special_tokens_to_add()
        return longest - own - len(self.token_spans(self._prompts.of(item, role)))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in letters.

        Raises:
            ModelError: as `room`.
        """
        spans = self._counting(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(start, end) for start, end in spans["offset_mapping"]]

    def _left_out(self, item: Item, role: Role) -> str:
        """Whether an item is a text that the model cuts; of a tokenizer that isn't fast nobody can say."""
        longest: int | None = self._model.max_seq_length
        words = self._prompts.of(item, role) + item.text
        # A token is a byte at least, and there are few around a text.
        if longest is None or item.media or len(words.encode(errors="surrogatepass")) + 8 <= longest:
            return ""
        if not getattr(getattr(self._model, "tokenizer", None), "is_fast", False):
            return ""
        return cut_at(longest) if len(self.token_spans(item.text)) > self.room(item, role) else ""

    @functools.cached_property
    def _counting(self) -> Any:
        """A tokenizer of its own: the model's is told to cut and to pad while it encodes, maybe in another thread."""
        tokenizer = getattr(self._model, "tokenizer", None)
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{self._name} has no fast tokenizer of transformers, by which a long text could be cut")
        return copy.deepcopy(tokenizer)

    def _spells(self, item: Item) -> bool:
        """Whether the item's words have the letters of a token, which are text all the same."""
        return any(token in words for token in self._tokens for words in (item.text, item.instruction))

    def _encode(
        self, items: Sequence[Item], role: Role, prompt: str, kinds: tuple[str, ...], spells: bool
    ) -> Sequence[Returned]:
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        # The frames were chosen by the harness; a processor's own sampling would choose among them again.
        kept: dict[str, Any] = {}
        if "video" in kinds and self._keeps_frames:
            kept["video"] = {"do_sample_frames": False}
        if spells and "message" in self._model.modalities:
            kept["chat_template"] = {"sanitize_control_tokens": True}
        elif spells and any(token in prompt for token in self._tokens):
            raise ModelError(
                f"{self._name} can't take item {items[0].id!r}: its text spells a token ({items[0].text[:60]!r}), and "
                f"the prompt {prompt!r} has one that is meant; this library can't tell them apart"
            )
        elif spells:
            kept["text"] = {"split_special_tokens": True}
        options: dict[str, Any] = {"processing_kwargs": kept} if kept else {}
        options |= {"batch_size": self._batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        returned: Sequence[Returned] = encode([content_of(item) for item in items], prompt=prompt, **options)
        return returned

    def _check_kinds(self, item: Item, kinds: tuple[str, ...]) -> None:
        supported = self._model.supports(kinds[0] if len(kinds) == 1 else tuple(sorted(kinds)))
        # Without chat only the first of several pictures would be seen, silently.
        if not supported or (len(item.images) > 1 and "message" not in self._model.modalities):
            shown = {"image": f"{len(item.images)} picture(s)", "video": "frames", "text": "text"}
            raise ModelError(
                f"{self._name} can't take item {item.id!r} ({' and '.join(shown[kind] for kind in kinds)}); "
                f"it can do {_tasks_it_can_do(self._model)}"
            )


def kinds_of(item: Item) -> tuple[str, ...]:
    """What an item consists of, as sentence-transformers calls it, media first."""
    media = ("image",) if item.images else ("video",) if item.frames else ()
    return (*media, "text") if item.text or not media else media


def content_of(item: Item) -> dict[str, Any]:
    """An item as a dict input, media first: the order of the keys is the order in the prompt, and moves the vector.

    Pictures are opened here (paths would be decoded by something else where torchvision is installed), and text is
    named as such: the bare string of an existing file's name would be taken for the file.

    Raises:
        DataError: a picture that can't be opened.
    """
    pictures = [open_picture(path) for path in item.media]
    values: dict[str, Any] = {
        "image": pictures[0] if len(pictures) == 1 else pictures,
        "video": pictures,
        "text": item.text,
    }
    return {kind: values[kind] for kind in kinds_of(item)}


def _tasks_it_can_do(model: Any) -> str:
    if model.supports("video"):
        kinds = "image, visual-document and video tasks"
    elif model.supports("image"):
        kinds = "image and visual-document tasks"
    else:
        return "tasks whose queries and candidates are text, of which MMEB-V2 has none"
    return kinds if model.supports(("image", "text")) else f"{kinds} whose items are text or a picture, never both"


def _special_tokens(model: Any) -> tuple[str, ...]:
    """Tokens that stand for no word, as they are spelled."""
    known = getattr(getattr(model, "tokenizer", None), "added_tokens_decoder", {})
    return tuple(str(token) for token in known.values() if token.special or str(token).startswith("<"))


def _keeps_frames(model: Any) -> bool:
    """Whether the model has a video processor that can be told to leave the frames alone."""
    return hasattr(getattr(model.processor, "video_processor", None), "do_sample_frames")


def _profile(prompts: Prompts, chat: bool, max_text_tokens: int | None) -> Profile:
    by_instruction = "{instruction}" in prompts.query
    return Profile(
        name="sentence-transformers",
        instruction=("system turn" if chat else "user text") if by_instruction else "none",
        candidate_instruction="one for all" if prompts.document else "none",
        whitespace="kept",
        pooling="the checkpoint's own modules",
        max_text_tokens=max_text_tokens,
    )


def _width(model: Any, name: str) -> int:
    width = model.get_embedding_dimension()
    if width is None:
        raise ModelError(f"{name} doesn't say how wide its vectors are; its modules lack an embedding dimension")
    return int(width)


def _import_library() -> ModuleType:
    try:
        import sentence_transformers
    except ModuleNotFoundError as error:
        raise ModelError(f"model 'st' needs {error.name}, which is not installed: {INSTALL}") from error
    if int(sentence_transformers.__version__.split(".")[0]) < 6:
        raise ModelError(
            f"model 'st' needs sentence-transformers 6, found {sentence_transformers.__version__}: {INSTALL}"
        )
    library: ModuleType = sentence_transformers
    return library


def _load_weights(
    model_class: Any,
    torch: ModuleType,
    checkpoint: CheckpointFolder,
    place: tuple[str, str],
    trust_remote_code: bool,
) -> Any:
    """The model on its device, from its folder alone.

    Raises:
        ModelError: it can't be loaded, or doesn't fit.
    """
    import transformers

    device, dtype = place
    with loading_weights(transformers, checkpoint, device, dtype, "sentence-transformers", UNUSED):
        return model_class(
            str(checkpoint.path),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
