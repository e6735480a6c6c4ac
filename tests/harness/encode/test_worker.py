"""What a worker is told of how to make its model."""

from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.worker import on_cpu


def test_a_device_that_was_asked_for_is_not_asked_of_workers() -> None:
    spec = ModelSpec("gme", {"path": "x"}, {"device": "cuda:1", "dtype": "bfloat16", "reasoning": None})
    assert on_cpu(spec) == ModelSpec("gme", {"path": "x"}, {"device": "cpu", "dtype": "bfloat16", "reasoning": None})
    assert on_cpu(ModelSpec("gme", {"device": "cuda"})) == ModelSpec("gme", {"device": "cpu"})
    none = ModelSpec("random", {}, {"device": None})
    assert on_cpu(none) == none
