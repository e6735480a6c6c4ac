"""ColPali and ColQwen2: a vector for each token of a page or a text, compared by MaxSim.

Source: ColPaliProcessor and ColQwen2Processor of transformers, for whose classes the `-hf` checkpoints are; the
leaderboard's profile from VLM2Vec, src/model/baseline_backbone/colpali. Both models take a picture or a text, never
both: a text beside a picture is ignored, as in MMEB-V2's evaluation, and texts among the candidates are written as
queries are. Several pictures of an item are shown one by one, and the vectors of all are compared; in the leaderboard's
profile the first one is shown, and the result counts these items.

Every token that is not padding counts, those of the prompt and of the query's augmentation included. The model's parts
are called one by one. Transformers' own `forward` of ColQwen2 has lost M-RoPE, with which it was trained (its forward
called `get_rope_index` up to 5.0; 5.24 numbers the tokens of a picture one after the other), and both divide by a
vector's length before they drop the padding, whose length may be 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.cards import Card, find_pinned, read_config
from mmeb_baselines.embedder import ONE_SHOWN, Attention, Batch, CheckpointEmbedder, Place, UploadedBatch
from mmeb_baselines.official_text import official_text
from mmeb_baselines.pictures import levels_of, pixels_of
from mmeb_baselines.qwen.model import collate
from mmeb_baselines.qwen.prompt import VISION_END, VISION_START, Parts, Reader, pictures
from mmeb_baselines.qwen.sizes import TOKEN, within
from mmeb_baselines.weights import load_weights, speller_of
from mmeb_harness import Item, ModelError, ModelInfo, Profile, Role, TokenVectors
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.pixels import PatchShape
from mmeb_harness.adapter.texts import Template
from mmeb_harness.adapter.weights import HEAD, reading_files

FrameRule = Literal["all, a picture each", "the first one"]

SIDE = 448  # of ColPali's pictures, whatever their shape
#: Of ColQwen2's pictures: 4 to 768 tokens. 768 in its training (colpali-engine 0.3.4); hub files have said 16,384.
MIN_PIXELS, MAX_PIXELS = 4 * TOKEN, 768 * TOKEN


@dataclass(frozen=True)
class Wording:
    """How texts and pictures are written.

    Attributes:
        start, prefix, end: around a text, a candidate's too; `end` holds the augmentation, tokens that stand for
            nothing and are scored as the others are.
        before, after: around a picture's tokens.
    """

    start: str
    prefix: str
    end: str
    before: str
    after: str

    def text(self, text: str) -> tuple[str, ...]:
        """A text as the model reads it."""
        return Template(self.start + self.prefix), text, Template(self.end)


#: "Question: " and one <bos>: transformers' processor, and colpali-engine up to 0.3.3 (v1.3's page names 0.2.0).
COLPALI_WORDING = Wording("<bos>", "Question: ", "<pad>" * 10 + "\n", "", "<bos>Describe the image.\n")
#: VLM2Vec's copy of colpali-engine 0.3.4: another prefix, and a second <bos>, which PaliGemmaProcessor adds.
COLPALI_LEADERBOARD_WORDING = dataclasses.replace(
    COLPALI_WORDING, prefix="Query: ", after="<bos><bos>Describe the image.\n"
)
#: "Query: ": transformers' processor, and colpali-engine 0.3.4 to 0.3.12, which wrote no newline at the end.
COLQWEN2_WORDING = Wording(
    start="",
    prefix="Query: ",
    end="<|endoftext|>" * 10 + "\n",
    before=f"<|im_start|>user\n{VISION_START}",
    after=f"{VISION_END}Describe the image.<|im_end|><|endoftext|>",
)

COLPALI_CARD = Card(
    "vidore/colpali-v1.3-hf",
    revision=None,
    parameters=None,
    dimensions=128,
    model="colpali",
    prompt='image: "Describe the image."; text: "Question: TEXT" (leaderboard: "Query: ") and 10 <pad>',
    pooling="every token, projected (MaxSim)",
    resolution="448 x 448",
    frames="own: 8, a picture each (our choice: it has no video); leaderboard: the first",
    license="gemma",
    source="transformers, ColPaliProcessor; VLM2Vec, src/model/baseline_backbone/colpali",
    published="colpali-v1.3",
    unsure="its full commit; the prefix in its training, known from colpali-engine's versions alone",
)
COLQWEN2_CARD = dataclasses.replace(
    COLPALI_CARD,
    hub_id="vidore/colqwen2-v1.0-hf",
    model="colqwen2",
    prompt='image: "Describe the image." in a user\'s turn; text: "Query: TEXT" and 10 <|endoftext|>',
    resolution="3,136 to 602,112 pixels",
    frames="8, a picture each (our choice: it has no video)",
    license="not seen (vidore/colqwen2-v1.0, of which it is the conversion: mit, on an apache-2.0 base)",
    source="transformers, ColQwen2Processor; colpali-engine 0.3.4",
    published="",
    unsure="its page on the hub",
)
CARDS = (COLPALI_CARD, COLQWEN2_CARD)

LateInteractionEmbedder: TypeAlias = CheckpointEmbedder["SheetForm"]


def load_colpali(
    path: str | None = None,
    revision: str | None = None,
    profile: Literal["own", "leaderboard"] = "own",
    query_prefix: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
) -> LateInteractionEmbedder:
    """ColPali: pages or texts, a vector a token. Takes checkpoints of transformers' own class (`-hf`).

    Args:
        profile: own: texts without instruction, every frame a picture, the vectors of all together. leaderboard: as
            behind its rows on MMEB-V2's leaderboard: the official strings, a video's first frame (so that
            `mmeb-eval check` finds clips it can't tell apart). The score files of v2.0.1 and v2.1 ran ViDoRe without
            instructions; those of v2.0.0 with them, as here.
        query_prefix: before texts; default: "Question: " (own), "Query: " (leaderboard).
    """
    family = COLPALI if profile == "own" else COLPALI_LEADERBOARD
    return _open(family, path, revision, query_prefix, Place(device, dtype, attention))


def load_colqwen2(
    path: str | None = None,
    revision: str | None = None,
    query_prefix: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
) -> LateInteractionEmbedder:
    """ColQwen2: pages or texts, a vector a token, M-RoPE. Takes checkpoints of transformers' own class (`-hf`).

    Texts without instruction; every frame of a video a picture, the vectors of all together.

    Args:
        query_prefix: before texts; default: "Query: ".
    """
    return _open(COLQWEN2, path, revision, query_prefix, Place(device, dtype, attention))


def text_alone(item: Item) -> str:
    """Neither model was trained with instructions."""
    return item.text


def official_string(item: Item) -> str:
    """VLM2Vec's string; its tokens for pictures and videos are empty for ColPali."""
    return official_text(item, image_token="", video_token="")


#: Turns sheets, items of one picture or of a text, into the model's inputs.
SheetReader: TypeAlias = "ColPaliReader | ColQwen2Reader"


@dataclass(frozen=True)
class Family:
    """One model in one profile of it.

    Attributes:
        architecture: its class in transformers.
        card: the known checkpoint. Its model is the registered name, and the `model_type` of config.json.
        text_of: what is said of an item without pictures.
        frames: which of a video are shown.
        reader: checkpoint, wording → how inputs are made.
    """

    architecture: str
    card: Card
    profile: Profile
    wording: Wording
    text_of: Callable[[Item], str]
    frames: FrameRule
    reader: Callable[[CheckpointFolder, Wording], SheetReader]


@dataclass(frozen=True)
class SheetForm:
    """Shows an item as sheets, and gives it the vectors of all their tokens."""

    family: Family
    reader: SheetReader

    def cost(self, item: Item, role: Role) -> int:
        return sum(self.reader.cost(sheet) for sheet in self._sheets(item))

    def batches(self, items: Sequence[Item], role: Role) -> list[Batch]:
        shown = [(row, sheet) for row, item in enumerate(items) for sheet in self._sheets(item)]
        lacking = [ONE_SHOWN if len(self._sheets(item)) < len(item.images) else "" for item in items]
        rows_of = [
            (batch, [shown[place][0] for place in batch.rows])
            for batch in self.reader.batches([sheet for _, sheet in shown])
        ]
        return [
            dataclasses.replace(batch, rows=rows, left_out=[lacking[row] for row in rows]) for batch, rows in rows_of
        ]

    def vectors(self, model: Any, batches: Sequence[UploadedBatch]) -> TokenVectors:
        """Every token's vector; float16 where the model runs in half precision."""
        vectors: dict[int, list[NDArray[np.floating[Any]]]] = {}
        for batch in batches:
            for row, rows_of_tokens in zip(batch.rows, token_vectors(model, batch), strict=True):
                vectors.setdefault(row, []).append(rows_of_tokens)
        return TokenVectors.of_items([np.concatenate(vectors[row]) for row in range(len(vectors))])

    def _sheets(self, item: Item) -> list[Item]:
        """What is shown of an item: its text, or its pictures one by one."""
        if not item.media:
            return [Item(item.id, self.family.text_of(item))]
        shown = item.media[:1] if self.family.frames == "the first one" else item.media
        return [Item(item.id, images=(path,)) for path in shown]


class ColPaliReader:
    """Squares of 448 pixels and their tokens, as ColPaliProcessor writes them."""

    def __init__(self, checkpoint: CheckpointFolder, wording: Wording) -> None:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        tokenizer, self._processor = _processors(SiglipImageProcessorPil, checkpoint)
        self._speller, self._pad, self._wording = speller_of(tokenizer), tokenizer.pad_token_id, wording
        self._tokens = getattr(self._processor, "image_seq_length", None) or 0
        if not self._tokens:
            raise ModelError(
                f"{checkpoint.path}: its picture settings don't say how many tokens one is (image_seq_length)"
            )
        self._picture = Template(wording.before + "<image>" * self._tokens + wording.after)

    def cost(self, sheet: Item) -> int:
        return self._tokens + 8 if sheet.images else len(sheet.text) // 3

    def batches(self, sheets: Sequence[Item]) -> list[Batch]:
        kinds = [[row for row, sheet in enumerate(sheets) if bool(sheet.images) == shown] for shown in (False, True)]
        return [self._batch(rows, [sheets[row] for row in rows]) for rows in kinds if rows]

    def _batch(self, rows: list[int], sheets: Sequence[Item]) -> Batch:
        texts = [self._picture if sheet.images else self._wording.text(sheet.text) for sheet in sheets]
        prompts = [self._speller.ids(text) for text in texts]
        longest = max(map(len, prompts))
        padded = [[*ids, *[self._pad] * (longest - len(ids))] for ids in prompts]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in prompts]
        ids = np.array(padded, dtype=np.int64)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": np.array(mask, dtype=np.int64)}
        # As the processor gives it: all of type 0, so that every token sees every other one.
        inputs["token_type_ids"] = np.zeros_like(ids)
        if shown := [open_picture(path) for sheet in sheets for path in sheet.images]:
            inputs["pixel_values"] = pixels_of(self._processor, shown)
        return Batch(rows, inputs)


