"""Vectors on disk, by the content of their items: written in chunks, read back, surveyed and cleared away."""
