"""The tasks of MMEB-V2 and MMEB-V3, as values: tables of rows over shared readers."""

from mmeb_harness import Task
from mmeb_tasks import agent, audio, image, mcmr, text, video, visdoc
from mmeb_tasks.editions import PAGE_FIXED, V2_EDITIONS, V3_EDITIONS


def _v2(edition: str) -> tuple[Task, ...]:
    return (*image.tasks(edition), *video.tasks(edition), *visdoc.tasks(edition))


def _v3(edition: str) -> tuple[Task, ...]:
    """The 78, and 112 more: MCMR stands with the images, as in the official configuration."""
    added = (*mcmr.tasks(edition), *audio.tasks(edition), *text.tasks(edition), *agent.tasks(edition))
    return (*_v2(edition), *added)


#: The 78 tasks of MMEB-V2 or the 190 of MMEB-V3, in every edition; the first one is the default.
EDITIONS = {edition: _v2(edition) for edition in V2_EDITIONS} | {edition: _v3(edition) for edition in V3_EDITIONS}
TASKS = EDITIONS[PAGE_FIXED]
