"""The golden tables on disk: what the official parsers made of small synthetic data, all 78 tasks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"


def read_golden(name: str) -> Any:
    with gzip.open(GOLDEN_FOLDER / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


PARSERS = read_golden("parser_golden")
GOLDEN_TASKS: dict[str, Any] = PARSERS["tasks"]
ERROR_CASES: list[dict[str, Any]] = PARSERS["error_cases"]


def picture(relative: str) -> bytes:
    """A 32x32 picture of one colour, named by the path."""
    colour = tuple(hashlib.sha256(relative.encode()).digest()[:3])
    buffer = io.BytesIO()
    suffix = relative.rsplit(".", 1)[-1].lower()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG" if suffix == "png" else "JPEG")  # type: ignore[arg-type]
    return buffer.getvalue()


def write_case(case: dict[str, Any], folder: Path) -> None:
    """Write a case's files and tables in the harness's folder convention."""
    for relative in sorted(case["files"]):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        is_picture = relative.lower().endswith((".jpg", ".jpeg", ".png"))
        path.write_bytes(picture(relative) if is_picture else b"not an image\n")
    for key, rows in case["tables"].items():
        repo, config, split = key.split("|")
        path = folder / "annotations" / repo / (config or "default") / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([with_page_bytes(row) for row in rows]), path)


def with_page_bytes(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("image"), dict):
        return row
    return row | {"image": {"bytes": picture(row["image"]["path"]), "path": None}}


def toy_vector(text: str, media: list[str] | None) -> np.ndarray:
    digest = hashlib.sha256((text + "|" + "|".join(media or [])).encode()).digest()
    vector = ((np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5) / 127.5).astype(np.float64)
    return vector / math.sqrt(math.fsum(vector * vector))
