"""What a checkpoint folder says of how it wants to be used: mmemb_r1.json, beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from mmeb_harness import MODES as MODES
from mmeb_harness import JsonFile
from mmeb_harness import Mode as Mode
from mmemb_r1_model.disk.config import Least1
from mmemb_r1_model.disk.errors import ModelError
from mmemb_r1_model.disk.files import write_json

FILE_NAME = "mmemb_r1.json"
SCHEMA_VERSION = 1

THINK, END_THINK, EMB = "<think>", "</think>", "<emb>"

#: Tokens that a Qwen3-VL was made for, its longest (`max_position_embeddings`).
LONGEST_CONTEXT = 262_144

#: How long it may be, of a checkpoint with a short budget. Graded: as the gate says, in mode always long.
Budget = Literal["graded", "short", "long"]


@dataclass(frozen=True)
class Short:
    """A short budget: what makes a gate a graded one, of three actions. Ours, not the paper's.

    Attributes:
        tokens: of a short rationale at most, markers not counted; then it is closed.
        bias: added to the logit of </think> where the answer begins, which is that of a short rationale. No model was
            ever asked for that token there: it begins some 13 nats below <think>, where nothing would be learnt.
    """

    tokens: Least1
    bias: float | int


@dataclass(frozen=True)
class Calibration:
    """What makes the gate a forecast: p(reasoning pays) = sigmoid(slope * logit + intercept), after Platt (1999).

    Fitted when training is over, on held-out prompts; whatever trains the checkpoint further drops it.

    Attributes:
        slope, intercept: of the raw gate's logit, that of <think> minus that of <emb>; both in nats.
        threshold: reason if that probability is above it.
        prompts: on how many it was fitted.
    """

    slope: Annotated[float | int, Ge(0)]
    intercept: float | int
    threshold: Annotated[float | int, Ge(0), Le(1)]
    prompts: Least1


@dataclass(frozen=True)
class Veto:
    """When a rationale is given up: a model that is so unsure of what it writes embeds directly.

    Attributes:
        bound: a token of the rationale, or its end, that the model writes with a lower log-probability, in nats.
        tokens: only of the first so many; 0: of all.
    """

    bound: float
    tokens: int = 0

    def rejects(self, log_probs: Sequence[float]) -> bool:
        """Whether a rationale is given up at its last token.

        Args:
            log_probs: of all tokens so far, the first behind <think>.
        """
        return bool(log_probs) and log_probs[-1] < self.bound and (not self.tokens or len(log_probs) <= self.tokens)


@dataclass(frozen=True)
class Settings:
    """Every choice of input and readout that can move a vector. Ours, not the paper's.

    Whole numbers stay whole where a float may stand: the model's fingerprint is of what is written.

    Attributes:
        request: the fixed words that end the user's turn.
        default_instruction: system turn of an item without an instruction.
        min_pixels, max_pixels: bounds of one picture, after resizing to whole visual tokens.
        video_min_pixels, video_max_pixels: bounds of a whole clip, as Qwen3-VL budgets them.
        frames_per_second: of given frames, for their timestamps; the benchmark's frames carry no times.
        max_new_tokens: longest rationale, markers not counted.
        threshold: reason if the raw gate's probability is above it.
        calibration: of the gate, with a threshold of its own; `None`: the gate is raw.
        short: of a graded gate; `None`: the gate is binary.
    """

    request: str = "Think first if it helps, then embed the input."
    default_instruction: str = "Represent the user's input."
    min_pixels: Least1 = 65_536
    max_pixels: Least1 = 1_843_200
    video_min_pixels: Least1 = 131_072
    video_max_pixels: Least1 = 7_864_320
    frames_per_second: Annotated[float | int, Gt(0)] = 1.0
    max_new_tokens: Annotated[int, Ge(1), Le(LONGEST_CONTEXT)] = 512
    threshold: Annotated[float | int, Ge(0), Le(1)] = 0.5
    calibration: Calibration | None = None
    short: Short | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def planned_rationale(self) -> int:
        """Tokens that a rationale is taken to have, where memory is planned."""
        return self.max_new_tokens // 4


_FILE = JsonFile(
    Settings,
    "a settings file",
    SCHEMA_VERSION,
    way_out="write it again with `mmemb-r1 add-tokens`",
    if_damaged="mend it, or remove it for the defaults",
    added=frozenset(field.name for field in dataclasses.fields(Settings)),
    sparse=frozenset({"calibration", "short"}),
    error=ModelError,
)


def read_settings(folder: Path) -> Settings:
    """The folder's settings; the defaults if it has none.

    Raises:
        ModelError: not readable, of another schema, with unknown keys, or numbers that can't be meant.
    """
    path = folder / FILE_NAME
    settings = _FILE.read(path) if path.is_file() else Settings()
    for least, most in (("min_pixels", "max_pixels"), ("video_min_pixels", "video_max_pixels")):
        if getattr(settings, least) > getattr(settings, most):
            raise ModelError(f"{path}: {least} is more than {most}; mend it, or remove it for the defaults")
    if settings.short is not None and settings.short.tokens >= settings.max_new_tokens:
        raise ModelError(
            f"{path}: short.tokens {settings.short.tokens} must be below max_new_tokens {settings.max_new_tokens}; "
            "mend it, or remove short for a binary gate"
        )
    return settings


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings beside the weights."""
    write_json(folder / FILE_NAME, _FILE.values(settings))
