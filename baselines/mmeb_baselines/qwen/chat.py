"""The turns of Qwen2-VL's and Qwen3-VL's chat template, as strings."""

from __future__ import annotations

from mmeb_baselines.qwen.prompt import Parts

DEFAULT_SYSTEM = "You are a helpful assistant."
END_OF_TEXT = "<|endoftext|>"


def chat(system: str, user: Parts, closing: str = "") -> Parts:
    """A system turn, a user's turn, the opening of the answer, and what is put there."""
    return [
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n",
        *user,
        f"<|im_end|>\n<|im_start|>assistant\n{closing}",
    ]
