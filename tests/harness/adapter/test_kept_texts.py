"""Texts are kept by what the file holds and by what read it; a killed reader loses one, a broken text is read again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mmeb_harness import DataError, ResultError
from mmeb_harness.adapter.kept_texts import KeptTexts

READER = {"engine": "counts 1.0", "threshold": 0.5}


def letters(path: Path) -> str:
    return f"{len(path.read_bytes())} letters\né"


def never(path: Path) -> str:
    raise AssertionError(f"{path} is read again")


def page(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def test_a_text_is_kept_by_content_and_by_what_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(tmp_path / "cache"))
    first, same, other = (page(tmp_path, name, text) for name, text in (("a", "one"), ("b", "one"), ("c", "three")))
    kept = KeptTexts.of(READER)
    assert kept.text(first, letters) == KeptTexts.of(READER).text(same, never) == "3 letters\né"
    assert kept.text(other, lambda _: "") == kept.text(other, never) == ""  # nothing found is an answer, too
    assert kept.folder.is_relative_to(tmp_path / "cache" / "texts")
    page(tmp_path, "a", "changed")
    assert kept.text(first, letters) == "7 letters\né"
    newer = KeptTexts.of({**READER, "engine": "counts 1.1"}, tmp_path / "elsewhere")
    assert newer.text(same, lambda _: "new") == "new"
    with pytest.raises(DataError, match="gone can't be read: No such file"):
        kept.text(tmp_path / "gone", letters)


@pytest.mark.parametrize("broken", [b"3 Letters\n\xc3\xa9", b"", None])
def test_what_is_not_as_it_was_written_is_set_aside_and_read_again(
    broken: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept, path = KeptTexts.of(READER, tmp_path / "texts"), page(tmp_path, "a", "one")
    kept.text(path, letters)
    (stored,) = kept.folder.glob("*/*.txt")
    stored.unlink()
    if broken is None:
        stored.mkdir()
    else:
        stored.write_bytes(broken)
    assert kept.text(path, letters) == kept.text(path, never) == "3 letters\né"
    said = capfd.readouterr()
    assert said.out == ""
    assert f"{stored} is broken" in said.err
    assert "read again" in said.err
    assert [aside.name for aside in kept.folder.glob("*/set_aside/*")] == [stored.name]


def test_a_killed_reader_loses_the_text_it_was_at(tmp_path: Path) -> None:
    kept, pages = KeptTexts.of(READER, tmp_path / "texts"), [page(tmp_path, name, name) for name in ("a", "bb", "ccc")]

    def dies(path: Path) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    if (reader := os.fork()) == 0:
        try:
            for path, read in zip(pages, (letters, letters, dies), strict=True):
                kept.text(path, read)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == -signal.SIGKILL
    assert [kept.text(path, never) for path in pages[:2]] == ["1 letters\né", "2 letters\né"]
    assert kept.text(pages[2], letters) == "3 letters\né"


def test_a_folder_that_cant_be_made_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"can't write .*made_by\.json"):
        KeptTexts.of(READER, page(tmp_path, "file", ""))
