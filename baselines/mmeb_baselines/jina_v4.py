"""jina-embeddings-v4 for retrieval: Qwen2.5-VL with the task's LoRA merged in, the mean of its states.

Source: modeling_jina_embeddings_v4.py (prompts; pooling: all tokens of a text, those between the vision tokens of a
picture) and mteb 2.26 (text and picture together: the sum of both vectors). jinaai/jina-embeddings-v4 itself keeps one
LoRA a task apart, for code of its own; what runs here is its publisher's merged checkpoint for retrieval, an ordinary
Qwen2.5-VL.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mmeb_baselines.cards import Card, find_pinned, read_config
from mmeb_baselines.embedder import Attention, Batch, CheckpointEmbedder, Place, UploadedBatch
from mmeb_baselines.qwen.embedder import Family, info_of, limited, picture_bounds, reader_of
from mmeb_baselines.qwen.model import collate, mean_of
from mmeb_baselines.qwen.prompt import VISION_END, VISION_START, Parts, Reader, Slot
from mmeb_baselines.qwen.sizes import Resize, within
from mmeb_baselines.weights import load_backbone
from mmeb_harness import Frames, Item, ModelError, Profile, Role, Scalar, Vectors
from mmeb_harness.adapter.texts import Template

PREFIXES: dict[Role, str] = {"query": "Query: ", "candidate": "Passage: "}
FACTOR = 28
MAX_LENGTH = 32768
CARDS = (
    Card(
        *("jinaai/jina-embeddings-v4-vllm-retrieval", None, None, 2048),
        model="jina_v4",
        prompt='text: "Query: TEXT" (candidates: "Passage: "); image: "Describe the image." in a user\'s turn',
        pooling="mean of a text's tokens, of a picture's between its vision tokens; both together: their sum",
        resolution="as its preprocessor_config.json says",
        frames="8, a picture each, their mean (ours: it has no video)",
        license="not seen (jina-embeddings-v4, whose retrieval task it is: cc-by-nc-4.0, by mteb 2.26)",
        matryoshka=128,
        source="modeling_jina_embeddings_v4.py; mteb 2.26, jina_models.py",
        unsure="its page on the hub: commit, licence, bounds of pictures",
    ),
)
PROFILE = Profile(
    name="jina_v4",
    instruction="none",
    candidate_instruction="none",
    whitespace="kept",
    pooling="mean of tokens, of a picture's alone",
    frames=Frames(video=8, clip=8),
)


def load(
    path: str | None = None,
    revision: str | None = None,
    max_text_tokens: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
) -> JinaEmbedder:
    """jina-embeddings-v4 for retrieval, single vectors: the merged checkpoint."""
    checkpoint = find_pinned(CARDS, path, revision)
    config = read_config(checkpoint, CARDS[0].model)
    if any(str(name).startswith("JinaEmbeddingsV4") for name in config.get("architectures") or ()):
        raise ModelError(
            f"{checkpoint.name} keeps one LoRA a task apart, for code of its own that transformers doesn't have; use "
            f"{CARDS[0].hub_id}, its publisher's own with the one for retrieval merged in"
        )
    low, high = picture_bounds(checkpoint)
    profile = dataclasses.replace(PROFILE, min_pixels=low, max_pixels=high)
    family = limited(
        Family(CARDS, profile, lambda item, role: [], "multimodal", max_length=MAX_LENGTH), max_text_tokens
    )
    place = Place(device, dtype, attention)
    settings: dict[str, Scalar] = {"mixed_input": "sum of vectors", "max_length": MAX_LENGTH, **family.settings}
    form = JinaForm(reader_of(checkpoint, family), within(low, high, FACTOR))
    info = info_of(family, checkpoint, checkpoint, place, settings)
    return CheckpointEmbedder(checkpoint, place, form, load_backbone, info)


@dataclass(frozen=True)
class JinaForm:
    """An item's text and each of its pictures are prompts of their own."""

    reader: Reader
    size: Resize

    def recipes(self, item: Item, role: Role) -> list[Parts]:
        """A text's prompt, unless pictures stand alone, then one a picture or frame."""
        texts: list[Parts] = [[PREFIXES[role] + item.text]] if item.text.strip() or not item.media else []
        opening, closing = (
            Template(f"<|im_start|>user\n{VISION_START}"),
            Template(f"{VISION_END}Describe the image.<|im_end|>\n"),
        )
        return texts + [[opening, Slot((path,), False, (self.size,)), closing] for path in item.media]

    def cost(self, item: Item, role: Role) -> int:
        return sum(self.reader.cost(parts) for parts in self.recipes(item, role))

    def batches(self, items: Sequence[Item], role: Role) -> list[Batch]:
        """Texts and pictures apart, each row by the item that it is of."""
        owned = [(place, parts) for place, item in enumerate(items) for parts in self.recipes(item, role)]
        prompts = [self.reader.prompt(items[place], parts) for place, parts in owned]
        made = collate(prompts, self.reader.tokenizer.pad_token_id, "multimodal")
        return [dataclasses.replace(batch, rows=[owned[row][0] for row in batch.rows]) for batch in made]

    def vectors(self, model: Any, batches: Sequence[UploadedBatch]) -> Vectors:
        """A text's vector plus the mean of the pictures', of unit length."""
        count = 1 + max(row for batch in batches for row in batch.rows)
        means: list[Any] = []
        for batch in batches:
            pooled = self._pooled(model, batch)
            sums, shown = np.zeros((count, pooled.shape[1]), np.float32), np.zeros(count, np.float32)
            np.add.at(sums, batch.rows, pooled)
            np.add.at(shown, batch.rows, 1.0)
            means.append(sums / np.maximum(shown, 1.0)[:, None])
        total = np.sum(means, axis=0)
        vectors: Vectors = total / np.linalg.norm(total, axis=1, keepdims=True)
        return vectors

    def _pooled(self, model: Any, batch: UploadedBatch) -> Vectors:
        import torch

        inputs = batch.inputs.ready()
        with torch.inference_mode():
            states = model.base_model(**inputs, use_cache=False).last_hidden_state
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        if "pixel_values" in inputs:
            start, end = (self.reader.tokenizer.convert_tokens_to_ids(token) for token in (VISION_START, VISION_END))
            # From the first of the two tokens to the second, both included.
            mask = ((ids == start).cumsum(1) > 0) & ((ids == end).cumsum(1) - (ids == end).int() == 0) & (mask > 0)
        return mean_of(states, mask)


JinaEmbedder: TypeAlias = CheckpointEmbedder[JinaForm]
