"""The tasks of MMEB-V2 and MMEB-V3, as values: tables of rows over shared readers."""

from collections.abc import Iterator, Mapping

from mmeb_harness import Task
from mmeb_tasks import image, video, visdoc
from mmeb_tasks.editions import EDITION_NAMES, PAGE_FIXED, V3_EDITIONS


class _Editions(Mapping[str, tuple[Task, ...]]):
    """Edition → its tasks, made when they are asked for: most commands need one edition, and none of them all rows."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Task, ...]] = {}

    def __getitem__(self, edition: str) -> tuple[Task, ...]:
        if edition not in self._made:
            if edition not in EDITION_NAMES:
                raise KeyError(edition)
            self._made[edition] = _v3(edition) if edition in V3_EDITIONS else _v2(edition)
        return self._made[edition]

    def __contains__(self, edition: object) -> bool:
        return edition in EDITION_NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(EDITION_NAMES)

    def __len__(self) -> int:
        return len(EDITION_NAMES)


def _v2(edition: str) -> tuple[Task, ...]:
    return (*image.tasks(edition), *video.tasks(edition), *visdoc.tasks(edition))


def _v3(edition: str) -> tuple[Task, ...]:
    """The 78, and 112 more: MCMR stands with the images, as in the official configuration."""
    from mmeb_tasks import agent, audio, mcmr, text

    added = (*mcmr.tasks(edition), *audio.tasks(edition), *text.tasks(edition), *agent.tasks(edition))
    return (*_v2(edition), *added)


#: The 78 tasks of MMEB-V2 or the 190 of MMEB-V3, in every edition; the first one is the default.
EDITIONS: Mapping[str, tuple[Task, ...]] = _Editions()
TASKS = EDITIONS[PAGE_FIXED]
