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

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from mmeb_baselines.cards import Card, find_pinned
from mmeb_baselines.families import read_config
from mmeb_baselines.weights import load_weights
from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, Profile, Role, one_line
from mmeb_harness.adapter.checkpoints import CheckpointFolder, resolve_place
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.uploads import Upload, Uploads

if TYPE_CHECKING:
    import torch

Instruction = Literal["none", "text"]

_MTEB = "mteb 2.26 (revision, parameters, width); sizes and pooling: transformers 5.24"
_CLIP_POOLING = "end token and class token, projected"
_SIGLIP_POOLING = "last position of the text, attention pooling of the patches"
_FRAMES = "mean of the frames' features (ours)"


def _siglip_card(hub_id: str, revision: str, parameters: int, dimensions: int, side: int) -> Card:
    return Card(
        model="siglip",
        hub_id=hub_id,
        revision=revision,
        parameters=parameters,
        dimensions=dimensions,
        prompt="the text alone",
        pooling=_SIGLIP_POOLING,
        resolution=f"squashed to {side} x {side}",
        frames=_FRAMES,
        license="apache-2.0",
        source=_MTEB,
    )


#: The first card of a model is what its `path` defaults to.
CARDS: tuple[Card, ...] = (
    Card(
        model="clip",
        hub_id="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        parameters=427_616_513,
        dimensions=768,
        prompt="the text alone",
        pooling=_CLIP_POOLING,
        resolution="shortest side to 224, centre crop 224 x 224",
        frames=_FRAMES,
        license="not stated on the hub",
        source=_MTEB,
        unsure="whether the MIT licence of the code (openai/CLIP) covers the weights",
    ),
    _siglip_card(
        "google/siglip2-so400m-patch16-384", "dd658faac399427308559e2c3ac1e99cbe43845d", 1_136_039_602, 1152, 384
    ),
    _siglip_card(
        "google/siglip2-so400m-patch16-512", "ceea1cba8130d8271436da4828633198c176a775", 1_136_555_698, 1152, 512
    ),
    _siglip_card("google/siglip2-base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", 375_187_970, 768, 224),
    _siglip_card(
        "google/siglip-so400m-patch14-384", "9fdffc58afc957d1a03a25b10dba0329ab15c2a3", 877_960_498, 1152, 384
    ),
    _siglip_card("google/siglip-base-patch16-224", "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed", 203_155_970, 768, 224),
)


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


@dataclass(frozen=True)
class Family:
    """A registered model.

    Attributes:
        pooling: of texts, and of pictures.
    """

    model: str
    text: TextRules
    pooling: str


CLIP = Family(
    "clip",
    TextRules(
        lower_case=False,  # its tokenizer does
        padding="longest",
        inputs=("input_ids", "attention_mask"),
        files=(("tokenizer.json",), ("vocab.json", "merges.txt")),
    ),
    pooling=_CLIP_POOLING,
)

#: What transformers' SiglipTokenizer needs.
_SIGLIP_1_PACKAGES = ("sentencepiece", "protobuf")

