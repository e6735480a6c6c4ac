"""A small server with vLLM's interface, which serves the random checkpoint; who fails is asked again at once."""

from pathlib import Path

import pytest

from mmeb_harness.adapter import remote
from tests.mmemb_r1.tiny_vllm import TinyVllm


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def vllm(random_checkpoint: Path) -> TinyVllm:
    return TinyVllm(random_checkpoint)
