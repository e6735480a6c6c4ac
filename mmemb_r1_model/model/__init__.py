"""MMEmb-R1 itself: its settings, prompt, pictures, checkpoint, and how a plain Qwen3-VL becomes one.

Turns items into tokens and patches, and these into batches. Imports `disk` alone; torch enters late, so that an item
can be prepared without it.
"""
