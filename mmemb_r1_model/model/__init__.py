"""MMEmb-R1 itself: its settings, prompt, pictures, checkpoint, and how a plain Qwen3-VL becomes one."""
