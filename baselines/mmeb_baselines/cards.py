"""What is known of a checkpoint, as data: a row of baselines/README.md, and the defaults of its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmeb_harness.adapter.checkpoints import CHECKPOINT_FILES, CheckpointFolder, find_checkpoint


@dataclass(frozen=True)
class Card:
    """One published checkpoint of a model family.

    Attributes:
        hub_id: repository on the Hugging Face hub; what `path` defaults to is the family's first card.
        revision: the commit that is fetched; `None`: none is known, the hub's newest is taken.
        parameters: of the whole checkpoint; `None`: not known.
        dimensions: of a vector, or of one of its vectors for late interaction.
        model: the registered name that runs it.
        prompt: of a query with an image, in short; the exact string is the adapter's.
        pooling: which state becomes the vector.
        resolution: bounds of a picture.
        frames: how a video is shown.
        license: as stated by its publisher.
        source: where prompt, pooling and sizes were seen.
        matryoshka: smallest number of leading dimensions it was trained for; `None`: not trained for that.
        published: its name in mmeb_harness/published/scores.csv; "" if it has no row there.
        unsure: what was not seen in its own code.
    """

    hub_id: str
    revision: str | None
    parameters: int | None
    dimensions: int
    model: str
    prompt: str
    pooling: str
    resolution: str
    frames: str
    license: str
    source: str
    matryoshka: int | None = None
    published: str = ""
    unsure: str = ""


def find_pinned(
    cards: Sequence[Card], path: str | None, revision: str | None, files: Sequence[str] = CHECKPOINT_FILES
) -> CheckpointFolder:
    """The checkpoint at `path`, by default the first card's; in the revision asked for, else in that of its card.

    Args:
        files: glob patterns of what is downloaded.

    Raises:
        ModelError: it isn't there.
    """
    name = path or cards[0].hub_id
    known = next((card.revision for card in cards if card.hub_id == name), None)
    return find_checkpoint(name, revision or known, files)
