"""How the hub is asked: how long it wants to be left alone, and what of a failure is this machine's."""

import hashlib
import os
import shutil
from pathlib import Path

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from mmeb_harness import DataError
from mmeb_harness.data import hub
from mmeb_harness.data.lock import HubFile


def refusal(headers: dict[str, str]) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://127.0.0.1/")
    return HfHubHTTPError("too many requests", response=httpx2.Response(429, headers=headers, request=request))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit": '"resolvers";r=0;t=20'}, 21),
        ({"ratelimit": '"resolvers";r=0;t=900'}, hub.LONGEST_PAUSE_SECONDS + 1),
        ({"ratelimit": '"resolvers";r=7;t=20'}, 0),
        ({"Retry-After": "5"}, 5),
        ({}, 0),
    ],
)
def test_a_hub_that_limits_requests_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert hub._asked_pause(refusal(headers)) == seconds


def test_a_full_disk_while_a_list_is_asked_for_is_a_line() -> None:
    def ask() -> None:
        raise PermissionError(13, "Permission denied", "/tmp/x")

    with pytest.raises(DataError, match=r"owner/name: .*Permission denied"):
        hub._patiently("owner/name", None, ask, lambda seconds: None)


def test_a_copy_out_of_the_clients_cache_that_was_cut_off_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another file system the cache's file is copied: what a kill leaves has a name that the next one knows."""
    cached, folder = tmp_path / "cached", tmp_path / "work"
    cached.write_bytes(b"twelve bytes")
    file = HubFile("owner/name", "c" * 40, "a.tar", 12, f"sha256:{hashlib.sha256(b'twelve bytes').hexdigest()}")
    target = hub.downloaded(file, folder)

    def cut(source: str, copy: Path) -> None:
        copy.write_bytes(b"twel")
        raise KeyboardInterrupt

    def elsewhere(source: str, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(cached))
    monkeypatch.setattr(os, "link", elsewhere)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", cut)
        with pytest.raises(KeyboardInterrupt):
            hub.download(file, folder)
    assert [path.name for path in folder.iterdir() if path.is_file()] == [f"{target.name}.part"]
    assert hub.download(file, folder).read_bytes() == b"twelve bytes"
    assert [path.name for path in folder.iterdir() if path.is_file()] == [target.name]
