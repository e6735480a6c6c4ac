"""The cost estimate: what of it can be checked, against what really is kept, counted or published."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import Qwen3VLForConditionalGeneration

from mmemb_r1_model.cli import cli
from mmemb_r1_model.disk.config import build_config, named_config, override, read_yaml
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.estimate import GPUS, UME_R1_HOURS, Assumptions, Estimator, Row, layer_bytes, report, ume_r1_hours
from mmemb_r1_model.pipeline import PipelineConfig
from mmemb_r1_model.shape import Shape
from tests.mmemb_r1.test_shape import config_of

FULL = ("mmemb_r1_2b", "mmemb_r1_4b")
CONFIGS = named_config("miniworld").parent
TOKENS = 200  # no size of a weight: those, as autocast copies them, aren't counted


def config(name: str, *assignments: str) -> PipelineConfig:
    return build_config(PipelineConfig, override(read_yaml(named_config(name)), assignments), "")


def rows(name: str, *assignments: str, gpu: str = "h100", gpus: int = 8) -> dict[str, Row]:
    estimator = Estimator(config(name, *assignments), GPUS[gpu], gpus, Assumptions())
    return {row.stage: row for row in estimator.rows()}


def kept_bytes(shape: Shape, learns: bool) -> int:
    """What autograd keeps of a forward pass, parameters apart."""
    from peft import LoraConfig, get_peft_model

    model = Qwen3VLForConditionalGeneration(config_of(shape))
    if not learns:
        targets = "|".join(shape.linear_sizes)
        lora = LoraConfig(r=1, target_modules=rf".*language_model.*\.({targets})")
        model = get_peft_model(model.to(torch.bfloat16), lora).base_model.model
    parameters = {one.untyped_storage().data_ptr() for one in model.parameters()}
    weights = {tuple(one.shape) for one in model.parameters()}
    weights |= {shape[::-1] for shape in weights}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and tuple(tensor.shape) not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril()
    ids = torch.randint(10, 300, (1, TOKENS))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("learns", [False, True])
def test_a_layer_keeps_as_many_bytes_as_estimated(learns: bool) -> None:
    torch.manual_seed(0)
    shape = Shape(256, 2, 4, 2, 64, 768, 48, 1, 112, vocabulary=320, patch=8, positions=36, deepstack=0)
    more = kept_bytes(dataclasses.replace(shape, layers=4), learns) - kept_bytes(shape, learns)
    estimated = layer_bytes(shape, learns) + 2 * TOKENS  # the mask's row
    assert estimated == pytest.approx(more / 2 / TOKENS, rel=0.05)


def test_a_published_cost_is_met_within_the_stated_factor() -> None:
    """Supervised: the estimate is a floor, without padding and traffic. Reinforced: nor with sharded rollouts."""
    supervised, reinforced = ume_r1_hours(Assumptions())
    assert 0.33 < supervised / UME_R1_HOURS[0] < 1
    assert 0.03 < reinforced / UME_R1_HOURS[1] < 1


def test_what_moves_the_cost() -> None:
    base = rows("mmemb_r1_2b")
    assert next(iter(base)).startswith("rationales:")
    assert base["rationales: api"].hours is None
    twice = rows("mmemb_r1_2b", "train.loop.steps=16800")
    assert twice["train"].flops == pytest.approx(2 * (base["train"].flops or 0))
    uncached = rows("mmemb_r1_2b", "train.contrast.gradient_caching=false")
    assert 0.6 < (uncached["train"].flops or 0) / (base["train"].flops or 1) < 0.75
    unkept = rows("mmemb_r1_2b", "student.gradient_checkpointing=false")
    assert (unkept["train"].memory or 0) > 3 * (base["train"].memory or 0)
    few = rows("mmemb_r1_2b", "rationales.pairs_per_set=10000")
    assert (few["select"].hours or 0) < 0.2 * (base["select"].hours or 0)
    assert few["train"].tokens < base["train"].tokens
    older = rows("mmemb_r1_2b", gpu="a100")
    assert (older["train"].hours or 0) / (base["train"].hours or 1) == pytest.approx(989 / 312)
    assert (rows("mmemb_r1_4b")["train"].flops or 0) > 1.8 * (base["train"].flops or 0)


@pytest.mark.parametrize("name", FULL)
def test_everything_fits_on_the_gpu_that_the_readme_takes(name: str) -> None:
    for row in rows(name).values():
        assert row.memory is None or row.memory < GPUS["h100"].memory


def test_the_table_says_first_that_it_is_an_estimate_and_the_readme_shows_it() -> None:
    readme = (CONFIGS / "README.md").read_text()
    for name in FULL:
        done = CliRunner().invoke(cli, ["estimate", "--config", name])
        assert done.exit_code == 0, done.output
        assert re.match(r"ESTIMATE, not measured: \w+ on 8 H100 at 35 % of their peak operations and 60 %", done.output)
        assert f"<!-- output of: mmemb-r1 estimate --config {name} -->\n```text\n{done.output}```" in readme


def test_the_readmes_cheaper_selections_cost_what_it_says() -> None:
    readme = (CONFIGS / "README.md").read_text()
    found = re.findall(r"^\| `(.*)` \| ([\d,]+) \| (\d+) % \|$", readme, re.MULTILINE)
    assert len(found) == 4
    for options, hours, share in found:
        changed = rows("mmemb_r1_2b", *options.replace("--set ", "").split())
        assert f"{changed['select'].hours:,.0f}" == hours
        assert f", {share} % of sides reason" in changed["train"].amount


def test_what_the_arithmetic_doesnt_know_is_named() -> None:
    with pytest.raises(OptionError, match=r"data\[0\]: what 'suite' holds isn't known"):
        report(config("miniworld"), "miniworld", "h100", 1)
    with pytest.raises(OptionError, match=r"student\.checkpoint: 'mine' is no folder"):
        report(config(FULL[0], "student.checkpoint=mine"), "x", "h100", 1)
    with pytest.raises(OptionError, match=r"worker 'instruct': model: 'glm' is no folder"):
        report(config(FULL[0], "rationales.workers[0].model=glm"), "x", "h100", 1)


def test_the_command_offers_every_gpu_that_is_known() -> None:
    (option,) = (one for one in cli.commands["estimate"].params if one.name == "gpu")
    assert set(option.type.choices) == set(GPUS)  # type: ignore[attr-defined]


def test_a_checkpoint_of_ones_own_is_read(tmp_path: Path) -> None:
    shape = Shape(256, 2, 4, 2, 64, 768, 48, 1, 112)
    config_of(shape).save_pretrained(tmp_path)
    estimator = Estimator(config(FULL[0], f"student.checkpoint={tmp_path}"), GPUS["h100"], 8, Assumptions())
    assert estimator.student.hidden == 256
