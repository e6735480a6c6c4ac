"""From a plain Qwen3-VL checkpoint to an untrained MMEmb-R1 one: `mmemb-r1 add-tokens BASE NEW`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from mmemb_r1_model.model.prompt import TURN_END
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Settings, write_settings


def add_tokens(base: str, folder: Path, max_new_tokens: int = Settings.max_new_tokens) -> None:
    """Add <emb> (and the think markers, where they are missing) and write the whole checkpoint to `folder`.

    The rows of new tokens start as a copy of the row of <|im_end|>, a special token that the model knows: a
    random row would begin far from anything it has seen. Ours, not the paper's.

    Args:
        max_new_tokens: longest rationale that the model will write.
    """
    import torch
    from tokenizers import AddedToken
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = Qwen3VLForConditionalGeneration.from_pretrained(base, dtype="auto", use_safetensors=True)
    known = tokenizer.get_vocab()
    new = [token for token in (THINK, END_THINK, EMB) if token not in known]
    tokenizer.add_tokens([AddedToken(token, special=token == EMB, normalized=False) for token in new])
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    source = tokenizer.convert_tokens_to_ids(TURN_END)
    with torch.no_grad():
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            for token in new:
                weight[tokenizer.convert_tokens_to_ids(token)] = weight[source]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_settings(folder, Settings(max_new_tokens=max_new_tokens))
    # Normalisation constants of the vision tower, as the base has them; those for clips only servers read.
    _copy_json(base, "preprocessor_config.json", folder)
    with contextlib.suppress(FileNotFoundError, EntryNotFoundError):
        _copy_json(base, "video_preprocessor_config.json", folder)


def _copy_json(base: str, name: str, folder: Path) -> None:
    source = Path(base) / name if Path(base).is_dir() else Path(hf_hub_download(base, name))
    values: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
