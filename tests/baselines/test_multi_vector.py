"""Late interaction through `st`, against plain `encode_query`, `encode_document` and `similarity` of the library."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mmeb_baselines.sentence_transformers_bridge import SentenceTransformerEmbedder, load
from mmeb_baselines.sentence_transformers_kinds import model_kind_of
from PIL import Image

from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, Role, TokenVectors
from mmeb_harness.adapter.checkpoints import find_checkpoint
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.encode.check import check_embedder
from mmeb_harness.ranking.max_sim import max_sim, rank_tokens
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from tests.baselines.tiny_late_interaction import save_colpali, save_colqwen2
from tests.toy import evaluated

COLBERTS = ("colbert", "pylate", "pylate 3", "stanford")
ROLES: tuple[Role, ...] = ("query", "candidate")
PAGES = "ViDoSeek-page"
TEXTS = ("a red dot, left of it.", "no. 7!", "blue", "word, word. " * 20, "")


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("sentence_transformers", reason="needs `pip install 'mmeb-harness[dev]'`")


@pytest.fixture(scope="module")
def tiny(library: Any) -> ModuleType:
    from tests.baselines import tiny_sentence_transformers

    return tiny_sentence_transformers


@pytest.fixture(scope="module")
def checkpoints(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights in four layouts; ColPali and ColQwen2 as transformers saves them; a chat model."""
    folder = tmp_path_factory.mktemp("late")
    colbert = tiny.save_colbert(folder / "colbert", folder / "bert")
    return {
        "colbert": colbert,
        "pylate": tiny.save_pylate(folder / "pylate", colbert),
        "pylate 3": tiny.save_pylate(folder / "pylate 3", colbert, model_type="ColBERT"),
        "stanford": tiny.save_stanford_colbert(folder / "stanford", colbert),
        "colpali": save_colpali(folder / "colpali"),
        "colqwen2": save_colqwen2(folder / "colqwen2"),
        "llava": tiny.save_late_llava(folder / "llava", tiny.save_llava(folder / "base")),
    }


def plain(library: Any, checkpoint: Path) -> Any:
    return library.MultiVectorEncoder(str(checkpoint), device="cpu", local_files_only=True)


def texts() -> list[Item]:
    return [Item(str(i), text=text, instruction="Find it.") for i, text in enumerate(TEXTS)]


def picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 80)).save(path)
    return path


def encoded(embedder: SentenceTransformerEmbedder, items: Sequence[Item], role: Role) -> TokenVectors:
    vectors = embedder.encode(items, role).vectors
    assert isinstance(vectors, TokenVectors)
    return vectors


def counts(vectors: TokenVectors) -> list[int]:
    return np.diff(vectors.offsets).tolist()  # type: ignore[no-any-return]


def assert_equal(found: TokenVectors, expected: Sequence[Any]) -> None:
    assert counts(found) == [len(one) for one in expected]
    assert np.abs(found.flat - np.concatenate([one.numpy() for one in expected])).max() < 1e-5


@pytest.mark.parametrize("name", COLBERTS)
def test_vectors_scores_and_ranks_of_a_colbert_are_the_librarys(
    name: str, checkpoints: dict[str, Path], library: Any, tiny: ModuleType
) -> None:
    reference, embedder = plain(library, checkpoints[name]), load(str(checkpoints[name]), device="cpu", batch_size=2)
    expected = [reference.encode_query(list(TEXTS)), reference.encode_document(list(TEXTS))]
    queries, candidates = encoded(embedder, texts(), "query"), encoded(embedder, texts(), "candidate")
    assert_equal(queries, expected[0])
    assert_equal(candidates, expected[1])
    everything = np.arange(len(TEXTS))
    scores = reference.similarity(*expected).numpy()
    assert np.abs(max_sim(queries, everything.tolist(), candidates, everything) - scores).max() < 1e-4
    ranked = rank_tokens(queries, candidates, None, [everything[:1]] * len(TEXTS), depth=5, cut=5)
    assert [one.positions.tolist() for one in ranked] == np.argsort(-scores, axis=1).tolist()
    # Else a ColBERT without its masks, markers and lengths would pass.
    assert counts(queries) == [tiny.QUERY_LENGTH] * len(TEXTS)
    bare = encoded(embedder, [Item("bare", text="a red dot left of it")], "candidate")
    assert len(bare[0]) == len(candidates[0])  # punctuation has no vector
    assert len(candidates[3]) < tiny.DOCUMENT_LENGTH  # cut, then without punctuation
    unmarked = reference.encode_query(list(TEXTS), prompt="")
    assert np.abs(queries[0] - unmarked[0].numpy()).max() > 0.01


