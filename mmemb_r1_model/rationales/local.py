"""Workers on this machine: a chat model of transformers, in batches.

Qwen3-VL is prompted by this package's own code, which needs no torchvision and lays pictures and frames out the same
way on every machine; any other image-text-to-text model by its own processor and chat template.
Legend of shapes: B rows, L tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoProcessor, LogitsProcessorList, StoppingCriteriaList, TopPLogitsWarper

from mmeb_harness.adapter.checkpoints import CheckpointFolder, find_checkpoint, resolve_place
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.weights import load_pretrained, reading_files
from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.disk.errors import HarnessError, ModelError, one_line
from mmemb_r1_model.model.checkpoint import MODEL_TYPE, Checkpoint, load_weights, open_checkpoint
from mmemb_r1_model.model.collate import collate
from mmemb_r1_model.model.items import ItemReader
from mmemb_r1_model.model.prompt import END_OF_TEXT, REQUIRED_TOKENS, TURN_END, extended
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.text import loops
from mmemb_r1_model.rationales.workers import Answer, Ask, WorkerPrompt, found_rationale, told_apart, turn

#: Of a plain Qwen3-VL: a worker needn't be an embedder.
_TOKENS = tuple(token for token in REQUIRED_TOKENS if token not in (THINK, END_THINK, EMB))
#: Generated tokens between two looks for loops. A loop that runs to the end holds up its whole batch.
LOOP_CHECK_TOKENS = 32
#: In tokens, a few of which make a word: more than the words that count as a loop afterwards.
LOOP_TOKENS = 48


class LocalWorker:
    """Loads its model at the first ask and lets it go after the last."""

    def __init__(self, config: WorkerConfig, prompt: WorkerPrompt) -> None:
        self._config, self._prompt = config, prompt

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """Answer batch after batch.

        Raises:
            ModelError: the model can't be loaded, or doesn't fit.
            DataError: a picture that can't be opened.
        """
        writer: _Writer | None = None
        waiting = iter(asks)
        try:
            while batch := list(itertools.islice(waiting, self._config.batch_size)):
                writer = writer or _load(self._config, self._prompt)
                yield from writer.write(batch)
        finally:
            # Give a GPU's memory back, before the next worker's model comes.
            del writer
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Inputs:
    """How items are laid out for a model, and what it writes is read.

    Attributes:
        end_ids: tokens that end an answer.
        banned_ids: tokens that no answer may contain: a sampled visual token crashes the next forward pass.
        encode: items → what `generate` takes, padded on the left; and whether the prompts end with <think>.
        decode: generated ids → their text, special tokens spelled out.
    """

    end_ids: list[int]
    banned_ids: list[int]
    encode: Callable[[Sequence[Item]], tuple[dict[str, Tensor], bool]]
    decode: Callable[[list[int]], str]


class _Writer:
    """A loaded model that answers batches of asks."""

    def __init__(self, config: WorkerConfig, model: Any, inputs: _Inputs) -> None:
        self._config, self._model, self._inputs = config, model, inputs

    def write(self, batch: Sequence[Ask]) -> list[Answer]:
        started = time.perf_counter()
        try:
            rows, opened, looped = self._generate(batch)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"worker {self._config.name!r}: batch_size {len(batch)} doesn't fit into memory; try "
                f"{max(1, len(batch) // 2)}, or a smaller max_new_tokens ({self._config.max_new_tokens})"
            ) from error
        seconds = (time.perf_counter() - started) / len(batch)
        return [self._answer(row, opened, loop, seconds) for row, loop in zip(rows, looped, strict=True)]

    def _generate(self, batch: Sequence[Ask]) -> tuple[list[list[int]], bool, list[bool]]:
        encoded, opened = self._inputs.encode([ask.item for ask in batch])
        device, dtype = self._model.device, self._model.dtype
        moved = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in encoded.items()
        }
        length = moved["input_ids"].shape[1]
        sampling = _Sampling(self._config, [ask.seed for ask in batch], self._inputs.banned_ids, device)
        loop_stop = _LoopStop(length, self._inputs.end_ids)
        with torch.inference_mode():
            ids_BL = self._model.generate(
                **moved,
                # The sampling is in the logits processor: its noise is a row's own, whatever batch it is in.
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._config.max_new_tokens,
                eos_token_id=self._inputs.end_ids,
                pad_token_id=self._inputs.end_ids[0],
                logits_processor=LogitsProcessorList([sampling]),
                stopping_criteria=StoppingCriteriaList([loop_stop]),
            )
        return ids_BL[:, length:].tolist(), opened, [row in loop_stop.rows for row in range(len(batch))]

    def _answer(self, ids: list[int], opened: bool, looped: bool, seconds: float) -> Answer:
        ends = set(self._inputs.end_ids)
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        # The token that ends it is kept: it may be </think>.
        content = self._inputs.decode(ids[: end + 1])
        cut = end == len(ids) and not looped
        text, finish = found_rationale(self._config.kind, content, opened, cut)
        return Answer(text, min(end + 1, len(ids)), seconds, "loop" if looped else finish)


class _Sampling:
    """Temperature, nucleus and a row's own noise on the logits: their arg-max is then a sample (Gumbel-max)."""

    def __init__(self, config: WorkerConfig, seeds: Sequence[int], banned: Sequence[int], device: torch.device) -> None:
        self._temperature = config.temperature
        self._nucleus = TopPLogitsWarper(config.top_p) if config.top_p < 1 else None
        self._banned = torch.tensor(banned, dtype=torch.long, device=device)
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores_BV = scores.float().index_fill(1, self._banned, -torch.inf)
        if self._temperature == 0:
            return scores_BV
        scores_BV = scores_BV / self._temperature
        if self._nucleus is not None:
            scores_BV = self._nucleus(input_ids, scores_BV)
        noise = [torch.empty_like(scores_BV[0]).exponential_(generator=generator) for generator in self._generators]
        return scores_BV - torch.stack(noise).clamp(min=1e-30).log()  # a 0 would make a banned token NaN


