"""Evaluation harness for multimodal embedding models.

    import mmeb_harness as mmeb
    run = mmeb.evaluate("mmemb_r1", tasks="DocVQA", data="data")

The public names are those in `__all__`; everything that a task or model plugin needs is among them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.columns import Column, Row, parquet_rows, shown
from mmeb_harness.core.embedder import (
    MODES,
    BudgetedEmbedder,
    Embedder,
    EncodePath,
    EncodeResult,
    MemoryEmbedder,
    Mode,
    ModelInfo,
    ModesEmbedder,
    ReferenceEmbedder,
    StreamingEmbedder,
    TokenSequence,
    TokenVectors,
    Trace,
    UploadingEmbedder,
    WarmableEmbedder,
    Work,
)
from mmeb_harness.core.entry import run_command
from mmeb_harness.core.environment import __version__
from mmeb_harness.core.errors import (
    DataError,
    HarnessError,
    ModelError,
    OptionError,
    ResultError,
    UnknownNameError,
    one_line,
)
from mmeb_harness.core.files import (
    is_data,
    is_lfs_pointer,
    lock_file,
    make_folder,
    matching,
    read_json,
    regular_file,
    replacing,
)
from mmeb_harness.core.items import (
    MODALITIES,
    CandidateInstruction,
    Frames,
    InstructionPlacement,
    Item,
    Layout,
    Medium,
    MetricName,
    Modality,
    PageFiles,
    Profile,
    Quantization,
    Role,
    Samples,
    Scalar,
    ShortClips,
    Similarity,
    Sound,
    Source,
    Vectors,
    Whitespace,
)
from mmeb_harness.core.peer import Peer, import_peer, read_batch_size
from mmeb_harness.core.pictures import FRAME_SUFFIXES, MOST_PIXELS, PICTURE_SUFFIXES, frame_names, opened_picture
from mmeb_harness.core.plugins import call_plugin
from mmeb_harness.core.reading import JsonFile, build_config, parse_record, parse_yaml, read_yaml
from mmeb_harness.core.sounds import SHORTEST_SOUND, sound_seconds
from mmeb_harness.core.stated import ITEM_FIELDS, StatedItem, stated_item
from mmeb_harness.core.tasks import Archive, Files, FolderFormat, HubSource, Pages, Suite, Table, Task
from mmeb_harness.core.terminal import say
from mmeb_harness.core.trackers import TRACKERS, Tracked, TrackerName, check_trackers, tracking
from mmeb_harness.core.waiting import Advance, progress_of

if TYPE_CHECKING:
    from mmeb_harness.api.evaluate import evaluate, evaluate_modes
    from mmeb_harness.api.side_by_side import Boards, Compared, compare, leaderboard
    from mmeb_harness.results.outcome import Run, load_run

#: What evaluates and compares, and where it stands: a plugin that only needs the types doesn't wait for it.
_LATE = {
    "Boards": "mmeb_harness.api.side_by_side",
    "Compared": "mmeb_harness.api.side_by_side",
    "Run": "mmeb_harness.results.outcome",
    "compare": "mmeb_harness.api.side_by_side",
    "evaluate": "mmeb_harness.api.evaluate",
    "evaluate_modes": "mmeb_harness.api.evaluate",
    "leaderboard": "mmeb_harness.api.side_by_side",
    "load_run": "mmeb_harness.results.outcome",
}

__all__ = [
    "FRAME_SUFFIXES",
    "ITEM_FIELDS",
    "MODALITIES",
    "MODES",
    "MOST_PIXELS",
    "PICTURE_SUFFIXES",
    "SHORTEST_SOUND",
    "TRACKERS",
    "Advance",
    "Archive",
    "Boards",
    "BudgetedEmbedder",
    "CandidateInstruction",
    "Column",
    "Compared",
    "DataError",
    "Embedder",
    "EncodePath",
    "EncodeResult",
    "Files",
    "FolderFormat",
    "Frames",
    "HarnessError",
    "HubSource",
    "InstructionPlacement",
    "Item",
    "JsonFile",
    "Layout",
    "Medium",
    "MemoryEmbedder",
    "MetricName",
    "Modality",
    "Mode",
    "ModelError",
    "ModelInfo",
    "ModesEmbedder",
    "OptionError",
    "PageFiles",
    "Pages",
    "Peer",
    "Profile",
    "Quantization",
    "ReferenceEmbedder",
    "ResultError",
    "Role",
    "Row",
    "Run",
    "Samples",
    "Scalar",
    "ShortClips",
    "Similarity",
    "Sound",
    "Source",
    "StatedItem",
    "StreamingEmbedder",
    "Suite",
    "Table",
    "Task",
    "TokenSequence",
    "TokenVectors",
    "Trace",
    "Tracked",
    "TrackerName",
    "UnknownNameError",
    "UploadingEmbedder",
    "Vectors",
    "WarmableEmbedder",
    "Whitespace",
    "Work",
    "__version__",
    "build_config",
    "call_plugin",
    "check_trackers",
    "compare",
    "evaluate",
    "evaluate_modes",
    "frame_names",
    "import_peer",
    "is_data",
    "is_lfs_pointer",
    "leaderboard",
    "load_run",
    "lock_file",
    "make_folder",
    "matching",
    "one_line",
    "opened_picture",
    "parquet_rows",
    "parse_record",
    "parse_yaml",
    "progress_of",
    "read_batch_size",
    "read_json",
    "read_yaml",
    "regular_file",
    "replacing",
    "run_command",
    "say",
    "shown",
    "sound_seconds",
    "stated_item",
    "tracking",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
