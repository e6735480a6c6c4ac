"""What fits on GPUs that aren't there: how they are named, what is tried, and what is said."""

from __future__ import annotations

import pytest

from mmemb_r1_model import fits
from mmemb_r1_model.disk.config import closed, named_config, override, read_yaml
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.fits import Fits, Gpus, read_gpus, room_of, subject_of
from mmemb_r1_model.pipeline import PipelineConfig, read_pipeline
from mmemb_r1_model.rehearsal.memory import Peak
from tests.mmemb_r1.calls import call


def config(name: str, *assignments: str) -> PipelineConfig:
    return read_pipeline(closed(override(read_yaml(named_config(name)), assignments)))


@pytest.mark.parametrize("text", ["8", "80", "8x", "x80", "0x80", "8x0", "8x80GB", "-1x80", "8 x 80", ""])
def test_what_names_no_gpus_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="8x80"):
        read_gpus(text)


def test_gpus_are_of_one_kind() -> None:
    assert read_gpus("8x80") == Gpus(8, 80)
    with pytest.raises(OptionError, match="equal GPUs"):
        read_gpus("2x24,6x80")


def test_the_largest_size_that_fits_is_tried_and_not_only_reckoned() -> None:
    given, tried = Fits(config("mini"), Gpus(1, 24), "text", print), []

    def peak(size: int) -> Peak:
        tried.append(size)
        bend = 2 * 10**9 if size > 3 else 0  # more than two sizes say
        return Peak({"weights": 5 * 10**9, "activations": 3 * 10**9 * size + bend})

    whole = given._sized("train", "train.contrast.micro_batch", 16, peak)
    assert "micro_batch=" in whole.note
    largest = int(whole.note.split("=")[1].split()[0])
    assert largest in tried
    assert peak(largest).bytes <= room_of(24) < peak(largest + 1).bytes
    assert not given._sized("train", "train.contrast.micro_batch", 2, peak).note
    none = given._sized("train", "train.contrast.micro_batch", 2, lambda size: Peak({"weights": 10**12 * size}))
    assert "not even 1 fits" in none.note
    assert "gradient_checkpointing: true" in none.note


def test_sizes_are_the_folders_the_published_or_none() -> None:
    recipe = config("mmemb_r1_4b")
    known = subject_of(recipe.student.checkpoint, recipe, "text")
    assert (known.model.text_config.hidden_size, known.rationale) == (2560, 2048)  # the longest of the workers'
    with pytest.raises(OptionError, match="aren't known here"):
        subject_of("students/somebodys", recipe, "text")


def test_a_recipe_is_counted_as_it_comes_and_its_time_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is counted elsewhere (`rehearsal`)."""
    for name in ("train", "adapt", "rollouts", "judge", "prefill", "decode"):
        counted = Peak({"weights": 9 * 10**9, "kv": 10**9})
        monkeypatch.setattr(fits, f"{name}_peak", lambda *_, counted=counted: counted)
    said = call("estimate", "--config", "mmemb_r1_4b", "--gpus", "8x80")
    parts = (
        "rationales: instruct",
        "select",
        "train",
        "adapt: rollouts",
        "adapt: policies",
        "adapt: contrast",
        "evaluate",
    )
    for part in parts:
        assert f"\n{part}" in said
    assert "unknown without such a GPU" in said
    assert "students/Qwen3-VL-4B isn't here" in said
    train = next(line for line in said.splitlines() if line.startswith("train"))
    assert train.split()[-5:] == ["yes"] * 5
