"""The golden file of MMEB-V3 on disk: synthetic files in the official layout, by kind."""

from __future__ import annotations

import hashlib
import io
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.tasks.golden import read_golden

GOLDEN_V3: dict[str, Any] = read_golden("parser_golden_v3")
CASES: dict[str, Any] = GOLDEN_V3["tasks"]
ERROR_CASES: list[dict[str, Any]] = GOLDEN_V3["error_cases"]


def files_of(case: dict[str, Any]) -> dict[str, Any]:
    """A case's files; those of "as TASK" are another case's."""
    files = case["files"]
    return files_of(CASES[files.removeprefix("as ")]) if isinstance(files, str) else files


def write_files(case: dict[str, Any], folder: Path) -> None:
    for relative, file in files_of(case).items():
        write_file(folder, relative, file)


def write_file(folder: Path, relative: str, file: dict[str, Any]) -> None:
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    if file["kind"] == "parquet":
        pq.write_table(_table(file), path)
    else:
        path.write_bytes(_content(relative, file))


def _content(relative: str, file: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(relative.encode()).digest()
    match file["kind"]:
        case "text":
            return str(file["text"]).encode()
        case "wav":
            return tone(220 + digest[0], file["seconds"], file["rate"])
        case _:
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), tuple(digest[:3])).save(buffer, "PNG" if relative.endswith("png") else "JPEG")
            return buffer.getvalue()


def tone(hertz: float, seconds: float, rate: int, channels: int = 1) -> bytes:
    """A WAV file of 16 bits."""
    times = np.arange(round(seconds * rate)) / rate
    samples = np.round(8000 * np.sin(2 * math.pi * hertz * times)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).tobytes())
    return buffer.getvalue()


_TYPES: dict[str, pa.DataType] = {
    "binary": pa.binary(),
    "list<string>": pa.list_(pa.string()),
    "bytes_path": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
}


def _table(file: dict[str, Any]) -> pa.Table:
    types = {name: _TYPES.get(kind) or pa.type_for_alias(kind) for name, kind in file["types"].items()}
    rows = [{name: unhexed(value) for name, value in row.items()} for row in file["rows"]]
    return pa.Table.from_pylist(rows, pa.schema(list(types.items())))


def unhexed(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else {name: unhexed(part) for name, part in value.items()}
    return value