class ColQwen2Reader:
    """Patches of pictures of any shape and their tokens, as ColQwen2Processor writes them."""

    def __init__(self, checkpoint: CheckpointFolder, wording: Wording) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        tokenizer, processor = _processors(Qwen2VLImageProcessorPil, checkpoint)
        text = ("vlm_config", "text_config")
        positions = checkpoint.value("config.json", *text, "max_position_embeddings", kind=int)
        sides = processor.patch_size, processor.merge_size, processor.temporal_patch_size
        shape = PatchShape(*sides, levels_of(processor))
        self._reader = Reader(tokenizer, speller_of(tokenizer), shape, positions)
        self._wording = wording
        self._steps = [within(MIN_PIXELS, MAX_PIXELS, shape.factor)]

    def cost(self, sheet: Item) -> int:
        return self._reader.cost(self._parts(sheet))

    def batches(self, sheets: Sequence[Item]) -> list[Batch]:
        prompts = [self._reader.prompt(sheet, self._parts(sheet)) for sheet in sheets]
        return collate(prompts, self._reader.tokenizer.pad_token_id, "multimodal")

    def _parts(self, sheet: Item) -> Parts:
        if not sheet.images:
            return [self._wording.text(sheet.text)]
        before, after = Template(self._wording.before), Template(self._wording.after)
        return [before, *pictures(sheet, self._steps), after]