class _LoopStop:
    """Ends rows that repeat themselves."""

    def __init__(self, prompt_length: int, end_ids: Sequence[int]) -> None:
        self._prompt_length, self._ends = prompt_length, set(end_ids)
        self.rows: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Any) -> Tensor:
        generated = input_ids[:, self._prompt_length :]
        if generated.shape[1] % LOOP_CHECK_TOKENS == 0:
            for row, ids in enumerate(generated.tolist()):
                # A row that has ended is filled up with an end token: no loop.
                if ids[-1] not in self._ends and loops(ids, span=LOOP_TOKENS):
                    self.rows.add(row)
        return torch.tensor([row in self.rows for row in range(len(input_ids))], device=input_ids.device)


def _own_inputs(checkpoint: Checkpoint, config: WorkerConfig, prompt: WorkerPrompt, num_rows: int) -> _Inputs:
    """This package's own prompts and pictures."""
    tokenizer, is_thinking = checkpoint.tokenizer, config.kind == "thinking"
    reader = ItemReader(checkpoint, dataclasses.replace(checkpoint.settings, request=prompt.request))
    # As the thinking models' own template has it.
    opening = [tokenizer.id_of(THINK), *tokenizer.plain("\n")] if is_thinking else []
    ends = [tokenizer.id_of(name) for name in (TURN_END, END_OF_TEXT, *([END_THINK] if is_thinking else []))]

    def encode(items: Sequence[Item]) -> tuple[dict[str, Tensor], bool]:
        asked = [dataclasses.replace(told_apart(item), instruction=prompt.system) for item in items]
        prompts = [extended(reader.prompt(item), opening) for item in asked]
        batch = collate(prompts, tokenizer.id_of(END_OF_TEXT)).tensors()
        inputs = {"input_ids": batch.ids_BL, "attention_mask": batch.mask_BL, "mm_token_type_ids": batch.types_BL}
        return inputs | dict(batch.pixels), is_thinking

    return _Inputs(ends, tokenizer.unwritable(ends, num_rows), encode, tokenizer.decode)


