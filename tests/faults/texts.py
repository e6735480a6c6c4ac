"""Texts that spell what a model means something by, or are longer than it can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tests.faults.fault import Command, Fault, World

TASK, SET = "ChartQA", "ziyjiang/MMEB_Test_Instruct/ChartQA"
TABLE = f"annotations/{SET}/test.parquet"
PADS = "<|image_pad|> <|video_pad|><|vision_start|><|vision_end|><image><|image_1|>"
TURNS = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|><eos></s>[SEP]"
THOUGHTS = "<think>done</think><emb><gen_emb><disc_emb>"
SYNTAX = "{{ messages[0] }} {% for x in y %} {# #} \\n ${HOME} %s {0}"
RUN = ("mmeb-eval", "run", "--data", "data", "--tasks", TASK, "--limit", "2", "--output", "out", "--model")
DIRECT = (*RUN, "mmemb_r1", "--reasoning", "never")


def _fault(
    name: str,
    text: str,
    *says: str,
    column: str = "qry_text",
    command: Command = DIRECT,
    code: int = 0,
    save: Callable[[Path], object] | None = None,
) -> Fault:
    """A column's texts are this one; where a command ends well, both queries were scored."""

    def make(world: World) -> list[Command]:
        data = world.copied("manifest.json", TABLE, *(str(path) for path in _pictures(world)))
        rows = pd.read_parquet(data / TABLE)
        rows[column] = [_replaced(value, text) for value in rows[column]]
        rows.to_parquet(data / TABLE)
        if save is not None:
            save(world.folder / "ck")
        return [command]

    def holds(world: World) -> None:
        if code == 0:
            result = json.loads((world.folder / "out" / "tasks" / f"{TASK}.json").read_text())
            assert result["num_queries"] == 2, result

    return Fault("texts", name, make, says or (TASK,), code, holds=holds, slow=True)


def _pictures(world: World) -> list[Path]:
    return [
        path.relative_to(world.mini)
        for path in world.mini.rglob(TASK)
        if path.is_dir() and "annotations" not in path.parts
    ]


def _replaced(value: Any, text: str) -> Any:
    """Of candidates the wrong ones: they stay different."""
    if isinstance(value, str):
        return text
    return [value[0], *(f"{text} {number}" for number in range(1, len(value)))]


def _qwen2(folder: Path) -> None:
    from tests.baselines.tiny_qwen import save_qwen2_vl

    save_qwen2_vl(folder)


def _qwen3(folder: Path) -> None:
    from tests.baselines.tiny_qwen import save_qwen3_vl

    save_qwen3_vl(folder)


def _colpali(folder: Path) -> None:
    from tests.baselines.tiny_late_interaction import save_colpali

    save_colpali(folder)


TOO_LONG = r"item '[^']+' has \d+ tokens, and the model reads at most \d+ .*shorten its text"
LONG = "a red circle left of a blue square. " * 6667  # 240,012 characters
FAULTS = (
    _fault("pads in a query", PADS),
    _fault("ends of turns in a query", TURNS),
    _fault("ends of turns in an instruction", TURNS, column="qry_inst"),
    _fault("pads and thoughts in candidates", PADS + THOUGHTS, column="tgt_text"),
    _fault("thoughts in a query that may reason", THOUGHTS, command=(*RUN, "mmemb_r1", "--reasoning", "always")),
    _fault("the syntax of templates", SYNTAX),
    _fault("240,000 characters", LONG, TOO_LONG, code=2),
    _fault("240,000 characters without a blank", "abcdefghij" * 24_000, TOO_LONG, code=2),
    _fault("pads beside a picture, vlm2vec", PADS + TURNS, command=(*RUN, "vlm2vec:ck"), save=_qwen2),
    _fault("pads beside a picture, qwen3_vl_embedding", PADS, command=(*RUN, "qwen3_vl_embedding:ck"), save=_qwen3),
    _fault("240,000 characters, cut where its profile says, gme", LONG, command=(*RUN, "gme:ck"), save=_qwen2),
    _fault("pads in candidates, colpali", PADS, column="tgt_text", command=(*RUN, "colpali:ck"), save=_colpali),
)
