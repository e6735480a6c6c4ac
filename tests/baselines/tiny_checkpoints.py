"""A tiny random checkpoint for every adapter with weights.

    python -m tests.baselines.tiny_checkpoints FOLDER
    mmeb-eval run --model gme --model-arg path=FOLDER/gme

Their vectors are at chance. They show that an adapter goes through a whole run, on any machine, in minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.baselines.tiny_dual_encoders import make_clip, make_siglip2
from tests.baselines.tiny_late_interaction import save_colpali, save_colqwen2
from tests.baselines.tiny_qwen import (
    save_omni,
    save_qwen2_5_vl,
    save_qwen2_vl,
    save_qwen3_vl,
    save_ume_r1,
    save_wemm,
)

#: Of each adapter, what makes its checkpoint.
MAKERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys(("vlm2vec", "gme", "lamra", "ops_mm", "rzen_embed"), save_qwen2_vl),
    "qwen3_vl_embedding": save_qwen3_vl,
    "ume_r1": save_ume_r1,
    "wemm_embedding": save_wemm,
    "omni_embed_nemotron": save_omni,
    "jina_v4": save_qwen2_5_vl,
    "colpali": save_colpali,
    "colqwen2": save_colqwen2,
    "clip": make_clip,
    "siglip": make_siglip2,
}


def save_checkpoint(model: str, folder: Path) -> Path:
    """The same weights at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    MAKERS[model](folder)
    return folder


if __name__ == "__main__":
    for name in MAKERS:
        print(save_checkpoint(name, Path(sys.argv[1]) / name))
