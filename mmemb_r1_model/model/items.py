"""From an item to a prompt: media opened, resized and cut into patches, text tokenised. On the CPU, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmeb_harness import DataError, Item
from mmeb_harness.adapter.pictures import open_picture, picture_size
from mmeb_harness.adapter.pixels import Patches
from mmeb_harness.adapter.texts import check_length, shortened
from mmemb_r1_model.model.checkpoint import Checkpoint
from mmemb_r1_model.model.prompt import Prompt, PromptBuilder, system_turn, words_behind
from mmemb_r1_model.model.settings import Settings
from mmemb_r1_model.model.vision import PictureError, image_patches, image_size, video_patches, video_size

#: Of a prompt without media, where nobody asks for more: as many as Qwen3-VL-Embedding takes.
MAX_TEXT_TOKENS = 8192
#: More than what stands around an item's words, as text.
_TURNS_BYTES = 128


class ItemReader:
    """Reads items as one checkpoint wants to see them."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, max_text_tokens: int | None = None) -> None:
        """Set up; nothing is read yet.

        Args:
            max_text_tokens: of an item without media, as `fitted` cuts it.
        """
        self.max_text_tokens = max_text_tokens
        self._tokenizer, self._vision, self._settings = checkpoint.tokenizer, checkpoint.vision, settings
        self._positions = checkpoint.positions

    def fitted(self, item: Item) -> Item:
        """The item; a text whose prompt is too long without its end, so that the request behind it stays.

        Raises:
            DataError: also without its text it is too long.
        """
        limit = self.max_text_tokens
        words = item.text + item.instruction + self._settings.request + self._settings.default_instruction
        # A token is a byte at least: few items are long enough to be looked at.
        if limit is None or item.media or len(words.encode(errors="surrogatepass")) + _TURNS_BYTES <= limit:
            return item
        return shortened(item, self._length, limit, self._tokenizer.speller)

    def _length(self, item: Item) -> int:
        return len(self._laid_out(item))

    def prompt(self, item: Item) -> Prompt:
        """An item as tokens and patches.

        Raises:
            DataError: a picture that can't be opened or used; it is named. Or more tokens than the model can read.
        """
        prompt = self._laid_out(item)
        check_length(item.id, len(prompt), self._positions)
        return prompt

    def read(self, item: Item) -> Prompt:
        """The same, a text cut where it is too long."""
        return self.prompt(self.fitted(item))

    def _laid_out(self, item: Item) -> Prompt:
        builder = PromptBuilder(self._tokenizer, self._vision.merge)
        builder.turn("system\n" + system_turn(self._settings, item.instruction))
        builder.turn("user\n")
        self.show(builder, item.between(after=words_behind(self._settings, item.text)))
        builder.turn("assistant\n")
        return builder.build()

    def show(self, builder: PromptBuilder, item: Item) -> None:
        """Lay out an item: its clip and its words, or each picture where it stands among them.

        Raises:
            DataError: as `prompt`.
        """
        if item.frames:
            builder.clip(self._clip(item), self._settings.frames_per_second)
            builder.text(item.text)
            return
        for piece in item.pieces:
            if isinstance(piece, Path):
                builder.picture(self._picture(piece))
            else:
                builder.text(piece)

    def _clip(self, item: Item) -> Patches:
        bounds = self._settings.video_min_pixels, self._settings.video_max_pixels
        frames = [open_picture(path) for path in item.frames]
        with _named(item.frames[0]):
            return video_patches(frames, self._vision, *bounds)

    def _picture(self, path: Path) -> Patches:
        picture = open_picture(path)
        with _named(path):
            return image_patches(picture, self._vision, self._settings.min_pixels, self._settings.max_pixels)

    def visual_tokens(self, item: Item) -> int:
        """How many, from the headers of its pictures, or of its first frame, alone.

        Raises:
            DataError: as `prompt`.
        """
        if item.frames:
            with _named(item.frames[0]):
                rows, columns = clip_size(item, self._settings, self._vision.factor)
            return -(-len(item.frames) // 2) * (rows * columns // self._vision.factor**2 + 8)
        return sum(map(self._picture_tokens, item.images))

    def _picture_tokens(self, path: Path) -> int:
        width, height = picture_size(path)
        settings, factor = self._settings, self._vision.factor
        with _named(path):
            rows, columns = image_size(height, width, factor, settings.min_pixels, settings.max_pixels)
        return rows * columns // factor**2 + 2


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except PictureError as error:
        raise DataError(f"image {path} can't be used: {error}") from error


def clip_size(item: Item, settings: Settings, factor: int) -> tuple[int, int]:
    """Height and width in which the frames of a clip are read, from the first one's header alone.

    Raises:
        DataError: the first frame can't be read.
        PictureError: it has a shape that can't be used.
    """
    width, height = picture_size(item.frames[0])
    bounds = settings.video_min_pixels, settings.video_max_pixels
    return video_size(len(item.frames), height, width, factor, *bounds)
