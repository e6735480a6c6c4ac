"""From a plain Qwen3-VL checkpoint to an untrained MMEmb-R1 one: `mmemb-r1 add-tokens BASE NEW`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmeb_harness.adapter.checkpoints import find_checkpoint
from mmeb_harness.adapter.weights import load_pretrained, reading_files
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.disk.files import replacing_folder
from mmemb_r1_model.model.chat_template import write_chat_template
from mmemb_r1_model.model.checkpoint import ARCHITECTURE, check_type
from mmemb_r1_model.model.prompt import TURN_END
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Settings, read_settings, write_settings

#: Normalisation constants of the vision tower, as the base has them; those for clips only servers read.
_PICTURES = ("preprocessor_config.json", "video_preprocessor_config.json")


def add_tokens(base: str, folder: Path, max_new_tokens: int = Settings.max_new_tokens) -> str | None:
    """Add <emb> (and the think markers, where they are missing) and write the whole checkpoint to `folder`.

    The rows of new tokens start as a copy of the row of <|im_end|>, a special token that the model knows: a
    random row would begin far from anything it has seen. Ours, not the paper's.

    Args:
        max_new_tokens: longest rationale that the model will write.

    Returns:
        Why the base's chat template was replaced by ours; `None` if it is kept, or there was none.

    Raises:
        OptionError: there is something in `folder`, or a graded gate's short rationales are longer than that.
        ModelError: the base can't be used, or lacks weights: its language head, too, must be there or tied.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise OptionError(f"{folder} exists and has something in it; name a new folder for the checkpoint")
    checkpoint = find_checkpoint(base)
    check_type(checkpoint)
    checkpoint.require_safetensors()
    checkpoint.json(_PICTURES[0])

    import transformers
    from tokenizers import AddedToken

    with reading_files(checkpoint, "usable tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    model = load_pretrained(transformers, ARCHITECTURE, checkpoint, "cpu", "auto", use_safetensors=True)
    known = tokenizer.get_vocab()
    if TURN_END not in known:
        raise ModelError(f"{base} has no token {TURN_END}, which new ones start as a copy of; get its tokenizer anew")
    new = [token for token in (THINK, END_THINK, EMB) if token not in known]
    # A checkpoint that has them all keeps its other settings, too: its weights are what they were.
    settings = Settings() if new else read_settings(checkpoint.path)
    if settings.short is not None and settings.short.tokens >= max_new_tokens:
        raise OptionError(
            f"--max-new-tokens {max_new_tokens} must be above the {settings.short.tokens} of a short rationale, for "
            f"which {base} was trained"
        )
    tokenizer.add_tokens([AddedToken(token, special=token == EMB, normalized=False) for token in new])
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        with _quiet(transformers.utils.logging):  # how rows begin that are replaced below
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    source = tokenizer.convert_tokens_to_ids(TURN_END)
    rows = [layer.weight.data for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    for row in rows:
        for token in new:
            row[tokenizer.convert_tokens_to_ids(token)] = row[source]
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_settings(temporary, dataclasses.replace(settings, max_new_tokens=max_new_tokens))
        for name in _PICTURES:
            if (checkpoint.path / name).is_file():
                shutil.copyfile(checkpoint.path / name, temporary / name)
        return write_chat_template(checkpoint.path, temporary)


@contextlib.contextmanager
def _quiet(logs: Any) -> Iterator[None]:
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
