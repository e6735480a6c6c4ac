"""What the mini suites are made of, held by one SHA-256 a split, and one for what MMEB-V3 adds.

Every later figure on a mini suite is a figure on exactly these texts, pixels and sounds. The values below are never
changed: whoever wants other data makes another suite, with another name.
"""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mmeb_tasks.mini import TEST_QUERIES, Split, make_split
from PIL import Image

#: Of the test split as `mmeb-eval run` makes it, and of a training split of as many queries a task; both of seed 0.
YARDSTICK: dict[Split, str] = {
    "test": "54ceab7be1d66be2e25f6fa65ef559373e3e252d1b2ef0912134e31d343052e8",
    "train": "f9d9fa7bf9bd1bb1550b837382b26667ee154461471b075f22874e782aed2116",
}
QUERIES_A_TASK = TEST_QUERIES
#: Of the test split's 112 tasks that MMEB-V3 adds, of seed 0.
ADDITIONS = "c69d556f8db3d6c01d5c3f8205b25720bf7ef0c9d772c219c4babd4e4a478187"


def content_of(path: Path) -> bytes:
    """What a file says, however it is stored: the rows of a table, the decoded pixels of a picture, a file's bytes."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        return json.dumps(rows, sort_keys=True, default=lambda value: value.hex()).encode()
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            return f"{picture.mode} {picture.size}".encode() + picture.tobytes()
    return path.read_bytes()


def sha256_of(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        total.update(f"{name} {hashlib.sha256(content_of(path)).hexdigest()}\n".encode())
    return total.hexdigest()


@pytest.mark.slow
def test_the_test_split_is_what_it_was(mini: Path) -> None:
    assert sha256_of(mini) == YARDSTICK["test"]


@pytest.mark.slow
def test_what_mmeb_v3_adds_is_what_it_was(mini_additions: Path) -> None:
    assert sha256_of(mini_additions) == ADDITIONS


@pytest.mark.slow
def test_the_training_split_is_what_it_was(tmp_path: Path) -> None:
    make_split(tmp_path / "train", 0, "train", QUERIES_A_TASK)
    assert sha256_of(tmp_path / "train") == YARDSTICK["train"]
