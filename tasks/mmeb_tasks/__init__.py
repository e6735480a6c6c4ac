"""The 78 tasks of MMEB-V2, as values: three tables of rows over shared readers."""

from mmeb_tasks import image, video, visdoc

TASKS = (*image.TASKS, *video.TASKS, *visdoc.TASKS)
