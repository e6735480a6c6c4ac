"""VLM2Vec: Qwen2-VL with LoRA weights, the official strings, plain positions, the last token.

Source: TIGER-AI-Lab/VLM2Vec, src/model/{model,processor}.py and vlm_backbone/qwen2_vl; its evaluation is the one that
MMEB-V2's leaderboard follows. No chat template, no vision_start: its own position routine then numbers all tokens one
after the other, so M-RoPE is off in training and evaluation; positions are handed over here, whatever transformers
would make of the prompt. Several pictures stand where the text has them, as MMEB-V3's screenshots do; without places
all of them stand where the one would: the official strings have none of that kind.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from mmeb_baselines.cards import Card, find_pinned
from mmeb_baselines.embedder import Attention, Place
from mmeb_baselines.official_text import OFFICIAL_TEXT_TOKENS, official_pieces
from mmeb_baselines.qwen.embedder import Family, QwenEmbedder, limited, open_embedder
from mmeb_baselines.qwen.prompt import Parts, Recipe, Slot, pictures, video
from mmeb_baselines.qwen.sizes import Resize, enlarged_if_small, vlm2vec
from mmeb_baselines.weights import load_backbone, load_weights
from mmeb_harness import Item, ModelError, Profile, Role
from mmeb_harness.adapter.checkpoints import CHECKPOINT_FILES, CheckpointFolder, find_checkpoint
from mmeb_harness.adapter.texts import Template
from mmeb_harness.adapter.weights import HEAD, reading_files

MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 1280 * 28 * 28
#: Adapters of old releases name modules as Qwen2-VL had them before transformers 4.52; unrenamed they load as nothing.
OLD_NAMES = {r"^model(?!\.(language_model|visual))": "model.language_model"}
_card = partial(
    Card,
    model="vlm2vec",
    prompt="<|image_pad|> INSTRUCTION TEXT\\n (official strings, no template)",
    pooling="last token, after the final norm",
    resolution="3,136 to 1,003,520 pixels",
    frames="8, as a video",
    license="apache-2.0",
    source="TIGER-AI-Lab/VLM2Vec, src/model/processor.py, model.py, vlm_backbone/qwen2_vl",
)
CARDS = (
    _card(
        *("VLM2Vec/VLM2Vec-V2.0", "e39ff079b8275ef876d3656da8c0bddbff3c4dde", 2_208_985_600, 1536),
        published="VLM2Vec-V2",
        unsure="its list of files and adapter_config.json",
    ),
    _card("TIGER-Lab/VLM2Vec-Qwen2VL-2B", None, 2_208_985_600, 1536, published="VLM2Vec-2B"),
    _card("TIGER-Lab/VLM2Vec-Qwen2VL-7B", None, 8_291_375_616, 3584, published="VLM2Vec-V1-Qwen2VL-7B"),
)
PROFILE = Profile(
    name="vlm2vec",
    instruction="user text",
    candidate_instruction="the task's own",
    whitespace="official",
    pooling="last token, after the final norm",
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
)


def load(
    path: str | None = None,
    revision: str | None = None,
    base: str | None = None,
    profile: Literal["own", "leaderboard-v1"] = "own",
    max_text_tokens: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: Attention = "auto",
) -> QwenEmbedder:
    """VLM2Vec V1 (Qwen2-VL 2B, 7B) and V2.0, on MMEB-V2's own strings.

    Args:
        path: folder or hub id of an adapter, or of merged weights.
        base: of an adapter; default: the one that its configuration names.
        profile: leaderboard-v1 squashes pictures to 1,344 x 1,344 first, as the script of the leaderboard's V1 rows
            does; what the model is shown then is 980 x 980.
        max_text_tokens: of items without media; what is longer loses its end. Default: 2,048, as in MMEB-V3's code.
    """
    # V1 has no safetensors.
    checkpoint = find_pinned(CARDS, path, revision, (*CHECKPOINT_FILES, "adapter_model.bin"))
    named = base or _base_of(checkpoint)
    described = _find_base(checkpoint, named) if named else None
    family = Family(
        cards=CARDS,
        profile=dataclasses.replace(PROFILE, name="vlm2vec" if profile == "own" else "vlm2vec leaderboard-v1"),
        recipe=_recipe(squash=profile == "leaderboard-v1"),
        positions="sequential",
        load=partial(_merged, base=described) if described else load_backbone,
        settings={"base": named},
        max_text_tokens=OFFICIAL_TEXT_TOKENS,
    )
    return open_embedder(limited(family, max_text_tokens), checkpoint, Place(device, dtype, attention), described)


_SQUASHED: tuple[Resize, ...] = (lambda height, width: (1344, 1344),)


def _recipe(*, squash: bool) -> Recipe:
    size = vlm2vec(MIN_PIXELS, MAX_PIXELS)

    def parts(item: Item, role: Role) -> Parts:
        pieces = official_pieces(item)
        first: tuple[Resize, ...] = () if item.frames else (enlarged_if_small(28, 56),)
        # The sets of video questions hand over no resolution, and so escape the squash.
        if squash and item.source.layout != "video_question":
            first = _SQUASHED
        shown = [video(item, (*first, size))] if item.frames else pictures(item, (*first, size))
        placed = item.places and item.source.layout == "interleaved"
        return _filled(pieces, [[slot] for slot in shown] if placed else [shown]) if shown else [pieces]

    return parts


def _filled(pieces: list[str], groups: list[list[Slot]]) -> Parts:
    """Pictures in the place of the item's own tokens, which are the first ones; before the text if it has none."""
    tokens = [place for place, piece in enumerate(pieces) if isinstance(piece, Template)]
    if not tokens:
        return [*itertools.chain(*groups), pieces]
    parts: Parts = []
    told = 0
    for place, slots in zip(tokens, groups, strict=False):  # further tokens are text
        parts += [pieces[told:place], *slots]
        told = place + 1
    return [*parts, pieces[told:]]