def token_vectors(model: Any, batch: UploadedBatch) -> list[NDArray[np.floating[Any]]]:
    """The vectors (t_i, d) of each row's tokens, of unit length; float16 where the model runs in half precision."""
    import torch

    inputs = batch.inputs.ready()
    with torch.inference_mode():
        states = model.vlm(**inputs, use_cache=False).last_hidden_state  # (b, t, hidden)
        projected = model.embedding_proj_layer(states).float()  # (b, t, d)
    kind = np.float32 if states.dtype == torch.float32 else np.float16
    vectors, kept = torch.nn.functional.normalize(projected, dim=-1).cpu(), inputs["attention_mask"].bool().cpu()
    return [rows[mask].numpy().astype(kind) for rows, mask in zip(vectors, kept, strict=True)]


COLPALI = Family(
    architecture="ColPaliForRetrieval",
    card=COLPALI_CARD,
    profile=Profile(
        name="colpali",
        instruction="none",
        candidate_instruction="none",
        whitespace="kept",
        pooling="every token, projected; a text beside a picture is ignored",
        min_pixels=SIDE * SIDE,
        max_pixels=SIDE * SIDE,
    ),
    wording=COLPALI_WORDING,
    text_of=text_alone,
    frames="all, a picture each",
    reader=ColPaliReader,
)
COLPALI_LEADERBOARD = dataclasses.replace(
    COLPALI,
    profile=dataclasses.replace(
        COLPALI.profile,
        name="colpali leaderboard",
        instruction="user text",
        candidate_instruction="the task's own",
        whitespace="official",
    ),
    wording=COLPALI_LEADERBOARD_WORDING,
    text_of=official_string,
    frames="the first one",
)
COLQWEN2 = dataclasses.replace(
    COLPALI,
    architecture="ColQwen2ForRetrieval",
    card=COLQWEN2_CARD,
    profile=dataclasses.replace(COLPALI.profile, name="colqwen2", min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
    wording=COLQWEN2_WORDING,
    reader=ColQwen2Reader,
)


def _open(
    family: Family, path: str | None, revision: str | None, query_prefix: str | None, place: Place
) -> LateInteractionEmbedder:
    if query_prefix is not None:
        family = dataclasses.replace(family, wording=dataclasses.replace(family.wording, prefix=query_prefix))
    model, wording = family.card.model, family.wording
    checkpoint = find_pinned([family.card], path, revision)
    _refuse_adapter(family, checkpoint)
    info = ModelInfo(
        name=model,
        revision=checkpoint.revision,
        dimensions=int(read_config(checkpoint, model).get("embedding_dim", 128)),
        settings={"attention": place.attention, "query_prefix": wording.prefix, "frames": family.frames},
        profile=family.profile,
        similarity="max_sim",
        parameters=checkpoint.parameters,
    )
    form = SheetForm(family, family.reader(checkpoint, wording))
    return CheckpointEmbedder(checkpoint, place, form, partial(load_weights, family.architecture, unused=HEAD), info)


def _refuse_adapter(family: Family, checkpoint: CheckpointFolder) -> None:
    """colpali-engine publishes LoRA weights that only its own classes read.

    Raises:
        ModelError: this is one of them; names the checkpoint that fits.
    """
    if (checkpoint.path / "adapter_config.json").is_file():
        raise ModelError(
            f"checkpoint {checkpoint.name} holds LoRA weights for colpali-engine; model {family.card.model!r} needs "
            f"one of transformers' class {family.architecture}, e.g. {family.card.hub_id}"
        )


def _processors(picture_class: Any, checkpoint: CheckpointFolder) -> tuple[Any, Any]:
    """Tokenizer and picture processor; Pillow's, where transformers would take torchvision's if it is installed.

    Raises:
        ModelError: they are not in the folder.
    """
    from transformers import AutoTokenizer

    with reading_files(checkpoint, "usable tokenizer or picture settings"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
        return tokenizer, picture_class.from_pretrained(checkpoint.path, local_files_only=True)
