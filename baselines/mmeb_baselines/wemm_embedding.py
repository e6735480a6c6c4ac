"""WeMM-Embedding: Qwen3.5 with a token <embedding> at the end of a user's turn, whose state is the vector.

Source: Tencent/WeMM-Embedding, mmeb_v3_eval/src/model/processor.py (its own evaluation on MMEB: prompt, bounds, one
frame a second, 64 frames) and examples/; modeling_wemm_embedding.py (pooling); qwen-vl-utils 0.0.14 (sizes of frames).
The tokens are those of training: the checkpoint's tokenizer.json drops a line break at the end of each stretch of text
between special tokens (before a leading picture, before <embedding>; a Swift port's golden prompts, EmbedANE, agree),
which transformers from 5.18 on forgets (mteb 2.26). The layout of
videos is that of transformers 5.2, which its authors recommend: a time before each pair of frames, no further vision
tokens around.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from mmeb_baselines.cards import Card
from mmeb_baselines.official_text import official_text
from mmeb_baselines.qwen.embedder import Family, loader
from mmeb_baselines.qwen.prompt import VISION_END, VISION_START, Parts, Slot, pictures
from mmeb_baselines.qwen.sizes import Resize, within
from mmeb_harness import Frames, Item, ModelError, Profile, Role
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.texts import Speller, Template

EMBEDDING = "<embedding>"
FACTOR = 32
TOKEN = FACTOR * FACTOR
MIN_PIXELS, MAX_PIXELS = 64 * TOKEN, 8192 * TOKEN
FRAME_MIN_PIXELS, FRAME_MAX_PIXELS = 4 * TOKEN, 256 * TOKEN
VIDEO_PIXELS = 8192 * TOKEN  # of one frame of each pair
FRAMES_PER_SECOND = 1.0
NUM_FRAMES = 64

_card = partial(
    Card,
    model="wemm_embedding",
    prompt="chat without a system turn: user image, INSTRUCTION TEXT (official strings, no media tokens), <embedding>",
    pooling="<embedding>, after the final norm",
    resolution="65,536 to 8,388,608 pixels; a frame 4,096 to 262,144",
    frames="64, as a video with times",
    license="apache-2.0",
    matryoshka=64,
    source="Tencent/WeMM-Embedding, mmeb_v3_eval and examples; mteb 2.26 (revision, parameters)",
    unsure="the instructions of its own evaluation, in files not seen (ours are the benchmark's); bounds in its "
    "processor_config.json, which would resize a second time",
)
CARDS = (
    _card(
        *("tencent/WeMM-Embedding-2B", "df8094e5caf29083d9cac28e96fad6cfbe3ee57f", 2_210_000_000, 2048),
        published="WeMM-Embedding-2B",
    ),
    _card(
        *("tencent/WeMM-Embedding-4B", "a28b25c5d18cf71ec46b115e06ea79ab00ee4819", 4_250_000_000, 2560),
        published="WeMM-Embedding-4B",
    ),
    _card(
        *("tencent/WeMM-Embedding-9B", "59f673e3d53c4f71bb364adf344536dc1c2bc95e", 9_000_000_000, 4096),
        published="WeMM-Embedding-9B",
    ),
)
PROFILE = Profile(
    name="wemm_embedding",
    instruction="user text",
    candidate_instruction="the task's own",
    whitespace="official",
    pooling="<embedding>, after the final norm",
    frames=Frames(video=NUM_FRAMES, clip=8),
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
    video_max_pixels=2 * VIDEO_PIXELS,
)
IMAGE_SIZE = within(MIN_PIXELS, MAX_PIXELS, FACTOR)


def parts(item: Item, role: Role) -> Parts:
    """Both sides alike. Each stretch of text is tokenised in one piece with the template's words beside it."""
    shown: list[str | Slot] = _video(item) if item.frames else []
    for slot in [] if item.frames else pictures(item, [IMAGE_SIZE], white=True):
        shown += [Template(VISION_START), slot, Template(VISION_END)]
    opening, closing = Template("<|im_start|>user\n"), Template(f"<|im_end|>\n{EMBEDDING}")
    return _joined([opening, *shown, words(item), closing])


def words(item: Item) -> str:
    """The official string without its media tokens and outer whitespace; of own data the instruction and the text."""
    if item.source.instruction or item.source.layout == "bare":
        return official_text(item, "", "").strip()
    return f"{item.instruction} {item.text}".strip()


def video_sizes(num_frames: int) -> tuple[Resize, Resize]:
    """A frame's sizes: as a picture on a grid of 64 pixels (so in qwen-vl-utils 0.0.14), then by the video's budget."""
    even = num_frames + num_frames % 2
    most = max(min(FRAME_MAX_PIXELS, VIDEO_PIXELS * 2 // even), int(FRAME_MIN_PIXELS * 1.05))
    return within(FRAME_MIN_PIXELS, FRAME_MAX_PIXELS, 2 * FACTOR), within(FRAME_MIN_PIXELS, most, FACTOR)


def _video(item: Item) -> list[str | Slot]:
    steps = video_sizes(len(item.frames))
    shown: list[str | Slot] = []
    for start in range(0, len(item.frames), 2):
        seconds = (start + 0.5) / FRAMES_PER_SECOND
        slot = Slot(item.frames[start : start + 2], True, steps, white=True)
        shown += [f"<{seconds:.1f} seconds>", Template(VISION_START), slot, Template(VISION_END)]
    return shown


def _joined(pieces: list[str | Slot]) -> Parts:
    """Neighbouring strings as one part."""
    joined: Parts = []
    for is_slot, group in itertools.groupby(pieces, lambda piece: isinstance(piece, Slot)):
        if is_slot:
            joined += [piece for piece in group if isinstance(piece, Slot)]
        else:
            joined.append(tuple(piece for piece in group if isinstance(piece, str)))
    return joined


def own_speller(folder: CheckpointFolder, tokenizer: Any) -> Speller:
    """Splits texts by the checkpoint's own tokenizer.json.

    Raises:
        ModelError: it has no token <embedding>.
    """
    from_json = type(tokenizer.backend_tokenizer).from_str
    speller = Speller((folder.path / "tokenizer.json").read_text(encoding="utf-8"), from_json)
    if EMBEDDING not in speller.added_tokens:
        raise ModelError(
            f"{folder.path / 'tokenizer.json'} has no token {EMBEDDING}, which WeMM-Embedding reads; is it another "
            "Qwen3.5? Get tencent/WeMM-Embedding-2B, -4B or -9B"
        )
    return speller


FAMILY = Family(CARDS, PROFILE, parts, positions="multimodal", speller=own_speller, keeps_template=True)
load = loader(FAMILY, "WeMM-Embedding 2B, 4B and 9B on Qwen3.5: 64 frames, Matryoshka (64 or more, --dim).")
