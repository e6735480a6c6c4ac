"""The 78 tasks of MMEB-V2, as values: three tables of rows over shared readers."""

from mmeb_tasks import image, video, visdoc
from mmeb_tasks.editions import EDITION_NAMES, PAGE_FIXED

#: The 78 tasks in every edition; the first one is the default.
EDITIONS = {
    edition: (*image.tasks(edition), *video.tasks(edition), *visdoc.tasks(edition)) for edition in EDITION_NAMES
}
TASKS = EDITIONS[PAGE_FIXED]
