"""CLIP, SigLIP and SigLIP 2: one encoder for texts, one for pictures, nothing that sees both.

Mixed input follows MMEB's convention: raw picture features plus raw text features, normalised once, after the sum
(VLM2Vec at 358bb43, evaluation/eval_clip.py and eval_siglip.py with embedding_type=multimodal; mteb's wrappers add
them in the same way). Whichever encoder has the larger norm dominates.

Several pictures, or the frames of a video: the mean of their raw features. That is our choice; neither MMEB-V2's
code nor the models' own has a path for videos.

The instruction is left out by default. These encoders never saw one ("without any task instruction", arXiv 2410.05160),
and it would take its share of the 77 or 64 tokens. `instruction=text` writes it before the text, as the strings of
MMEB's first edition have it, which eval_clip.py encodes as they are. Either way an item that has neither text nor media
is embedded as its instruction, or as the empty string. Two quirks of that script aren't copied: the token <|image_1|>
in its texts, and an empty text that counts as soon as another item of the batch has one.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.cards import Card, find_pinned, read_config
from mmeb_baselines.embedder import Batch, CheckpointEmbedder, Place, UploadedBatch
from mmeb_baselines.pictures import pixels_of
from mmeb_baselines.weights import load_weights
from mmeb_harness import Item, ModelError, ModelInfo, Profile, Role, Vectors
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.pixels import Pixels
from mmeb_harness.adapter.texts import cut_at
from mmeb_harness.adapter.uploads import Upload
from mmeb_harness.adapter.weights import reading_files

if TYPE_CHECKING:
    import torch

Instruction = Literal["none", "text"]


def _siglip(hub_id: str, revision: str, parameters: int, dimensions: int, side: int) -> Card:
    return Card(
        *(hub_id, revision, parameters, dimensions),
        model="siglip",
        prompt="the text alone",
        pooling="last position of the text, attention pooling of the patches",
        resolution=f"squashed to {side} x {side}",
        frames="mean of the frames' features (ours)",
        license="apache-2.0",
        source="mteb 2.26 (revision, parameters, width); sizes and pooling: transformers 5.24",
    )


#: The first card of a model is what its `path` defaults to.
SIGLIP_CARDS = (
    _siglip("google/siglip2-so400m-patch16-384", "dd658faac399427308559e2c3ac1e99cbe43845d", 1_136_039_602, 1152, 384),
    _siglip("google/siglip2-so400m-patch16-512", "ceea1cba8130d8271436da4828633198c176a775", 1_136_555_698, 1152, 512),
    _siglip("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", 375_187_970, 768, 224),
    _siglip("google/siglip-so400m-patch14-384", "9fdffc58afc957d1a03a25b10dba0329ab15c2a3", 877_960_498, 1152, 384),
    _siglip("google/siglip-base-patch16-224", "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed", 203_155_970, 768, 224),
)
CLIP_CARD = dataclasses.replace(
    SIGLIP_CARDS[0],
    hub_id="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    parameters=427_616_513,
    dimensions=768,
    model="clip",
    pooling="end token and class token, projected",
    resolution="shortest side to 224, centre crop 224 x 224",
    license="not stated on the hub",
    unsure="whether the MIT licence of the code (openai/CLIP) covers the weights",
)
CARDS = (CLIP_CARD, *SIGLIP_CARDS)


@dataclass(frozen=True)
class TextRules:
    """How a family's texts become tokens.

    Attributes:
        lower_case: before tokenising, where the tokenizer doesn't see to it.
        padding: "max_length" where pads are part of the input.
        inputs: what the text encoder is given.
        files: of these groups of files, one must be there. transformers makes an empty tokenizer of a folder
            without any, and says nothing.
    """

    lower_case: bool
    padding: Literal["longest", "max_length"]
    inputs: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]


CLIP = TextRules(
    lower_case=False,  # its tokenizer does
    padding="longest",
    inputs=("input_ids", "attention_mask"),
    files=(("tokenizer.json",), ("vocab.json", "merges.txt")),
)

#: What transformers' SiglipTokenizer needs.
_SIGLIP_1_PACKAGES = ("sentencepiece", "protobuf")

#: Trained on lower-case text, padded to the full length, without a mask: the state at the last position, a pad as a
#: rule, is the vector (big_vision issue 187, open_clip issue 984, transformers' modeling_siglip.py). SigLIP 2's
#: checkpoints name Gemma's tokenizer, which keeps capitals and pads on the left unless told otherwise.
SIGLIP = TextRules(
    lower_case=True,
    padding="max_length",
    inputs=("input_ids",),
    files=(("tokenizer.json",), ("spiece.model",)),
)


def load_clip(
    path: str = "openai/clip-vit-large-patch14",
    revision: str | None = None,
    instruction: Instruction = "none",
    device: str = "auto",
    dtype: str = "auto",
) -> DualEncoder:
    """CLIP: text and picture features, added for mixed input.

    Args:
        path: checkpoint folder or hub id.
        revision: of a hub id; default: the one of its card.
        instruction: none leaves it out, text writes it before the text.
        device: auto takes a GPU if there is one.
        dtype: auto is bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ModelError: the checkpoint can't be used.
        OptionError: a device or dtype that is none.
    """
    return _open(CLIP_CARD, CLIP, path, revision, instruction, Place(device, dtype))


def load_siglip(
    path: str = "google/siglip2-so400m-patch16-384",
    revision: str | None = None,
    instruction: Instruction = "none",
    device: str = "auto",
    dtype: str = "auto",
) -> DualEncoder:
    """SigLIP and SigLIP 2: text and picture features, added for mixed input.

    Arguments and errors are those of `load_clip`. SigLIP 1's tokenizer needs the package sentencepiece.
    """
    return _open(SIGLIP_CARDS[0], SIGLIP, path, revision, instruction, Place(device, dtype))


#: Both towers with their projections; the scale of their products ranks nothing.
_load = partial(load_weights, "AutoModel", unused=("logit_scale", "logit_bias"))


def _open(
    card: Card, rules: TextRules, path: str, revision: str | None, instruction: Instruction, place: Place
) -> DualEncoder:
    checkpoint, without = find_pinned(CARDS, path, revision), instruction == "none"
    read_config(checkpoint, card.model)
    checkpoint.require_safetensors()
    reader = InputReader(checkpoint, rules)
    sizes = reader.sizes
    info = ModelInfo(
        name=card.model,
        revision=checkpoint.revision,
        dimensions=sizes.dimensions,
        settings={
            "instruction": instruction,
            "text_tokens": sizes.text_tokens,
            "text_padding": rules.padding,
            "lower_case": rules.lower_case,
            "mixed_input": "sum of raw features, then normalised",
            "several_pictures": "mean of raw features",
        },
        parameters=checkpoint.parameters,
        profile=Profile(
            name=f"{card.model}: text plus mean of pictures or frames",
            instruction="none" if without else "user text",
            candidate_instruction="none" if without else "the task's own",
            whitespace="kept",
            pooling=card.pooling,
            min_pixels=sizes.min_pixels,
            max_pixels=sizes.max_pixels,
            max_text_tokens=sizes.text_tokens,
        ),
    )
    return CheckpointEmbedder(checkpoint, place, DualForm(reader, instruction), _load, info)


@dataclass(frozen=True)
class DualForm:
    """Texts and pictures apart; an item's features of both brought together."""

    reader: InputReader
    instruction: Instruction

    def cost(self, item: Item, role: Role) -> int:
        """Tokens of the text at its limit, and patches of every picture."""
        sizes = self.reader.sizes
        return sizes.text_tokens + len(item.media) * sizes.picture_tokens

    def batches(self, items: Sequence[Item], role: Role) -> list[Batch]:
        texts = {row: text for row, item in enumerate(items) if (text := self.text(item)) is not None}
        pictures = [(row, path) for row, item in enumerate(items) for path in item.media]
        batches = []
        if texts:
            cut = cut_at(self.reader.sizes.text_tokens)
            left_out = [cut if self.reader.is_cut(text) else "" for text in texts.values()]
            batches.append(Batch(list(texts), self.reader.tokens(list(texts.values())), left_out))
        if pictures:
            batches.append(Batch([row for row, _ in pictures], self.reader.pixels([path for _, path in pictures])))
        return batches

    def text(self, item: Item) -> str | None:
        """What the text encoder reads; `None`: the item has media, and nothing to read.

        Without text and media it is the instruction, so that every item gets a vector.
        """
        parts = (item.instruction, item.text) if self.instruction == "text" else (item.text,)
        text = " ".join(part for part in parts if part.strip())
        if text or item.media:
            return text or None
        return item.instruction

    def vectors(self, model: Any, batches: Sequence[UploadedBatch]) -> Vectors:
        """(n, d): the sum of a text's features and the mean of the pictures', normalised at the end."""
        import torch

        size = 1 + max(row for batch in batches for row in batch.rows)
        with torch.inference_mode():
            means = [_mean_of_each_item(_features(model, batch.inputs), batch.rows, size) for batch in batches]
            vectors = torch.nn.functional.normalize(torch.stack(means).sum(dim=0), dim=-1)
        features: Vectors = vectors.cpu().numpy()
        return features


