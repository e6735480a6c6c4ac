"""`mmeb-eval` with chunks and windows so small that a mini task has many, each on disk as soon as it is encoded."""

from mmeb_harness.cli.commands import main
from mmeb_harness.encode import chunks, windows
from mmeb_harness.store import vectors as store

chunks.CHUNK_ITEMS = 16
windows.WINDOW_ITEMS = 150
store.FLUSH_SECONDS = 0.0

if __name__ == "__main__":
    main()
