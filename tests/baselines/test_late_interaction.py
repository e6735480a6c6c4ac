"""ColPali and ColQwen2 against a plain use of transformers: the same tokens, the same vectors, the same ranking."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmeb_baselines import late_interaction
from mmeb_baselines.late_interaction import LateInteractionEmbedder, load_colpali, load_colqwen2
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ColPaliForRetrieval, ColPaliProcessor, ColQwen2ForRetrieval, ColQwen2Processor

from mmeb_harness import DataError, Item, ModelError, Source, TokenVectors
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.encode.check import check_embedder
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from tests.baselines.tiny_late_interaction import DIMENSIONS, save_colpali, save_colqwen2
from tests.toy import evaluated

LOADERS: dict[str, Callable[..., LateInteractionEmbedder]] = {"colpali": load_colpali, "colqwen2": load_colqwen2}
#: All pages for each query; a pool of pictures for each query.
TASKS = ("ViDoSeek-page", "MSCOCO")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "colpali": save_colpali(tmp_path_factory.mktemp("colpali")),
        "colqwen2": save_colqwen2(tmp_path_factory.mktemp("colqwen2")),
    }


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("pictures")
    wide, tall = noise(folder / "wide.png", (300, 200), 0), noise(folder / "tall.png", (140, 420), 1)
    frames = tuple(noise(folder / f"frame_{i}.png", (120, 90), i) for i in range(2, 5))
    basic = Source("basic", "Find it:")
    return {
        "text": Item("text", text="a red circle", instruction="Find it:", source=basic),
        "label": Item("label", text="red", source=Source("bare")),
        "wide": Item("wide", images=(wide,), instruction="Represent the given image.", source=basic),
        "mixed": Item(
            "mixed", "what?", (tall,), instruction="Find it:", source=Source("question", "<|image_1|>\nFind")
        ),
        "video": Item("video", frames=frames, instruction="What is it?", source=Source("basic", "What is it?")),
    }


def noise(path: Path, size: tuple[int, int], seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


class Plain:
    """Transformers' own processor and model, an item at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        processor, model = {
            "colpali": (ColPaliProcessor, ColPaliForRetrieval),
            "colqwen2": (ColQwen2Processor, ColQwen2ForRetrieval),
        }[name]
        self.processor, self.model = processor.from_pretrained(folder), model.from_pretrained(folder).eval()

    def inputs(self, shown: str | Path) -> dict[str, Any]:
        if isinstance(shown, str):
            return dict(self.processor.process_queries(text=[shown]))
        found = dict(self.processor.process_images(images=[Image.open(shown).convert("RGB")]))
        found.pop("labels", None)
        return found

    def vectors(self, shown: str | Path) -> np.ndarray[Any, Any]:
        inputs = self.inputs(shown)
        if "image_grid_thw" in inputs:
            inputs["position_ids"] = self.positions(inputs)
        return self.run(inputs)

    def positions(self, inputs: dict[str, Any]) -> torch.Tensor:
        types = (inputs["input_ids"] == self.processor.image_token_id).int()
        found, _ = self.model.vlm.get_rope_index(
            inputs["input_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
            mm_token_type_ids=types,
        )
        return found  # type: ignore[no-any-return]

    def run(self, inputs: dict[str, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return self.model(**inputs).embeddings[0].numpy()  # type: ignore[no-any-return]


def token_vectors(embedder: LateInteractionEmbedder, *items: Item) -> list[np.ndarray[Any, Any]]:
    found = embedder.encode(items, "query").vectors
    assert isinstance(found, TokenVectors)
    return [found[i] for i in range(len(items))]


def tokens(embedder: LateInteractionEmbedder, item: Item) -> list[list[int]]:
    """Of each text or picture of an item, without padding."""
    (batch,) = embedder.prepare([item], "query")
    ids, kept = batch.inputs["input_ids"], batch.inputs["attention_mask"].astype(bool)
    return [row[mask].tolist() for row, mask in zip(ids, kept, strict=True)]


@pytest.mark.parametrize("name", LOADERS)
def test_tokens_and_vectors_equal_those_of_plain_transformers(
    folders: dict[str, Path], items: dict[str, Item], name: str
) -> None:
    embedder, plain = LOADERS[name](path=str(folders[name]), device="cpu"), Plain(name, folders[name])
    together = token_vectors(embedder, *items.values())
    for found, item in zip(together, items.values(), strict=True):
        shown = item.media or (item.text,)
        assert tokens(embedder, item) == [plain.inputs(one)["input_ids"][0].tolist() for one in shown]
        expected = np.concatenate([plain.vectors(one) for one in shown])
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=item.id)


def test_pictures_of_colqwen2_have_three_axes(folders: dict[str, Path], items: dict[str, Item]) -> None:
    """Else the test above would pass without M-RoPE."""
    plain = Plain("colqwen2", folders["colqwen2"])
    inputs = plain.inputs(items["wide"].images[0])
    one_axis = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
    found = token_vectors(load_colqwen2(path=str(folders["colqwen2"]), device="cpu"), items["wide"])[0]
    assert np.abs(found - plain.run({**inputs, "position_ids": one_axis})).max() > 0.1


def test_the_leaderboards_profile(folders: dict[str, Path], items: dict[str, Item]) -> None:
    embedder = load_colpali(path=str(folders["colpali"]), profile="leaderboard", device="cpu")
    plain = Plain("colpali", folders["colpali"])
    plain.processor.query_prefix, plain.processor.visual_prompt_prefix = "Query: ", "<bos>Describe the image."
    first = items["video"].frames[0]
    shown = {"text": "Find it: a red circle", "label": "red", "mixed": items["mixed"].images[0], "video": first}
    found = token_vectors(embedder, *(items[name] for name in shown))
    for vectors, (name, one) in zip(found, shown.items(), strict=True):
        assert tokens(embedder, items[name]) == plain.inputs(one)["input_ids"].tolist()
        np.testing.assert_allclose(vectors, plain.vectors(one), atol=1e-5, err_msg=name)
    stray = Item("stray", text="who?", source=Source("text_query", "<|image_1|> Find it:"))
    assert tokens(embedder, stray) == plain.inputs(" Find it: who?\n")["input_ids"].tolist()


@pytest.mark.parametrize("name", LOADERS)
def test_another_prefix(folders: dict[str, Path], items: dict[str, Item], name: str) -> None:
    embedder, plain = LOADERS[name](path=str(folders[name]), query_prefix="Q: "), Plain(name, folders[name])
    plain.processor.query_prefix = "Q: "
    assert tokens(embedder, items["text"]) == plain.inputs("a red circle")["input_ids"].tolist()
    assert embedder.info.settings["query_prefix"] == "Q: "


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_the_check_passes(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    embedder = LOADERS[name](path=str(folders[name]), device="cpu")
    assert [outcome for outcome in check_embedder(embedder, tmp_path) if not outcome.passed] == []


@pytest.mark.parametrize("name", LOADERS)
def test_half_precision_gives_half_as_many_bytes(folders: dict[str, Path], items: dict[str, Item], name: str) -> None:
    whole, half = (
        token_vectors(LOADERS[name](path=str(folders[name]), device="cpu", dtype=dtype), *items.values())
        for dtype in ("float32", "bfloat16")
    )
    for one, other in zip(whole, half, strict=True):
        assert (one.dtype, other.dtype) == (np.float32, np.float16)
        assert one.shape == other.shape == (len(one), DIMENSIONS)
        np.testing.assert_allclose(np.linalg.norm(other.astype(np.float64), axis=1), 1, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_run_ranks_by_max_sim(folders: dict[str, Path], cache: Path, tmp_path: Path, name: str) -> None:
    suite, known = cache / "mini-v1-seed0", load_tasks()
    embedder = LOADERS[name](path=str(folders[name]), device="cpu")
    settings = RunSettings(tmp_path / "run", edition="page-fixed")
    evaluated(embedder, [known[task] for task in TASKS], known, describe(suite), settings)
    pooled = []
    for task in TASKS:
        samples = known[task].task.load(suite, embedder.info.profile.frames)
        pooled.append(samples.pools is not None)
        vectors = {one.id: embedder.encode([one], "candidate").vectors[0] for one in samples.candidates}
        rows = read_parquet(RunFolder(tmp_path / "run").queries_file(task)).to_pylist()
        for query, row in zip(samples.queries, rows, strict=True):
            own = embedder.encode([query], "query").vectors[0]
            pool = samples.pools[query.id] if samples.pools is not None else tuple(vectors)
            scores = {one: plain_max_sim(own, vectors[one]) for one in pool}
            best = sorted((scores[one] for one in pool), reverse=True)[: len(row["top_scores"])]
            assert row["top_scores"] == pytest.approx(best, abs=1e-4)
            assert [scores[one] for one in row["top_ids"]] == pytest.approx(best, abs=1e-4)
    assert pooled == [False, True]


def plain_max_sim(query: Any, candidate: Any) -> float:
    return float((query @ candidate.T).max(axis=1).sum())


def test_colqwen2_shows_what_it_was_trained_with_whatever_the_file_says(tmp_path: Path) -> None:
    folder = save_colqwen2(tmp_path / "model", longest_edge=12_845_056)
    page = Item("page", images=(noise(tmp_path / "page.png", (1200, 1600), 0),))
    embedder = load_colqwen2(path=str(folder), device="cpu")
    (batch,) = embedder.prepare([page], "candidate")
    assert batch.inputs["image_grid_thw"].tolist() == [[1, 64, 48]]  # 768 tokens, the most
    assert embedder.cost(page, "candidate") == pytest.approx(batch.inputs["input_ids"].shape[1], abs=20)


def test_settings_saved_by_newer_transformers_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    """In processor_config.json, picture settings inside."""
    folder = shutil.copytree(folders["colpali"], tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    Plain("colpali", folders["colpali"]).processor.save_pretrained(folder)
    assert "image_processor" in json.loads((folder / "processor_config.json").read_text())
    text = Item("text", text="a red circle")
    one, other = (token_vectors(load_colpali(path=str(where)), text)[0] for where in (folders["colpali"], folder))
    np.testing.assert_array_equal(one, other)


def test_checkpoints_that_do_not_fit_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"of type 'colqwen2'; colpali runs colpali; use --model colqwen2"):
        load_colpali(path=str(folders["colqwen2"]))
    with pytest.raises(ModelError, match="of type 'colpali'; colqwen2 runs colqwen2"):
        load_colqwen2(path=str(folders["colpali"]))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"LoRA weights for colpali-engine.*vidore/colqwen2-v1\.0-hf"):
        load_colqwen2(path=str(tmp_path))


@pytest.mark.parametrize("name", LOADERS)
def test_missing_weights_are_refused(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Transformers would go on with random ones."""
    folder = shutil.copytree(folders[name], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop("embedding_proj_layer.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    embedder = LOADERS[name](path=str(folder), device="cpu")
    with pytest.raises(ModelError, match=r"lacks weights, 1 in all: embedding_proj_layer\.weight"):
        embedder.warm_up()


def test_colpali_as_transformers_4_52_to_5_0_saved_it_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["colpali"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("vlm.", "vlm.model.", 1): value for name, value in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, \d\d in all"):
        load_colpali(path=str(folder), device="cpu").warm_up()


def test_incomplete_folders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["colpali"], tmp_path / "model")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    del settings["image_seq_length"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"don't say how many tokens one is \(image_seq_length\)"):
        load_colpali(path=str(folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="no usable tokenizer or picture settings"):
        load_colpali(path=str(folder))


def test_a_picture_that_colqwen2_cannot_take_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (900, 2)).save(tmp_path / "line.png")
    embedder = load_colqwen2(path=str(folders["colqwen2"]), device="cpu")
    with pytest.raises(DataError, match=r"line\.png can't be used: a side is more than 200 times the other"):
        embedder.encode([Item("line", images=(tmp_path / "line.png",))], "candidate")


def test_cards_name_registered_models() -> None:
    assert {card.model for card in late_interaction.CARDS} == set(LOADERS)
