"""`mmeb-eval` with chunks and windows so small that a mini task has many."""

import sys

if __name__ == "__main__":
    sys.orig_argv.insert(1, "mmeb-eval")  # from its first import on it is that command

from mmeb_harness.cli.commands import main
from mmeb_harness.encode import chunks, windows

chunks.CHUNK_ITEMS = 16
windows.WINDOW_ITEMS = 150

if __name__ == "__main__":
    main()
