"""Names shortened to 64 bits: keys of pairs and rows, labels of candidates."""

from __future__ import annotations

from hashlib import blake2b


def hash64(*parts: str) -> int:
    """64 bits that stand for the parts, the same in every process and run."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")
