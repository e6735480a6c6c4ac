"""Evaluation harness for multimodal embedding models.

The public names are those in `__all__`; everything that a task or model plugin needs is among them.
"""

from mmeb_harness.errors import (
    DataError,
    HarnessError,
    ModelError,
    OptionError,
    ResultError,
    UnknownNameError,
)
from mmeb_harness.types import (
    MODALITIES,
    BudgetedEmbedder,
    Embedder,
    EncodePath,
    EncodeResult,
    Item,
    Layout,
    MetricName,
    Modality,
    ModelInfo,
    Role,
    Samples,
    Source,
    Suite,
    Task,
    Trace,
    Vectors,
    WarmableEmbedder,
)

__version__ = "0.1.0"

__all__ = [
    "MODALITIES",
    "BudgetedEmbedder",
    "DataError",
    "Embedder",
    "EncodePath",
    "EncodeResult",
    "HarnessError",
    "Item",
    "Layout",
    "MetricName",
    "Modality",
    "ModelError",
    "ModelInfo",
    "OptionError",
    "ResultError",
    "Role",
    "Samples",
    "Source",
    "Suite",
    "Task",
    "Trace",
    "UnknownNameError",
    "Vectors",
    "WarmableEmbedder",
    "__version__",
]
