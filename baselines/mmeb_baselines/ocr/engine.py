"""rapidocr over onnxruntime: a picture to the lines of text on it. Its weights come with the package."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness import ModelError, Scalar
from mmeb_harness.adapter.pictures import open_picture

if TYPE_CHECKING:
    from PIL import Image

INSTALL = "pip install 'mmeb-harness[ocr]'"
#: Stages of the engine and their weights, by name: without one the engine itself would fetch what it takes for newest.
WEIGHTS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
SETTINGS = "config.yaml"
#: The shorter side of a picture in which the engine looks for text, and the longer side above which it shrinks it
#: (`limit_side_len` and `max_side_len` of its settings).
SHORTER_SIDE, LONGER_SIDE = 736, 2000
ENLARGED = f"by whole factors, shorter side up to {SHORTER_SIDE}, longer up to {LONGER_SIDE}, bicubic"


class PageReader:
    """The engine with its own settings; loaded when the first picture comes."""

    def __init__(self) -> None:
        """Find it.

        Raises:
            ModelError: it isn't installed, or not whole.
        """
        self._models = _package_folder() / "models"
        self.made_by: Mapping[str, Scalar] = {**_versions(), "ocr_weights": _weights_hash(self._models)}

    def text(self, path: Path) -> str:
        """What is read off a picture, a line each, from top to bottom; "" where nothing is found.

        Raises:
            DataError: it can't be opened.
        """
        import numpy as np

        picture = np.asarray(enlarged(open_picture(path)))
        lines = self._engine(picture[:, :, ::-1]).txts  # the engine takes BGR
        return "\n".join(lines or ())

    @functools.cached_property
    def _engine(self) -> Any:
        import cv2
        import torch
        from rapidocr import RapidOCR

        threads = torch.get_num_threads()  # of a worker its part of the machine
        cv2.setNumThreads(threads)
        settings: dict[str, Any] = {
            "Global.log_level": "critical",  # it warns of each picture without text
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
        paths = {f"{stage}.model_path": str(self._models / file) for stage, file in WEIGHTS.items()}
        return RapidOCR(params=settings | paths)


def enlarged(picture: Image.Image) -> Image.Image:
    """A small picture, larger by the greatest whole factor that keeps both sides within the engine's own.

    The engine looks for text in a picture whose shorter side is at least 736 pixels, but cuts what it finds out of the
    one that it was given. The rule was written down before any score was seen, and follows from its settings alone.
    """
    from PIL import Image

    width, height = picture.size
    factor = min(SHORTER_SIDE // min(width, height), LONGER_SIDE // max(width, height))
    return picture.resize((width * factor, height * factor), Image.Resampling.BICUBIC) if factor > 1 else picture


def _package_folder() -> Path:
    for package in ("rapidocr", "onnxruntime", "cv2"):
        if importlib.util.find_spec(package) is None:
            raise ModelError(f"model 'ocr' needs {package}, which is not installed: {INSTALL}")
    spec = importlib.util.find_spec("rapidocr")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _versions() -> dict[str, Scalar]:
    import cv2

    return {
        "ocr": f"rapidocr {version('rapidocr')}",
        "onnxruntime": version("onnxruntime"),
        "opencv": cv2.__version__,
        "enlarged": ENLARGED,
    }


def _weights_hash(models: Path) -> str:
    """Of the weights and of the engine's settings.

    Raises:
        ModelError: a file isn't there.
    """
    digest = hashlib.sha256()
    for path in (*(models / file for file in WEIGHTS.values()), models.parent / SETTINGS):
        if not path.is_file():
            raise ModelError(
                f"rapidocr {version('rapidocr')} comes without {path.name}, which model 'ocr' reads with; install it "
                f"anew: {INSTALL}"
            )
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