#: Trained on lower-case text, padded to the full length, without a mask: the state at the last position, a pad as a
#: rule, is the vector (big_vision issue 187, open_clip issue 984, transformers' modeling_siglip.py). SigLIP 2's
#: checkpoints name Gemma's tokenizer, which keeps capitals and pads on the left unless told otherwise.
SIGLIP = Family(
    "siglip",
    TextRules(
        lower_case=True,
        padding="max_length",
        inputs=("input_ids",),
        files=(("tokenizer.json",), ("spiece.model",)),
    ),
    pooling=_SIGLIP_POOLING,
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
    return DualEncoder(CLIP, path, revision, instruction, device, dtype)


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
    return DualEncoder(SIGLIP, path, revision, instruction, device, dtype)


@dataclass(frozen=True)
class Batch:
    """Items, ready for the encoders.

    Attributes:
        size: number of items.
        texts: inputs of the text encoder, (t, length) each.
        text_items: which item each text belongs to, (t,).
        pictures: inputs of the picture encoder, (p, …) each.
        picture_items: which item each picture belongs to, (p,).
    """

    size: int
    texts: Mapping[str, NDArray[Any]]
    text_items: tuple[int, ...]
    pictures: Mapping[str, NDArray[Any]]
    picture_items: tuple[int, ...]


@dataclass(frozen=True)
class UploadedBatch:
    """The same, with its inputs on the model's device, or on their way to it; `None`: there are none."""

    size: int
    texts: Upload | None
    text_items: tuple[int, ...]
    pictures: Upload | None
    picture_items: tuple[int, ...]


class DualEncoder:
    """Loads the weights when the first item comes."""

    def __init__(
        self, family: Family, path: str, revision: str | None, instruction: Instruction, device: str, dtype: str
    ) -> None:
        import torch

        self._checkpoint = find_pinned(CARDS, path, revision)
        read_config(self._checkpoint, family.model)
        self._checkpoint.require_safetensors()
        self._family, self._instruction = family, instruction
        self._device, self._dtype = resolve_place(torch, device, dtype)
        self._uploads = Uploads(torch, self._device, self._dtype)
        self._inputs = InputReader(self._checkpoint, family.text)
        self._model: Any = None
        self.info = self._describe()

    def warm_up(self) -> None:
        """Load the weights, and run one text: the first batch on a device pays for its set-up."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def cost(self, item: Item, role: Role) -> int:
        """Tokens of the text at its limit, and patches of every picture."""
        sizes = self._inputs.sizes
        return sizes.text_tokens + len(item.media) * sizes.picture_tokens

    def prepare(self, items: Sequence[Item], role: Role) -> Batch:
        """Open, resize and tokenise; on the CPU.

        Raises:
            DataError: a picture that can't be opened; it is named.
        """
        texts = {index: text for index, item in enumerate(items) if (text := self.text(item)) is not None}
        pictures = [(index, path) for index, item in enumerate(items) for path in item.media]
        return Batch(
            size=len(items),
            texts=self._inputs.tokens(list(texts.values())),
            text_items=tuple(texts),
            pictures=self._inputs.pixels([path for _, path in pictures]),
            picture_items=tuple(index for index, _ in pictures),
        )

    def text(self, item: Item) -> str | None:
        """What the text encoder reads; `None`: the item has media, and nothing to read.

        Without text and media it is the instruction, so that every item gets a vector.
        """
        parts = (item.instruction, item.text) if self._instruction == "text" else (item.text,)
        text = " ".join(part for part in parts if part.strip())
        if text or item.media:
            return text or None
        return item.instruction

    def upload(self, prepared: Batch) -> UploadedBatch:
        """The inputs, on their way to the encoders."""
        texts, pictures = (
            self._uploads.start(inputs) if inputs else None for inputs in (prepared.texts, prepared.pictures)
        )
        return UploadedBatch(prepared.size, texts, prepared.text_items, pictures, prepared.picture_items)

    def encode_prepared(self, prepared: Batch | UploadedBatch) -> EncodeResult:
        """Features of texts and pictures, brought together.

        Raises:
            ModelError: the weights can't be loaded.
        """
        batch = self.upload(prepared) if isinstance(prepared, Batch) else prepared
        return EncodeResult(_embed(self.model, batch).cpu().numpy())

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """The same in one call."""
        return self.encode_prepared(self.prepare(items, role))

    @property
    def model(self) -> Any:
        """The model with its weights, which the first call loads."""
        if self._model is None:
            from transformers import AutoModel

            self._model = load_weights(AutoModel, self._checkpoint, self._device, self._dtype)
        return self._model

    def _describe(self) -> ModelInfo:
        sizes, family, without = self._inputs.sizes, self._family, self._instruction == "none"
        return ModelInfo(
            name=family.model,
            revision=self._checkpoint.revision,
            dimensions=sizes.dimensions,
            settings={
                "checkpoint": self._checkpoint.label,
                "instruction": self._instruction,
                "device": self._device.split(":")[0],
                "dtype": self._dtype,
                "text_tokens": sizes.text_tokens,
                "text_padding": family.text.padding,
                "lower_case": family.text.lower_case,
                "mixed_input": "sum of raw features, then normalised",
                "several_pictures": "mean of raw features",
            },
            parameters=self._checkpoint.parameters,
            profile=Profile(
                name=f"{family.model}: text plus mean of pictures or frames",
                instruction="none" if without else "user text",
                candidate_instruction="none" if without else "the task's own",
                whitespace="kept",
                pooling=family.pooling,
                min_pixels=sizes.min_pixels,
                max_pixels=sizes.max_pixels,
            ),
        )


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
        try:
            config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
            # With torchvision in the environment the default would be another one, with slightly other pixels.
            self._processor = AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil", local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"can't load {checkpoint.path}: {one_line(error)}") from error
        self.sizes = _sizes(config, self._processor)

    def tokens(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Texts, truncated to what the encoder can read; its end token stays."""
        if not texts:
            return {}
        tokens = self._tokenizer(
            [text.lower() if self._rules.lower_case else text for text in texts],
            padding=self._rules.padding,
            padding_side="right",
            truncation=True,
            max_length=self.sizes.text_tokens,
            return_tensors="np",
        )
        return {name: tokens[name] for name in self._rules.inputs}

    def pixels(self, paths: Sequence[Path]) -> dict[str, NDArray[Any]]:
        """Pictures in RGB: a grey one would be refused."""
        if not paths:
            return {}
        return dict(self._processor(images=[open_picture(path) for path in paths], return_tensors="np"))


def _sizes(config: Any, processor: Any) -> Sizes:
    vision, text_tokens = config.vision_config, int(config.text_config.max_position_embeddings)
    width = int(config.projection_dim if config.model_type == "clip" else config.text_config.projection_size)
    patch_side = int(vision.patch_size)
    if config.model_type == "siglip2":  # NaFlex: a picture keeps its shape, and is fitted into so many patches
        patches = int(processor.max_num_patches)
        return Sizes(width, text_tokens, patches, None, patches * patch_side**2)
    side = int(vision.image_size)
    return Sizes(width, text_tokens, (side // patch_side) ** 2, side**2, side**2)


def _embed(model: Any, batch: UploadedBatch) -> torch.Tensor:
    """Unit vectors, (size, d): the sum of a text's features and the mean of the pictures', normalised at the end."""
    import torch

    with torch.inference_mode():
        parts = []
        if batch.texts:
            texts = model.get_text_features(**batch.texts.ready())
            parts.append(_mean_of_each_item(texts.pooler_output, batch.text_items, batch.size))
        if batch.pictures:
            pictures = model.get_image_features(**batch.pictures.ready())
            parts.append(_mean_of_each_item(pictures.pooler_output, batch.picture_items, batch.size))
        return torch.nn.functional.normalize(torch.stack(parts).sum(dim=0), dim=-1)


def _mean_of_each_item(features: torch.Tensor, owners: Sequence[int], size: int) -> torch.Tensor:
    """Mean of the rows that belong to an item, in float32, (size, d); zero where there are none."""
    import torch

    places = torch.tensor(owners, device=features.device)
    sums = torch.zeros(size, features.shape[1], device=features.device).index_add_(0, places, features.float())
    return sums / torch.bincount(places, minlength=size).clamp(min=1)[:, None]


def _require_tokenizer(checkpoint: CheckpointFolder, rules: TextRules) -> None:
    if not any(all((checkpoint.path / file).is_file() for file in group) for group in rules.files):
        wanted = " or ".join(" with ".join(group) for group in rules.files)
        raise ModelError(f"checkpoint {checkpoint.path} has no tokenizer: expected {wanted}; get it again")
    config = checkpoint.path / "tokenizer_config.json"
    if config.is_file() and checkpoint.json(config.name).get("tokenizer_class") == "SiglipTokenizer":
        _require_siglip_1_packages(checkpoint.name)


def _require_siglip_1_packages(name: str) -> None:
    if missing := [package for package in _SIGLIP_1_PACKAGES if not _is_installed(package)]:
        raise ModelError(
            f"{name}: SigLIP 1's tokenizer needs {' and '.join(missing)}: pip install {' '.join(missing)}. "
            "SigLIP 2 does without"
        )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
