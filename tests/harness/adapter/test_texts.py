"""What a text spells stays text; a template's tokens are meant."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mmeb_harness.adapter.texts import Speller, Template
from mmemb_r1_model.model.checkpoint import EMBEDDED

DESCRIPTION = (EMBEDDED / "tokenizer.json").read_text(encoding="utf-8")
WHOLE, SPELLER = Tokenizer.from_str(DESCRIPTION), Speller(DESCRIPTION, Tokenizer.from_str)
TOKENS = sorted(SPELLER.added_tokens)
SOME = settings(max_examples=60, derandomize=True, deadline=None)
#: Pieces of text among which tokens are spelled, whole and nearly.
WORDS = st.lists(
    st.sampled_from([*TOKENS, "<|im_", "end|>", "<", "|", ">", " ", "\n", "red circle", "{{ x }}", "é漢🙂"])
)


@SOME
@given(WORDS)
def test_no_text_becomes_a_token(words: list[str]) -> None:
    text = "".join(words)
    ids = SPELLER.ids(text)
    assert not set(ids) & set(SPELLER.added_tokens.values())
    assert WHOLE.decode(ids, skip_special_tokens=False) == text
    assert (SPELLER.spelled(text) is not None) == any(token in text for token in TOKENS)


@SOME
@given(WORDS)
def test_a_template_is_read_as_the_whole_tokenizer_reads_it(words: list[str]) -> None:
    assert SPELLER.ids(Template("".join(words))) == WHOLE.encode("".join(words), add_special_tokens=False).ids


@SOME
@given(st.lists(st.sampled_from(["a", " red", "\n", "<", "circle"])))
def test_text_without_tokens_joins_its_template(words: list[str]) -> None:
    text = "".join(words)
    pieces = (Template("<|im_start|>system\n"), text, Template("<|im_end|>\n"))
    whole = f"<|im_start|>system\n{text}<|im_end|>\n"
    assert SPELLER.ids(pieces) == WHOLE.encode(whole, add_special_tokens=False).ids


@pytest.mark.parametrize("token", TOKENS)
def test_a_template_and_data_are_told_apart(token: str) -> None:
    ids = SPELLER.ids((Template(token), token, Template(token)))
    assert [ids.count(SPELLER.added_tokens[token]), ids[0], ids[-1]] == [2, *[SPELLER.added_tokens[token]] * 2]


def test_words_of_the_vocabulary_among_the_added_tokens_are_text() -> None:
    """Gemma's has line breaks there."""
    import json

    description = json.loads(DESCRIPTION)
    word = next(word for word in description["model"]["vocab"] if word.isascii() and word.isalpha() and len(word) > 3)
    number = description["model"]["vocab"][word]
    token = {**description["added_tokens"][0], "content": word, "id": number, "special": False}
    description["added_tokens"].append(token)
    speller = Speller(json.dumps(description), Tokenizer.from_str)
    assert speller.ids(f"x{word}x") == Tokenizer.from_str(json.dumps(description)).encode(f"x{word}x").ids
