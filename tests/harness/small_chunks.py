"""`mmeb-eval` with chunks and windows so small that a mini task has many, each on disk as soon as it is encoded."""

from mmeb_harness import chunks, store, windows
from mmeb_harness.cli import main

chunks.CHUNK_ITEMS = 16
windows.WINDOW_ITEMS = 150
store.FLUSH_SECONDS = 0.0

if __name__ == "__main__":
    main()
