"""The choices that move a score, in one line."""

from __future__ import annotations

from mmeb_harness.core.items import Profile


def profile_line(profile: Profile) -> str:
    """The choices that move a score, in one line."""
    frames = profile.frames
    pixels = [
        f"{low or 0:,} to {'any' if high is None else format(high, ',')} pixels {what}"
        for low, high, what in (
            (profile.min_pixels, profile.max_pixels, "an image"),
            (profile.video_min_pixels, profile.video_max_pixels, "a video"),
        )
        if low is not None or high is not None
    ]
    parts = [
        f"profile {profile.name}: instruction {profile.instruction}",
        f"candidate instruction {profile.candidate_instruction}",
        f"{frames.video} frames a video, {frames.clip} a clip, short ones {frames.short}",
        *pixels,
        f"text whitespace {profile.whitespace}",
        f"pooling {profile.pooling}",
        *([] if profile.dimensions is None else [f"first {profile.dimensions} dimensions"]),
        *([] if profile.quantization == "none" else [f"{profile.quantization} vectors"]),
    ]
    return "; ".join(parts) + "."
