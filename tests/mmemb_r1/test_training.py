"""The losses in closed form, the packed forward pass against separate ones, and a short run end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmeb_tasks.mini import make_split
from torch.nn import functional

from mmeb_harness import Item
from mmemb_r1_model.checkpoint import open_checkpoint
from mmemb_r1_model.data import compact, read_texts, read_training_tasks
from mmemb_r1_model.embedder import load
from mmemb_r1_model.engine import collate
from mmemb_r1_model.losses import info_nce, next_token_loss
from mmemb_r1_model.tiny import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from mmemb_r1_model.train_tiny import TinyTraining, Trainer, batch_vision_attention, train, with_token

TASKS = ["OK-VQA", "MSCOCO_t2i", "MVBench", "ViDoRe_arxivqa"]
SIZE = TinySize(hidden=32, layers=2, vision_hidden=32, vision_layers=1, vocabulary=640)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "data"
    make_split(folder, 0, "train", 32, TASKS)
    return folder


@pytest.fixture
def trainer(data: Path, tmp_path: Path) -> Trainer:
    tokenizer = build_tokenizer(read_texts(data), SIZE.vocabulary)
    model = build_model(tokenizer, SIZE, 0)
    save_tiny(model, tokenizer, TINY_SETTINGS, tmp_path)
    tasks = read_training_tasks(data, load(str(tmp_path)).prompt)
    return Trainer(model, open_checkpoint(str(tmp_path), None).tokenizer, tasks, TinyTraining(batch=8, held_out=4))


def test_info_nce_of_equal_vectors_is_the_logarithm_of_their_number() -> None:
    queries, candidates = (
        functional.normalize(torch.ones(6, 4), dim=-1),
        functional.normalize(torch.ones(10, 4), dim=-1),
    )
    loss = info_nce(queries, candidates, 0.05, torch.zeros(6, 10, dtype=torch.bool))
    assert loss.item() == pytest.approx((math.log(10) + math.log(6)) / 2, abs=1e-6)


def test_info_nce_ignores_what_is_just_as_right() -> None:
    rng = torch.Generator().manual_seed(0)
    queries = functional.normalize(torch.randn(2, 8, generator=rng), dim=-1)
    candidates = functional.normalize(torch.randn(3, 8, generator=rng), dim=-1)
    same = torch.tensor([[True, True, False], [True, True, False]])
    scores = (queries @ candidates.T / 0.1).double()
    forward = -np.mean([functional.log_softmax(scores[i, [i, 2]], -1)[0].item() for i in range(2)])
    assert info_nce(queries, candidates, 0.1, same).item() == pytest.approx(forward / 2, abs=1e-6)


def test_next_token_loss_counts_marked_places_only() -> None:
    logits = torch.zeros(1, 3, 7)
    assert next_token_loss(logits, torch.tensor([[1, -100, 4]])).item() == pytest.approx(math.log(7), abs=1e-6)


@torch.no_grad()
def test_both_paths_in_one_pass_equal_two_passes(trainer: Trainer) -> None:
    task = next(task for task in trainer._tasks if task.name == "OK-VQA")
    pairs = list(task.pairs[:5])
    direct, reasoned, _, _ = trainer._embed_queries(pairs)
    for row, pair in enumerate(pairs):
        prompt = pair.query.restore()
        for expected, tokens in ((direct[row], [trainer._emb]), (reasoned[row], trainer._answer(pair))):
            one = prompt
            for token in tokens:
                one = with_token(one, token)
            alone = functional.normalize(trainer._forward(collate([one], 0))[0, -1], dim=-1)
            assert (alone - expected).abs().max() < 1e-5


@torch.no_grad()
def test_batched_vision_attention_equals_the_librarys(trainer: Trainer) -> None:
    for name in ("OK-VQA", "MVBench"):
        task = next(task for task in trainer._tasks if task.name == name)
        batch = collate([pair.query.restore() for pair in task.pairs[:4]], 0)
        library = trainer._forward(batch)
        batch_vision_attention(trainer.model)
        assert (trainer._forward(batch) - library).abs().max() < 1e-5
        for block in trainer.model.model.visual.blocks:
            del block.attn.forward


def test_compact_prompts_come_back_as_they_were(items: list[Item], random_checkpoint: Path) -> None:
    for item in items:
        prompt = load(str(random_checkpoint)).prompt(item)
        restored = compact(prompt).restore()
        assert (restored.patches is None) == (prompt.patches is None)
        if prompt.patches is not None and restored.patches is not None:
            # Exact where nothing was resized; within rounding where bicubic values fall between bytes.
            assert np.abs(restored.patches.pixels - prompt.patches.pixels).max() < 1e-6


def test_held_out_pairs_never_train(trainer: Trainer) -> None:
    for training, held_out in zip(trainer._tasks, trainer.held_out, strict=True):
        assert len(held_out.pairs) == 4
        assert not {id(pair) for pair in training.pairs} & {id(pair) for pair in held_out.pairs}


def test_a_short_run_learns_and_repeats_itself(data: Path, tmp_path: Path) -> None:
    config = TinyTraining(steps=20, batch=8, held_out=4, evaluate_every=10, warmup=5)
    for name in ("first", "second"):
        train(data, tmp_path / name, config, SIZE)
    first, second = ((tmp_path / name / "train_log.jsonl").read_text() for name in ("first", "second"))
    assert first == second
    lines = [json.loads(line) for line in first.splitlines()]
    assert [line["step"] for line in lines[1:]] == [10, 20]
    assert lines[2]["losses"]["rationale"] < lines[1]["losses"]["rationale"]
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == (
        tmp_path / "second" / "model.safetensors"
    ).read_bytes()
    load(str(tmp_path / "first")).encode([Item("a", text="red circle")], "query")
