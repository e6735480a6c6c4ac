"""Names shortened to 64 bits: keys of pairs and rows, labels of candidates; and files."""

from __future__ import annotations

from hashlib import blake2b, file_digest
from pathlib import Path


def hash64(*parts: str) -> int:
    """64 bits that stand for the parts, the same in every process and run."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")


def file_fingerprint(path: Path) -> str:
    """Sixteen hex digits of a file's bytes."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]
