"""Tiny random checkpoints in the layouts that sentence-transformers reads."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HIDDEN, DIMENSIONS = 32, 16
RED = 7 + len(string.punctuation) + string.ascii_lowercase.index("r")  # the token of an "r"
QUERY_LENGTH, DOCUMENT_LENGTH = 12, 24
_TOWER: dict[str, Any] = {
    **{"hidden_size": HIDDEN, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2},
    **{"initializer_range": 0.3},
}
_MARKERS = {"query": "[unused0] ", "document": "[unused1] "}

CHAT_TEMPLATE = (
    "{% for turn in messages %}[{{ turn['role'] }}]{% if turn['content'] is string %}{{ turn['content'] }}{% else %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
)


def save_colbert(folder: Path, backbone: Path, *heads: Any, **settings: Any) -> Path:
    """A ColBERT on letters, saved by the library: queries filled up with masks, candidates without punctuation.

    Args:
        heads: modules after the projection; default: the mask and the normalisation of a ColBERT.
        settings: of the model.
    """
    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]", *string.punctuation]
    letters = string.ascii_lowercase + string.digits
    tokenizer = BertTokenizer(
        vocab={sign: i for i, sign in enumerate([*signs, *letters, *(f"##{letter}" for letter in letters)])},
        additional_special_tokens=["[unused0]", "[unused1]"],
    )
    tokenizer.save_pretrained(backbone)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **_TOWER)).save_pretrained(backbone)
    transformer = Transformer(
        str(backbone),
        document_length=DOCUMENT_LENGTH,
        query_expansion={"strategy": "fixed", "attend": False, "length": QUERY_LENGTH},
    )
    heads = heads or (MultiVectorMask(list(string.punctuation)), Normalize("token_embeddings"))
    return _save(folder, transformer, *heads, **({"prompts": _MARKERS} | settings))


def save_pylate(folder: Path, colbert: Path, **config: Any) -> Path:
    """A ColBERT's weights as PyLate lays them out: other names, lengths and markers at the top, no mask module."""
    parts = ("1_Dense", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    _copy(colbert, folder, *parts)
    _write(folder / "1_Dense" / "config.json", in_features=HIDDEN, out_features=DIMENSIONS, bias=False,
           activation_function="torch.nn.modules.linear.Identity")  # fmt: skip
    _write(folder / "sentence_bert_config.json", max_seq_length=64, do_lower_case=False)
    modules = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    rows = [{"idx": i, "name": str(i), "path": path, "type": modules[path]} for i, path in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(rows))
    lengths = {"query_length": QUERY_LENGTH, "document_length": DOCUMENT_LENGTH, "attend_to_expansion_tokens": False}
    markers = {"query_prefix": _MARKERS["query"], "document_prefix": _MARKERS["document"]}
    _write(folder / "config_sentence_transformers.json", similarity_fn_name="MaxSim", **lengths, **markers, **config)
    return folder


def save_stanford_colbert(folder: Path, colbert: Path, **metadata: Any) -> Path:
    """The same as ColBERT's authors lay them out: the projection beside the encoder, settings in artifact.metadata."""
    _copy(colbert, folder, "config.json", "tokenizer.json", "tokenizer_config.json")
    config = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", **(config | {"architectures": ["HF_ColBERT"]}))
    weights = {f"bert.{name}": weight for name, weight in load_file(colbert / "model.safetensors").items()}
    projection = load_file(colbert / "1_Dense" / "model.safetensors")
    save_file(weights | projection, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"query_maxlen": QUERY_LENGTH, "doc_maxlen": DOCUMENT_LENGTH, "mask_punctuation": True}
    _write(folder / "artifact.metadata", **(settings | metadata))
    return folder


def save_late_llava(folder: Path, llava: Path) -> Path:
    """Chat messages and pictures, a vector a token."""
    return _save(folder, Transformer(str(llava)), MultiVectorMask(), Normalize("token_embeddings"))


def save_llava(folder: Path) -> Path:
    """A LLaVA on bytes, as transformers saves it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        text_config={
            **_TOWER, "model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": None,
        },
        vision_config={**_TOWER, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 16},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _save(folder: Path, transformer: Any, *heads: Any, **settings: Any) -> Path:
    torch.manual_seed(1)
    projection = Dense(
        HIDDEN, DIMENSIONS, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    MultiVectorEncoder(modules=[transformer, projection, *heads], device="cpu", **settings).save(str(folder))
    return folder


def _copy(source: Path, folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        copy: Any = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, folder / name)


def _write(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))