def _base_of(adapter: CheckpointFolder) -> str | None:
    """The adapter's base model; `None`: these are whole weights."""
    if not (adapter.path / "adapter_config.json").is_file():
        return None
    base = adapter.json("adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{adapter.path}/adapter_config.json names no base model; name it: --model-arg base=FOLDER")
    return str(base)


def _find_base(adapter: CheckpointFolder, named: str) -> CheckpointFolder:
    try:
        return find_checkpoint(named)
    except ModelError as error:
        raise ModelError(f"the base of {adapter.path}: {error}. Or name it: --model-arg base=FOLDER") from error


def _merged(adapter: CheckpointFolder, device: str, dtype: str, attention: str, *, base: CheckpointFolder) -> Any:
    """The base with the adapter's weights added in, as the official evaluation merges them.

    Raises:
        ModelError: peft is missing, or not every weight of the adapter found its place.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ModelError("VLM2Vec's LoRA weights need peft: pip install 'peft>=0.17'") from error
    whole = load_weights("Qwen2VLForConditionalGeneration", base, device, dtype, attention, unused=HEAD)
    with reading_files(adapter, "LoRA weights that fit its base"):
        adapted = PeftModel(whole, PeftConfig.from_pretrained(str(adapter.path)))
        report = adapted.load_adapter(str(adapter.path), "default", key_mapping=OLD_NAMES)
    _check_placed(adapter, report.missing_keys, report.unexpected_keys)
    return adapted.merge_and_unload().model.eval()


def _check_placed(adapter: CheckpointFolder, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """peft only warns of factors without weights, which start from chance, and of weights that find no place.

    Raises:
        ModelError: there are some.
    """
    wrong = unexpected or missing
    if wrong:
        what = "found no place in the base model" if unexpected else "are not in its files"
        raise ModelError(
            f"{len(wrong)} LoRA weights of {adapter.path} {what}: {', '.join(wrong[:2])} …; is it an adapter of that "
            "base?"
        )