def _chat_inputs(processor: Any, config: WorkerConfig, prompt: WorkerPrompt, ends: list[int]) -> _Inputs:
    """A model's own processor and chat template."""
    tokenizer, options = processor.tokenizer, _template_options(processor)
    tokenizer.padding_side = "left"
    if config.kind == "thinking" and END_THINK in tokenizer.get_vocab():
        ends = [*ends, tokenizer.convert_tokens_to_ids(END_THINK)]
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    system = {"role": "system", "content": [{"type": "text", "text": prompt.system}]}

    def messages(item: Item) -> list[dict[str, Any]]:
        asked = turn(item, prompt.request).pieces
        return [system, {"role": "user", "content": [_part(piece) for piece in asked]}]

    def encode(items: Sequence[Item]) -> tuple[dict[str, Tensor], bool]:
        inputs = processor.apply_chat_template(
            [messages(item) for item in items],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **options,
        )
        tail = tokenizer.decode(inputs["input_ids"][0, -4:].tolist())
        return dict(inputs), tail.rstrip().endswith(THINK)

    decode = partial(tokenizer.decode, skip_special_tokens=False)
    return _Inputs(ends, sorted(special.union(tokenizer.all_special_ids) - set(ends)), encode, decode)


def _part(piece: str | Path) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    return {"type": "image", "image": open_picture(piece)}


def _load(config: WorkerConfig, prompt: WorkerPrompt) -> _Writer:
    """Read the weights.

    Raises:
        ModelError: not there, not readable, or not for this device.
    """
    folder = _find_model(config)
    if folder.json("config.json").get("model_type") == MODEL_TYPE:
        markers = (THINK, END_THINK) if config.kind == "thinking" else ()
        checkpoint = open_checkpoint(config.model, config.revision, (*_TOKENS, *markers))
        model = load_weights(checkpoint, *_place(config), "auto")
        num_rows = model.get_output_embeddings().weight.shape[0]
        return _Writer(config, model, _own_inputs(checkpoint, config, prompt, num_rows))
    folder.require_safetensors()
    model, processor = _load_chat_model(folder, config)
    ends = model.generation_config.eos_token_id
    return _Writer(
        config, model, _chat_inputs(processor, config, prompt, [ends] if isinstance(ends, int) else list(ends))
    )


def _find_model(config: WorkerConfig) -> CheckpointFolder:
    try:
        folder = find_checkpoint(config.model, config.revision)
        folder.json("config.json")
    except HarnessError as error:
        if (Path(config.model).expanduser() / "config.json").exists():
            raise ModelError(f"worker {config.name!r}: {error}") from error
        raise ModelError(
            f"worker {config.name!r}: model {config.model!r} is neither a local folder nor to be had from the hub "
            f"({one_line(error)}). With a network: hf download {config.model} --local-dir FOLDER, then model: FOLDER"
        ) from error
    return folder


def _load_chat_model(folder: CheckpointFolder, config: WorkerConfig) -> tuple[Any, Any]:
    """Model and processor of any architecture that transformers knows as image-text-to-text."""
    device, dtype = resolve_place(torch, config.device, config.dtype, f"worker {config.name!r}: device")
    try:
        with reading_files(folder, "usable processor"):
            processor = AutoProcessor.from_pretrained(folder.path, local_files_only=True)
        architecture = "AutoModelForImageTextToText"
        return load_pretrained(transformers, architecture, folder, device, dtype, use_safetensors=True), processor
    except HarnessError as error:
        raise ModelError(
            f"worker {config.name!r}: {one_line(error)}. If its processor needs torchvision, serve the model with vLLM "
            "and use backend endpoint"
        ) from error


def _template_options(processor: Any) -> dict[str, Any]:
    """Padding, under the name that this release has for it; and special tokens in a text stay text, where it can."""
    known = inspect.signature(processor.apply_chat_template).parameters
    padding = {"padding": True}
    options: dict[str, Any] = {"processor_kwargs": padding} if "processor_kwargs" in known else padding
    return options | ({"sanitize_control_tokens": True} if "sanitize_control_tokens" in known else {})


def _place(config: WorkerConfig) -> tuple[torch.device, torch.dtype]:
    device, dtype = resolve_place(torch, config.device, config.dtype, f"worker {config.name!r}: device")
    return torch.device(device), getattr(torch, dtype)
