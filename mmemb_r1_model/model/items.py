"""From an item to a prompt: media opened, resized and cut into patches, text tokenised. On the CPU, no torch."""

from __future__ import annotations

from mmeb_harness import DataError, Item
from mmeb_harness.adapter.pictures import open_picture, picture_size
from mmeb_harness.adapter.texts import check_length
from mmemb_r1_model.model.checkpoint import Checkpoint
from mmemb_r1_model.model.prompt import Prompt, PromptBuilder, system_turn, user_turn
from mmemb_r1_model.model.settings import Settings
from mmemb_r1_model.model.vision import Patches, PictureError, image_patches, image_size, video_patches, video_size


class ItemReader:
    """Reads items as one checkpoint wants to see them."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._tokenizer, self._vision, self._settings = checkpoint.tokenizer, checkpoint.vision, settings
        self._positions = checkpoint.positions

    def prompt(self, item: Item) -> Prompt:
        """An item as tokens and patches.

        Raises:
            DataError: a picture that can't be opened or used; it is named. Or more tokens than the model can read.
        """
        settings, patches = self._settings, self.patches(item)
        builder = PromptBuilder(self._tokenizer, self._vision.merge)
        builder.turn("system\n" + system_turn(settings, item.instruction))
        builder.turn("user\n")
        builder.media(patches, bool(item.frames), settings.frames_per_second)
        builder.text(user_turn(settings, item.text))
        builder.turn("assistant\n")
        prompt = builder.build(patches)
        check_length(item.id, len(prompt), self._positions)
        return prompt

    def patches(self, item: Item) -> Patches | None:
        """Patches of the item's picture or frames; `None` if it has none.

        Raises:
            DataError: as `prompt`.
        """
        if not item.media:
            return None
        if len(item.images) > 1:
            raise DataError(f"item {item.id!r} has {len(item.images)} images; mmemb_r1 takes one, or frames")
        settings = self._settings
        pictures = [open_picture(path) for path in item.media]
        try:
            if item.frames:
                return video_patches(pictures, self._vision, settings.video_min_pixels, settings.video_max_pixels)
            return image_patches(pictures[0], self._vision, settings.min_pixels, settings.max_pixels)
        except PictureError as error:
            raise DataError(f"image {item.media[0]} can't be used: {error}") from error

    def visual_tokens(self, item: Item) -> int:
        """How many, from the first picture's header alone.

        Raises:
            DataError: as `prompt`.
        """
        if not item.media:
            return 0
        factor, settings = self._vision.factor, self._settings
        try:
            if item.frames:
                rows, columns = clip_size(item, settings, factor)
                return -(-len(item.frames) // 2) * (rows * columns // factor**2 + 8)
            width, height = picture_size(item.media[0])
            rows, columns = image_size(height, width, factor, settings.min_pixels, settings.max_pixels)
        except PictureError as error:
            raise DataError(f"image {item.media[0]} can't be used: {error}") from error
        return rows * columns // factor**2 + 2


def clip_size(item: Item, settings: Settings, factor: int) -> tuple[int, int]:
    """Height and width in which the frames of a clip are read, from the first one's header alone.

    Raises:
        DataError: the first frame can't be read.
        PictureError: it has a shape that can't be used.
    """
    width, height = picture_size(item.frames[0])
    bounds = settings.video_min_pixels, settings.video_max_pixels
    return video_size(len(item.frames), height, width, factor, *bounds)
