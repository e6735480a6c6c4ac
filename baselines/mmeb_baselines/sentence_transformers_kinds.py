"""The kinds of checkpoints that `st` takes: SentenceTransformers, one vector an item, and MultiVectorEncoders, several.

Several (late interaction) are scored by MaxSim: the sum over a query's vectors of the greatest dot product with one of
the candidate's. Which of an item's tokens have a vector is up to the checkpoint: queries may be filled up with mask
tokens, punctuation in candidates left out, similar tokens pooled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.unit import unit_vectors
from mmeb_harness import Item, ModelError, Scalar, Similarity, TokenVectors, Vectors
from mmeb_harness.adapter.checkpoints import CheckpointFolder

#: What a model returned of one item: (d,), or (t, d) of several vectors.
Returned: TypeAlias = NDArray[np.floating[Any]]

CONFIG, MODULES = "config_sentence_transformers.json", "modules.json"
#: Saved similarities that mean MaxSim: PyLate's "MaxSim", and in older checkpoints a word about single vectors.
_SCORED_BY_MAX_SIM = ("maxsim", "cosine", "dot")
#: How far from 1 the length of a vector may be that was normalised in bfloat16.
_ROUNDING = 0.01


@dataclass(frozen=True)
class ModelKind:
    """A class of sentence-transformers.

    Attributes:
        name: the class.
        similarity: how the harness compares the vectors.
        head: the module that the library makes up where a checkpoint has no modules.json.
        settings: of a loaded model, what only this kind has and moves vectors.
        vectors: what was returned of each item, the items, whose it is (for messages), the model's dtype → the result.
    """

    name: str
    similarity: Similarity
    head: str
    settings: Callable[[Any], dict[str, Scalar]]
    vectors: Callable[[Sequence[Returned], Sequence[Item], str, str], Vectors | TokenVectors]


def model_kind_of(checkpoint: CheckpointFolder) -> ModelKind:
    """By the checkpoint's files, as sentence-transformers itself goes about it.

    Raises:
        ModelError: another kind, or one whose scores are not MaxSim.
    """
    saved = checkpoint.json(CONFIG) if _has(checkpoint, CONFIG) else {}
    name = _class_of(checkpoint, saved.get("model_type"))
    if name not in KINDS:
        raise ModelError(
            f"{checkpoint.name} is a {name}; model 'st' takes SentenceTransformers, one dense vector an item, and "
            "MultiVectorEncoders, several (late interaction)"
        )
    similarity = saved.get("similarity_fn_name") or "maxsim"
    if KINDS[name] is SEVERAL and similarity.lower() not in _SCORED_BY_MAX_SIM:
        # `meanmaxsim` would rank alike, with other scores; for any other name the library itself takes plain MaxSim.
        raise ModelError(
            f"{checkpoint.name} was saved with similarity {similarity!r}; of several vectors an item, model 'st' can "
            "reproduce 'maxsim' only, the plain sum over a query's vectors"
        )
    return KINDS[name]


def refuse_made_up_head(kind: ModelKind, model: Any, checkpoint: CheckpointFolder) -> None:
    """Without modules.json the library adds what a checkpoint lacks: a pooling, a random projection.

    Raises:
        ModelError: it did.
    """
    if _has(checkpoint, MODULES) or "HF_ColBERT" in _architectures(checkpoint):
        return
    if any(type(module).__name__ == kind.head for module in model):
        raise ModelError(
            f"{checkpoint.name} has no modules.json, so it isn't a {kind.name}: its {kind.head.lower()} layer would be "
            "made up. Use the model's own adapter (mmeb-eval models)"
        )


def one_vector_each(returned: Sequence[Returned], items: Sequence[Item], owner: str, _dtype: str) -> Vectors:
    """Vectors (n, d), brought to unit length.

    Raises:
        ModelError: one without a direction.
    """
    return unit_vectors(np.stack(returned).astype(np.float32), items, owner)


def token_vectors(returned: Sequence[Returned], items: Sequence[Item], owner: str, dtype: str) -> TokenVectors:
    """All vectors of all items; float16 where the model runs in half precision.

    Raises:
        ModelError: an item without any, one without a direction, or one that isn't of unit length: a token that
            weighs more than others can't be told from unit vectors.
    """
    for item, rows in zip(items, returned, strict=True):
        if len(rows) == 0:
            raise ModelError(f"{owner} returned no vector for item {item.id!r} (it masks all of its tokens)")
    raw = np.concatenate(returned).astype(np.float32)  # (t, d)
    unit = unit_vectors(raw, [item for item, rows in zip(items, returned, strict=True) for _ in rows], owner)
    lengths = np.linalg.norm(raw, axis=1)
    worst = float(lengths[np.argmax(np.abs(lengths - 1))])
    if abs(worst - 1) > _ROUNDING:
        raise ModelError(
            f"{owner} returned a token's vector of length {worst:.4f}; its scores can't be reproduced, since MaxSim is "
            "of unit vectors here (the checkpoint lacks a Normalize module)"
        )
    offsets = np.cumsum([0, *(len(rows) for rows in returned)], dtype=np.int64)
    return TokenVectors(unit if dtype == "float32" else unit.astype(np.float16), offsets)


def _settings_of_several(model: Any) -> dict[str, Scalar]:
    """In the library's words. Lengths are in tokens; None stands for `max_seq_length`.

    Most stand in files that the revision covers, but ColBERT's first checkpoints have them in artifact.metadata.
    """
    transformer = model[0]
    expansion = getattr(transformer, "query_expansion", None)
    masks = [module for module in model if type(module).__name__ == "MultiVectorMask"]
    return {
        "kind": "MultiVectorEncoder",
        "query_length": getattr(transformer, "query_length", None),
        "document_length": getattr(transformer, "document_length", None),
        "query_expansion": json.dumps(expansion, sort_keys=True) if expansion else "none",
        "skiplist": " ".join(word for mask in masks for word in mask.skiplist_words),
    }


ONE = ModelKind("SentenceTransformer", "dot", "Pooling", lambda model: {}, one_vector_each)
SEVERAL = ModelKind("MultiVectorEncoder", "max_sim", "Dense", _settings_of_several, token_vectors)
KINDS = {kind.name: kind for kind in (ONE, SEVERAL)}


def _class_of(checkpoint: CheckpointFolder, saved: str | None) -> str:
    if saved:
        return SEVERAL.name if saved == "ColBERT" else saved  # PyLate's name of the class
    architectures = _architectures(checkpoint)
    if _has(checkpoint, MODULES):
        # Earlier versions of PyLate saved none.
        late = "pylate." in (checkpoint.path / MODULES).read_text(encoding="utf-8")
    else:
        late = any(name.endswith("ForRetrieval") for name in architectures)
    return SEVERAL.name if late or "HF_ColBERT" in architectures else ONE.name


def _architectures(checkpoint: CheckpointFolder) -> list[str]:
    """None where modules.json puts the transformer into a folder of its own."""
    if _has(checkpoint, MODULES) and not _has(checkpoint, "config.json"):
        return []
    return checkpoint.json("config.json").get("architectures") or []


def _has(checkpoint: CheckpointFolder, file: str) -> bool:
    return (checkpoint.path / file).is_file()