DualEncoder: TypeAlias = CheckpointEmbedder[DualForm]


@dataclass(frozen=True)
class Sizes:
    """What a checkpoint's configuration says of its inputs and vectors.

    Attributes:
        text_tokens: most that the text encoder reads.
        picture_tokens: most patches of one picture.
        min_pixels, max_pixels: of one picture, resized; equal where all become one size.
    """

    dimensions: int
    text_tokens: int
    picture_tokens: int
    min_pixels: int | None
    max_pixels: int


class InputReader:
    """A checkpoint's tokenizer and picture processor."""

    def __init__(self, checkpoint: CheckpointFolder, rules: TextRules) -> None:
        """Read them; the weights aren't touched.

        Raises:
            ModelError: a file or package that they need is missing.
        """
        _require_tokenizer(checkpoint, rules)
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

        self._rules = rules
        with reading_files(checkpoint, "usable tokenizer or picture settings"):
            config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
            # With torchvision in the environment the default would be another one, with slightly other pixels.
            self._processor = AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil", local_files_only=True)
            self.sizes = _sizes(config, self._processor)

    def tokens(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Texts, truncated to what the encoder can read; its end token stays."""
        tokens = self._tokenizer(
            list(map(self._lowered, texts)),
            padding=self._rules.padding,
            padding_side="right",
            truncation=True,
            max_length=self.sizes.text_tokens,
            split_special_tokens=True,  # what a text spells stays text
            return_tensors="np",
        )
        return {name: tokens[name] for name in self._rules.inputs}

    def is_cut(self, text: str) -> bool:
        """Whether `tokens` leaves the end of a text out."""
        # A token is a byte at least, and there are few around a text.
        if len(text.encode(errors="surrogatepass")) + 8 <= self.sizes.text_tokens:
            return False
        tokens = self._tokenizer(self._lowered(text), split_special_tokens=True, verbose=False)
        return len(tokens["input_ids"]) > self.sizes.text_tokens

    def _lowered(self, text: str) -> str:
        return text.lower() if self._rules.lower_case else text

    def pixels(self, paths: Sequence[Path]) -> dict[str, NDArray[Any] | Pixels]:
        """Pictures in RGB: a grey one would be refused."""
        pictures = [open_picture(path) for path in paths]
        if "pixel_attention_mask" in self._processor.model_input_names:
            # NaFlex: what it fills a picture's patches up with is a 0 among the numbers, for which no byte stands.
            return dict(self._processor(images=pictures, return_tensors="np"))
        return {"pixel_values": pixels_of(self._processor, pictures)}


def _sizes(config: Any, processor: Any) -> Sizes:
    vision, text_tokens = config.vision_config, int(config.text_config.max_position_embeddings)
    width = int(config.projection_dim if config.model_type == "clip" else config.text_config.projection_size)
    patch_side = int(vision.patch_size)
    if config.model_type == "siglip2":  # NaFlex: a picture keeps its shape, and is fitted into so many patches
        patches = int(processor.max_num_patches)
        return Sizes(width, text_tokens, patches, None, patches * patch_side**2)
    side = int(vision.image_size)
    return Sizes(width, text_tokens, (side // patch_side) ** 2, side**2, side**2)


def _features(model: Any, upload: Upload) -> torch.Tensor:
    """Raw features of texts, or of pictures, a row each."""
    inputs = upload.ready()
    encode = model.get_image_features if "pixel_values" in inputs else model.get_text_features
    features: torch.Tensor = encode(**inputs).pooler_output
    return features


def _mean_of_each_item(features: torch.Tensor, owners: Sequence[int], size: int) -> torch.Tensor:
    """Mean of the rows that belong to an item, in float32, (size, d); zero where there are none."""
    import torch

    places = torch.tensor(owners, device=features.device)
    sums = torch.zeros(size, features.shape[1], device=features.device).index_add_(0, places, features.float())
    # Counted here, or a GPU would be waited for.
    counts = torch.from_numpy(np.bincount(owners, minlength=size).clip(min=1)).to(features.device)
    return sums / counts[:, None]


def _require_tokenizer(checkpoint: CheckpointFolder, rules: TextRules) -> None:
    if not any(all((checkpoint.path / file).is_file() for file in group) for group in rules.files):
        wanted = " or ".join(" with ".join(group) for group in rules.files)
        raise ModelError(f"checkpoint {checkpoint.path} has no tokenizer: expected {wanted}; get it again")
    config = checkpoint.path / "tokenizer_config.json"
    if not config.is_file() or checkpoint.json(config.name).get("tokenizer_class") != "SiglipTokenizer":
        return
    if missing := [package for package in _SIGLIP_1_PACKAGES if not _is_installed(package)]:
        raise ModelError(
            f"{checkpoint.name}: SigLIP 1's tokenizer needs {' and '.join(missing)}: pip install {' '.join(missing)}. "
            "SigLIP 2 does without"
        )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
