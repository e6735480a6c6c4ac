"""A checkpoint's chat template: kept where it renders what training reads, replaced by ours where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmeb_harness import DataError
from mmemb_r1_model.model.chat_template import NAME, PATH, write_chat_template

OURS = PATH.read_text()
OWN = OURS + "{# and a remark #}"
#: As a published Qwen3-VL writes a clip, whatever it is asked for.
PLAIN = OURS.replace("'<|video_pad|>' if bare_video else ", "")


def in_jinja(folder: Path, template: str) -> None:
    (folder / NAME).write_text(template)


def in_a_file_of_its_own(folder: Path, template: str) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def with_the_tokenizer(folder: Path, template: str) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))


def by_name(folder: Path, template: str) -> None:
    templates = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))


@pytest.mark.parametrize("put", [in_jinja, in_a_file_of_its_own, with_the_tokenizer, by_name])
def test_one_that_renders_what_training_reads_is_kept(put: Callable[[Path, str], None], tmp_path: Path) -> None:
    put(tmp_path, OWN)
    (tmp_path / "new").mkdir()
    assert write_chat_template(tmp_path, tmp_path / "new") is None
    assert (tmp_path / "new" / NAME).read_text() == OWN


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (PLAIN, "it renders a clip for transformers 5.10 and newer as "),
        (OURS.replace("{{ part.text }}", "{{ part.text | trim }}"), "it renders a text as "),
        (OURS.replace("'<|im_start|>assistant", "'<think>"), None),  # where nobody answers yet: never asked for
        (OURS.replace("<|vision_end|>", ""), "it renders a picture as "),
        ("{{ messages | no_such_filter }}", "a text can't be rendered by it (No filter named"),
        ("{{ messages[0].content }}", "a text can't be rendered by it (continue_final_message is set but"),
        ("{{ raise_exception(messages[2].content[0].text) }}", "a text can't be rendered by it (<think>"),
    ],
)
def test_another_prompt_than_trainings_is_replaced(template: str, reason: str | None, tmp_path: Path) -> None:
    in_jinja(tmp_path, template)
    said = write_chat_template(tmp_path, tmp_path)
    if reason is None:
        assert (said, (tmp_path / NAME).read_text()) == (None, template)
    else:
        assert said is not None
        assert said.startswith(reason)
        assert (tmp_path / NAME).read_text() == OURS


def test_a_checkpoint_without_one_gets_ours(tmp_path: Path) -> None:
    assert write_chat_template(tmp_path, tmp_path) is None
    assert (tmp_path / NAME).read_text() == OURS


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(DataError, match=r"chat_template\.json is not valid JSON .*get the checkpoint whole"):
        write_chat_template(tmp_path, tmp_path)