def test_all_layouts_of_a_colbert_give_the_same(checkpoints: dict[str, Path]) -> None:
    embedders = [load(str(checkpoints[name]), device="cpu") for name in COLBERTS]
    for role in ROLES:
        first, *others = (encoded(embedder, texts(), role) for embedder in embedders)
        for other in others:
            assert np.abs(other.flat - first.flat).max() < 1e-5


@pytest.mark.parametrize("name", ["colpali", "colqwen2"])
def test_texts_and_pictures_in_one_batch_as_the_library_has_them(
    name: str, checkpoints: dict[str, Path], library: Any, tmp_path: Path
) -> None:
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(2)]
    items = [
        Item("0", images=(paths[0],), instruction="Look."),
        Item("1", text="red", instruction="Find."),
        Item("2", images=(paths[1],)),
        Item("3", text="blue square"),
    ]
    reference, embedder = plain(library, checkpoints[name]), load(str(checkpoints[name]), device="cpu")
    shown = reference.encode_document([Image.open(path) for path in paths])
    read = {
        "query": reference.encode_query(["Find. red", "blue square"]),
        "candidate": reference.encode_document(["red", "blue square"]),
    }
    for role in ROLES:
        assert_equal(encoded(embedder, items, role), [shown[0], read[role][0], shown[1], read[role][1]])
    with pytest.raises(ModelError, match=r"can't take item 'q' .*whose items are text or a picture, never both"):
        embedder.encode([Item("q", text="x", images=(paths[0],))], "query")


def test_a_run_ranks_pages_as_the_library_does(
    checkpoints: dict[str, Path], library: Any, cache: Path, tmp_path: Path
) -> None:
    suite, known = cache / "mini-v1-seed0", load_tasks()
    reference = plain(library, checkpoints["colpali"])
    embedder = load(str(checkpoints["colpali"]), device="cpu", instruction="none")
    settings = RunSettings(tmp_path / "run", edition="page-fixed")
    evaluated(embedder, [known[PAGES]], known, describe(suite), settings)
    samples = known[PAGES].task.load(suite, embedder.info.profile.frames)
    pages = reference.encode_document([Image.open(item.images[0]) for item in samples.candidates])
    scores = reference.similarity(reference.encode_query([item.text for item in samples.queries]), pages).numpy()
    rows = read_parquet(RunFolder(tmp_path / "run").queries_file(PAGES)).to_pylist()
    assert len(rows) == len(scores) > 1
    for row, own in zip(rows, scores, strict=True):
        by_id = dict(zip((item.id for item in samples.candidates), own.tolist(), strict=True))
        best = sorted(own.tolist(), reverse=True)[: len(row["top_ids"])]
        assert row["top_scores"] == pytest.approx(best, abs=1e-4)
        assert [by_id[one] for one in row["top_ids"]] == pytest.approx(best, abs=1e-4)


def test_a_chat_models_picture_and_text_as_the_library_has_them(
    checkpoints: dict[str, Path], library: Any, tmp_path: Path
) -> None:
    path = picture(tmp_path / "a.png", 0)
    item = Item("mixed", text="make it blue", images=(path,), instruction="Find the change.")
    reference, embedder = plain(library, checkpoints["llava"]), load(str(checkpoints["llava"]), device="cpu")
    shown = {"image": Image.open(path), "text": "make it blue"}
    queries = encoded(embedder, [Item("x", text="x"), item], "query")
    assert_equal(TokenVectors.of_items([queries[1]]), reference.encode_query([shown], prompt="Find the change."))
    assert_equal(encoded(embedder, [item], "candidate"), reference.encode_document([shown]))
    assert embedder.info.profile.instruction == "system turn"


class FramesAsPictures:
    """The chat model takes no video; all else that the check tries, it does."""

    def __init__(self, embedder: SentenceTransformerEmbedder) -> None:
        self._embedder = embedder

    @property
    def info(self) -> ModelInfo:
        return self._embedder.info

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self._embedder.encode(
            [dataclasses.replace(item, images=item.images or item.frames, frames=()) for item in items], role
        )


def test_the_check_passes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    embedder = FramesAsPictures(load(str(checkpoints["llava"]), device="cpu", batch_size=4))
    assert [outcome for outcome in check_embedder(embedder, tmp_path) if not outcome.passed] == []


