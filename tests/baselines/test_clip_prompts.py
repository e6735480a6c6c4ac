"""Clips of Qwen3-VL in a prompt: what transformers' processor of the pinned version makes of them, and what we do.

Up to 5.9 the processor replaced a clip's whole <|vision_start|><|video_pad|><|vision_end|> by its frames, each of which
brings such a pair of its own; from 5.10 on the bare <|video_pad|> alone, so that the outer pair stays around all
frames: two tokens more. A model must read the form that it was trained with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmeb_baselines.qwen3_vl_embedding import FRAMES_PER_SECOND
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

from mmeb_harness import Item
from mmeb_harness.core.registry import ModelSpec
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.chat_template import BARE_VIDEO, PATH
from mmemb_r1_model.model.checkpoint import EMBEDDED
from tests.baselines.tiny_checkpoints import MAKERS, save_checkpoint
from tests.baselines.tiny_qwen import save_qwen3_vl

#: Without the outer pair: published Qwen3-VL were trained with transformers 4.57, as their embedders, and so is ours.
#: And the frames a second that each takes for granted.
TRAINED_WITH_FRAMES_ALONE = {"mmemb_r1": 1.0, "qwen3_vl_embedding": FRAMES_PER_SECOND}


def ours(name: str, folder: Path, item: Item) -> tuple[list[int], tuple[int, int, int]]:
    """An adapter's tokens of a query, and the grid of its clip."""
    if name == "mmemb_r1":
        prompt = load(str(folder)).prompt(item)
        (clip,) = prompt.patches
        return prompt.ids.tolist(), clip.grid
    (read,) = ModelSpec(name, {"path": str(folder)}).load().form.prompts([item], "query")  # type: ignore[attr-defined]
    _, height, width = read.videos[0].grid
    return read.ids, (len(read.videos), height, width)  # each pair of frames by itself


def theirs(name: str, folder: Path, user: str, frames: int, grid: tuple[int, int, int], **switches: bool) -> str:
    """What the processor makes of what a template renders."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    videos = Qwen3VLVideoProcessor(merge_size=2)
    template = PATH.read_text()
    processor = Qwen3VLProcessor(Qwen2VLImageProcessorPil(), tokenizer, videos, chat_template=template)
    words = {"type": "text", "text": user}
    chat = [
        {"role": "system", "content": [{"type": "text", "text": "find it."}]},
        {"role": "user", "content": [{"type": "video"}, words]},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **switches)
    shown = VideoMetadata(
        total_num_frames=frames, fps=TRAINED_WITH_FRAMES_ALONE[name], frames_indices=list(range(frames))
    )
    clip = processor.replace_video_token({"video_grid_thw": np.array([grid]), "video_metadata": [shown]}, 0)
    replaced, _ = processor.get_text_with_replacements([text], videos_replacements=[clip])
    return str(replaced[0])


@pytest.mark.parametrize("name", sorted(TRAINED_WITH_FRAMES_ALONE))
def test_clips_are_laid_out_as_in_training(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it looks at needs torchvision, which only reading videos does else.
    monkeypatch.setattr(Qwen3VLProcessor, "check_argument_for_proper_class", lambda *arguments: None)
    folder = EMBEDDED if name == "mmemb_r1" else save_checkpoint(name, tmp_path / name)
    paths = tuple(tmp_path / f"{number}.png" for number in range(4))
    for path in paths:
        Image.new("RGB", (64, 64), "red").save(path)
    item = Item("clip", text="a red circle", frames=paths, instruction="find it.")
    ids, grid = ours(name, folder, item)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    user = "a red circle\nembed" if name == "mmemb_r1" else "a red circle"
    pinned = theirs(name, folder, user, len(paths), grid)
    assert tokenizer(pinned, add_special_tokens=False).input_ids != ids
    outer = [token for token in ("<|vision_start|>", "<|vision_end|>") if pinned.count(token) == 3]
    assert len(outer) == 2  # a pair for each of two pairs of frames, and one around them
    bare = theirs(name, folder, user, len(paths), grid, **BARE_VIDEO)
    assert tokenizer(bare, add_special_tokens=False).input_ids == ids


def test_no_adapter_of_a_qwen3_vl_is_left_out() -> None:
    assert {name for name, make in MAKERS.items() if make is save_qwen3_vl} < set(TRAINED_WITH_FRAMES_ALONE)
