"""Checkpoints by hub id: fetched once, found again without a network, and refused in one line that says what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from mmeb_baselines import gme
from safetensors.torch import load_file

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import _telling, find_checkpoint
from mmeb_harness.core.files import readable_size
from tests.baselines.tiny_qwen import save_qwen2_vl
from tests.forked import EVAL, Forks, open_forks
from tests.harness.fetching import environment_for
from tests.hub import Hub, serve

REPO = "owner/tiny-lamra"
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = save_qwen2_vl(tmp_path_factory.mktemp("checkpoint"))
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"notes.pdf": b"not part of the model"}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """With torch, but without what reads the hub's settings while it is imported."""
    with open_forks("torch") as forks:
        yield forks


@pytest.fixture
def hub(files: dict[str, bytes]) -> Hub:
    hub = Hub()
    hub.push(REPO, files)
    return hub


@pytest.fixture
def check(hub: Hub, forks: Forks, tmp_path: Path) -> Iterator[Check]:
    with serve(hub) as endpoint:

        def run(path: str = REPO, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
            command = [EVAL, "check", "lamra", "--model-arg", f"path={path}", "--device", "cpu", *arguments]
            environment = environment_for(endpoint, tmp_path) | extra
            return forks.call(command, cwd=tmp_path, env=environment)

        yield run


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.slow
def test_a_checkpoint_is_fetched_once_and_then_needs_no_network(check: Check, hub: Hub) -> None:
    assert check().returncode == 0
    assert hub.downloads["model.safetensors"] == 1
    assert "notes.pdf" not in hub.downloads
    again = check(HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert hub.downloads["model.safetensors"] == 1


def test_bytes_are_told_of_while_they_are_fetched(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    told: list[str] = []
    with serve(hub) as endpoint:
        counts = _telling(lambda units=1, note="": told.append(note))
        snapshot_download(REPO, endpoint=endpoint, cache_dir=tmp_path, tqdm_class=counts, max_workers=1)
    size = readable_size(sum(map(len, files.values())))
    assert told[-1] == f"{size} of {size}"
    assert len(set(told)) > 1


def test_a_gated_model(check: Check, hub: Hub) -> None:
    terms = f"{REPO} is gated: accept its terms at https://huggingface.co/{REPO}, then `hf auth login`"
    hub.gated_files.add(REPO)  # what is in it everybody may see
    assert terms in refused(check())
    hub.gated.add(REPO)
    message = refused(check(HF_TOKEN="hf_secret"))
    assert terms in message
    assert "hf_secret" not in message


def test_what_the_hub_has_not(check: Check, hub: Hub) -> None:
    assert "owner/none is neither a local folder nor a model on the hub" in refused(check("owner/none"))
    hub.hidden.add(REPO)
    assert "a private one needs `hf auth login`" in refused(check())
    hub.hidden.clear()
    wrong = refused(check(REPO, "--model-arg", "revision=v9"))
    assert f"{REPO} has no revision 'v9'" in wrong


def test_without_a_network(check: Check, tmp_path: Path) -> None:
    for extra in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        message = refused(check(**extra))
        assert f"{REPO} is not in the hub's cache ({tmp_path}/hf/hub), and the hub can't be reached" in message
        assert f"hf download {REPO} --local-dir FOLDER" in message


def test_parameters_are_counted_by_the_files_headers(tmp_path: Path) -> None:
    folder = save_qwen2_vl(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    assert find_checkpoint(str(folder)).parameters == sum(one.numel() for one in tensors.values())
    assert gme.load(path=str(folder), device="cpu").info.parameters == sum(one.numel() for one in tensors.values())
    for broken in (b"", b"\x02\0\0\0\0\0\0\0{", b"version https://git-lfs.github.com/spec/v1"):
        (folder / "model.safetensors").write_bytes(broken)
        with pytest.raises(ModelError, match=r"model.safetensors is no whole .safetensors file: get it again"):
            _ = find_checkpoint(str(folder)).parameters
    (folder / "model.safetensors").unlink()
    assert find_checkpoint(str(folder)).parameters is None
