"""The suite "mixed": in every task reasoning pays for some queries and hurts for others, and only the media tell which.

Nine synthetic tasks of group "mixed", three a modality, in worlds like the one in miniature; no part of the benchmark,
chosen by name or group. A task's queries have the same words but for a random rule table. A sign in the picture, clip
or page tells LOOK, where a rationale hurts, from CHAIN, where it pays; unless the sign is the dots, LOOK has dots too.

Frozen: `tests/tasks/test_mixed.py` holds what it is made of. Whoever wants other data makes another suite, by another
name.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from mmeb_tasks.miniworld.tasks import Split, World, task_of

__all__ = ["TASKS", "TEST_QUERIES", "VERSION", "WORLDS", "make_split"]

VERSION = "1"
#: Of each task, in the test split that is frozen.
TEST_QUERIES = 512
#: Shares of LOOK. In miniworld a rationale costs a caption a third of what it gives a chain: where three queries in
#: four are LOOK the better fixed mode is never to reason, else always.
_FEW, _HALF, _MOST = 0.35, 0.5, 0.75

# All rationales of captions name the details. Where some don't, as in miniworld, stage 2 learns to leave them out, and
# nothing hurts any more.
_image = functools.partial(World, group="mixed", details_share=1.0)
_video = functools.partial(_image, modality="video", queries="clip")
_page = functools.partial(_image, modality="visdoc", metric="ndcg_linear@5", queries="page")

WORLDS = (
    _image("mixed-image-dots", sign="dots", look_share=_HALF, hops=(2, 3, 5)),
    _image("mixed-image-frame", sign="frame", look_share=_MOST),
    _image("mixed-image-ground", sign="ground", look_share=_FEW, candidates="picture"),
    _video("mixed-video-drift", sign="drift", look_share=_HALF),
    _video("mixed-video-moment", sign="moment", look_share=_MOST),
    _video("mixed-video-fade", sign="fade", look_share=_FEW, candidates="picture"),
    _page("mixed-page-mark", sign="mark", look_share=_HALF, candidates="page"),
    _page("mixed-page-ground", sign="ground", look_share=_MOST),
    _page("mixed-page-layout", sign="layout", look_share=_FEW, candidates="page"),
)
TASKS = tuple(task_of(world) for world in WORLDS)


def make_split(folder: Path, seed: int, split: Split, num_queries: int, tasks: Sequence[str] | None = None) -> None:
    """Make one split, as `miniworld.make_split` does."""
    from mmeb_tasks.miniworld.write import write_split

    write_split(WORLDS, VERSION, folder, seed, split, num_queries, tasks)
