"""What a checkpoint folder says of how it wants to be used: mmemb_r1.json, beside the weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "mmemb_r1.json"
SCHEMA_VERSION = 1

THINK, END_THINK, EMB = "<think>", "</think>", "<emb>"


class SettingsError(ValueError):
    """The settings file can't be used."""


@dataclass(frozen=True)
class Settings:
    """Every choice of input and readout that can move a vector. Ours, not the paper's.

    Attributes:
        request: the fixed words that end the user's turn.
        default_instruction: system turn of an item without an instruction.
        min_pixels, max_pixels: bounds of one picture, after resizing to whole visual tokens.
        video_min_pixels, video_max_pixels: bounds of a whole clip, as Qwen3-VL budgets them.
        frames_per_second: of given frames, for their timestamps; the benchmark's frames carry no times.
        max_new_tokens: longest rationale, markers not counted.
        threshold: reason if the gate's probability is above it.
    """

    request: str = "Think first if it helps, then embed the input."
    default_instruction: str = "Represent the user's input."
    min_pixels: int = 65_536
    max_pixels: int = 1_843_200
    video_min_pixels: int = 131_072
    video_max_pixels: int = 7_864_320
    frames_per_second: float = 1.0
    max_new_tokens: int = 512
    threshold: float = 0.5
    schema_version: int = SCHEMA_VERSION

    @property
    def planned_rationale(self) -> int:
        """Tokens that a rationale is taken to have, where memory is planned."""
        return self.max_new_tokens // 4


def read_settings(folder: Path) -> Settings:
    """The folder's settings; the defaults if it has none.

    Raises:
        SettingsError: not readable, of a newer schema, or with unknown keys.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return Settings()
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path} is not valid JSON: {error}") from error
    if (version := values.get("schema_version")) != SCHEMA_VERSION:
        raise SettingsError(f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}")
    if unknown := set(values) - {field.name for field in dataclasses.fields(Settings)}:
        raise SettingsError(f"{path} has unknown settings: {', '.join(sorted(unknown))}")
    return Settings(**values)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings beside the weights."""
    (folder / FILE_NAME).write_text(json.dumps(dataclasses.asdict(settings), indent=2) + "\n", encoding="utf-8")