def test_what_a_result_says_of_the_model(checkpoints: dict[str, Path], tiny: ModuleType, tmp_path: Path) -> None:
    info = load(str(checkpoints["colbert"]), device="cpu").info
    assert (info.name, info.dimensions, info.similarity) == ("st:colbert", tiny.DIMENSIONS, "max_sim")
    assert info.settings == {
        "query_prompt": "[unused0] ", "document_prompt": "[unused1] ", "modalities": "text", "max_seq_length": 64,
        "saved_similarity": "maxsim", "device": "cpu", "dtype": "float32", "kind": "MultiVectorEncoder",
        "query_length": None, "document_length": 24,
        "query_expansion": '{"attend": false, "length": 12, "strategy": "fixed", "token": null}',
        "skiplist": "! \" # $ % & ' ( ) * + , - . / : ; < = > ? @ [ \\ ] ^ _ ` { | } ~",
    }  # fmt: skip
    # No revision of a folder covers artifact.metadata.
    known = load(str(checkpoints["stanford"]), device="cpu").info
    folder = tiny.save_stanford_colbert(tmp_path / "stanford", checkpoints["colbert"], doc_maxlen=30, query_maxlen=8)
    other = load(str(folder), device="cpu").info
    assert known.revision == other.revision
    assert (known.settings["document_length"], other.settings["document_length"]) == (24, 30)
    assert known.settings["query_expansion"] != other.settings["query_expansion"]


def test_half_precision_gives_half_as_many_bytes(checkpoints: dict[str, Path]) -> None:
    whole, half = (
        encoded(load(str(checkpoints["colbert"]), device="cpu", dtype=dtype), texts(), "query")
        for dtype in ("float32", "bfloat16")
    )
    assert (str(whole.flat.dtype), str(half.flat.dtype)) == ("float32", "float16")
    np.testing.assert_array_equal(whole.offsets, half.offsets)
    np.testing.assert_allclose(np.linalg.norm(half.flat.astype(np.float64), axis=1), 1, atol=1e-3)
    assert (whole.flat * half.flat).sum(axis=1).min() > 0.9


def renamed(checkpoint: Path, folder: Path, **config: Any) -> Path:
    """A copy with other words in config_sentence_transformers.json."""
    shutil.copytree(checkpoint, folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.mark.parametrize("similarity", ["meanmaxsim", "xtr"])
def test_another_score_than_the_plain_sum_is_refused(
    similarity: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = renamed(checkpoints["colbert"], tmp_path / "other", similarity_fn_name=similarity)
    with pytest.raises(ModelError, match=f"other was saved with similarity '{similarity}'; .*'maxsim' only"):
        load(str(folder))


@pytest.mark.parametrize("similarity", [None, "maxsim", "MaxSim", "cosine"])
def test_words_for_the_plain_sum(similarity: str | None, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = renamed(checkpoints["colbert"], tmp_path / "other", similarity_fn_name=similarity)
    assert model_kind_of(find_checkpoint(str(folder))).similarity == "max_sim"


def test_tokens_of_different_weight_are_refused(tiny: ModuleType, tmp_path: Path) -> None:
    """Without normalisation in the checkpoint, long vectors count more."""
    folder = tiny.save_colbert(tmp_path / "colbert", tmp_path / "bert", tiny.MultiVectorMask())
    with pytest.raises(ModelError, match=r"a token's vector of length \d+\.\d+; its scores can't be reproduced"):
        load(str(folder), device="cpu").encode(texts(), "query")


def test_items_that_cannot_be_ranked_are_named(tiny: ModuleType, tmp_path: Path) -> None:
    heads = (tiny.MultiVectorMask(keep_only_token_ids=[tiny.RED]), tiny.Normalize("token_embeddings"))
    folder = tiny.save_colbert(tmp_path / "colbert", tmp_path / "bert", *heads)
    embedder = load(str(folder), device="cpu")
    items = [Item("red", text="r"), Item("blue", text="b")]
    assert counts(encoded(embedder, items[:1], "candidate")) == [1]
    with pytest.raises(ModelError, match=r"st:colbert returned no vector for item 'blue' \(it masks all of its tokens"):
        embedder.encode(items, "candidate")
    for value, name in ((np.nan, "NaN or infinity"), (0.0, "a vector of zeros")):
        embedder._model.encode_query = lambda inputs, value=value, **_: [np.eye(2), np.array([[1, 0], [value, 0]])]
        with pytest.raises(ModelError, match=f"st:colbert returned {name} for item 'blue'"):
            embedder.encode(items, "query")


def test_a_projection_that_nobody_trained_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = renamed(checkpoints["colbert"], tmp_path / "bare")
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"so it isn't a MultiVectorEncoder: its dense layer would be made up"):
        load(str(folder), device="cpu")
