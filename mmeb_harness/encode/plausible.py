"""What a model says of how vectors came about, held against what it was asked for, wrote and took."""

from __future__ import annotations

from collections.abc import Sequence

from mmeb_harness.core.embedder import REASONING, ModelInfo, Trace
from mmeb_harness.core.items import Role

#: Setting of a model in which its way of reasoning stands, by role; the values are those of the option of that name.
SETTINGS: dict[Role, str] = {"query": REASONING, "candidate": "candidate_reasoning"}
#: Words that a token may stand for, in any vocabulary.
WORDS_A_TOKEN = 4
#: Tokens in which a model may say that it doesn't reason.
DECLINING = 8
#: Markers and stripped spaces of a rationale; any other token is a byte of it at least.
TOKENS_BESIDE = 64
#: The last vector is ready this late in its call: what comes after it is little.
LAST_SHARE = 0.5
#: The same of a call that is over so soon that little is much, seconds.
SOON, SOON_SHARE = 0.001, 0.1


def trace_problem(trace: Trace, mode: object, info: ModelInfo) -> str | None:
    """Why a vector can't have come about so.

    Args:
        mode: "never", "always" or "adaptive"; anything else says nothing.
    """
    written = trace.rationale or ""
    if trace.path == "direct":
        if mode == "always":
            return 'is of the path "direct", though reasoning is "always"'
        if trace.truncated or trace.reasoning_tokens > DECLINING:
            what = "a truncated rationale" if trace.truncated else f"{trace.reasoning_tokens} reasoning tokens"
            return f'has {what} on the path "direct"'
        return None
    if mode == "never" or (mode == "always" and trace.path == "vetoed"):
        return f'is of the path "{trace.path}", though reasoning is "{mode}"'
    if not info.reasons:
        return f'is of the path "{trace.path}", though its `info` doesn\'t say reasons=True'
    if trace.reasoning_tokens == 0:
        return f'has no reasoning tokens on the path "{trace.path}"'
    if trace.reasoning_tokens * WORDS_A_TOKEN < len(written.split()):
        return f"has {trace.reasoning_tokens} reasoning tokens for a rationale of {len(written.split())} words"
    most = len(written.encode()) + TOKENS_BESIDE
    if trace.rationale is not None and not trace.truncated and trace.reasoning_tokens > most:
        return (
            f"has {trace.reasoning_tokens} reasoning tokens for a rationale of {len(written)} letters; are those of "
            "the prompt counted?"
        )
    return None


def mode_problem(info: ModelInfo, role: Role, mode: object) -> str | None:
    """Why results of this mode can't be told from those of another."""
    name = SETTINGS[role]
    setting, option = info.settings.get(name), name.replace("_", "-")
    if not info.reasons or mode is None or setting == mode:
        return None
    return (
        f"its `info` has {setting!r} as the setting {name!r} under --{option} {mode}: vectors and results of the modes "
        "can't be told apart"
    )


def late_problem(traces: Sequence[Trace], names: Sequence[str], wall: float) -> str | None:
    """Seconds that are over before the batch begins, or once it is over."""
    for name, trace in zip(names, traces, strict=True):
        if trace.seconds is not None and not 0 < trace.seconds <= wall:
            return f"Trace.seconds of {name} is {trace.seconds:g}, in a call that took {wall:.4f} s; {_MEANING}"
    return None


def early_problem(traces: Sequence[Trace], wall: float) -> str | None:
    """No vector is said to have been ready when the call ended; a process that waited for a core looks so, once."""
    seconds = [trace.seconds for trace in traces if trace.seconds is not None]
    if len(seconds) < len(traces):
        return None
    share, left = max(seconds) / wall, wall - max(seconds)
    if share >= LAST_SHARE or (left < SOON and share >= SOON_SHARE):
        return None
    return (
        f"the largest Trace.seconds is {max(seconds):g}, in a call that took {wall:.4f} s until the last vector was "
        f"ready; {_MEANING}"
    )


_MEANING = "it is from the start of the batch until this vector was ready, or None: with the whole batch"
