"""An embedding model behind an HTTP server that speaks OpenAI's `POST /embeddings`: OpenAI, vLLM, and many others.

    mmeb-eval run --model openai:text-embedding-3-small --tasks …
    mmeb-eval run --model openai:NAME --model-arg base_url=http://localhost:8000/v1 --model-arg style=messages

Two forms of request, to be chosen, since neither can be guessed:

    style=input     {"input": [text, …]}: texts only, many a request; any server. No chat template is applied to these.
                    Items with a picture or frames are refused.
    style=messages  {"messages": [system turn, user turn]}: vLLM's form, text and pictures, one item a request. Pictures
                    are data URLs and stand before the text, or where they belong in it; frames are pictures in their
                    order, and the server has to allow so many (vLLM's --limit-mm-per-prompt, 999 by default).

A query's instruction stands before its text with a space between (instruction=text), in the system turn (system, of
messages only), or nowhere (none). Candidates go without theirs. An item without text and media is sent as one space:
OpenAI refuses empty strings.

The width of the vectors is `dimensions`, which is then asked of the server too (it shortens vectors of models made for
that); without it, it is found by one request when the model is built. Vectors are brought to unit length here.

No server says which weights it runs: name them in `revision`. The key is read from the environment and stands nowhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx
import numpy as np

from mmeb_baselines.unit import unit_vectors
from mmeb_harness import (
    EncodeResult,
    InstructionPlacement,
    Item,
    ModelError,
    ModelInfo,
    OptionError,
    Profile,
    Role,
    Vectors,
)
from mmeb_harness.adapter.addresses import check_address
from mmeb_harness.adapter.pictures import data_url
from mmeb_harness.adapter.remote import Endpoint, MayPassError, RefusedError, Remote, json_object, message_of

Style = Literal["input", "messages"]
Instruction = Literal["system", "text", "none"]
Encoding = Literal["float", "base64"]

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
#: Entries of one request that OpenAI takes.
LARGEST_BATCH = 2048
EMPTY_TEXT = " "

# For the harness's batches only; servers have tokenizers of their own.
_CHARACTERS_PER_TOKEN = 3
_TOKENS_PER_PICTURE = 1024
#: Of any item: at the default --batch-tokens no more than 256 are under way when a server goes, and asked for again.
_LEAST_COST = 64


def load(
    model: str,
    base_url: str = OPENAI,
    style: Style = "input",
    instruction: Instruction | None = None,
    dimensions: int | None = None,
    revision: str = "unstated",
    api_key_env: str | None = "auto",
    encoding: Encoding = "float",
    batch_size: int = 32,
    max_parallel: int = 4,
    requests_per_minute: float | None = None,
    timeout: float = 120.0,
    retries: int = 5,
) -> EndpointEmbedder:
    """A model behind an OpenAI-compatible server of embeddings: texts, or text and pictures as vLLM takes them.

    Args:
        model: the server's name for it.
        base_url: up to and with /v1, without user, password or query.
        style: form of the requests; see the module.
        instruction: where a query's stands; default: before the text (input), the system turn (messages).
        dimensions: width to ask for; default: the server's own, found by one request.
        revision: of the weights, as you know them; part of the results.
        api_key_env: name of the variable with the key, or none; auto is OPENAI_API_KEY for OpenAI's own address and
            none for any other, so that a key goes nowhere it wasn't meant for.
        encoding: of the numbers in an answer; base64 is shorter.
        batch_size: texts a request; messages have one item each.
        max_parallel: requests under way at once.
        requests_per_minute: attempts of all together; default: no limit.
        timeout: seconds for one attempt.
        retries: further attempts, where they may help.

    Raises:
        OptionError: a setting that can't be one, or the key's variable isn't set.
        ModelError: the server can't be reached, or gives no vectors.
    """
    url = base_url.rstrip("/")
    variable = (OPENAI_KEY if url == OPENAI else None) if api_key_env == "auto" else api_key_env
    check_address(url, variable, "model 'openai': ")
    _check_numbers(dimensions, batch_size, max_parallel, requests_per_minute, timeout, retries)
    placed = instruction or ("text" if style == "input" else "system")
    form = Form(model, style, placed, dimensions, encoding, batch_size if style == "input" else 1)
    remote = Remote(f"openai:{model}", url, model, variable, timeout, retries, max_parallel, requests_per_minute)
    return EndpointEmbedder(Endpoint(remote), form, url, revision)


def _check_numbers(
    dimensions: int | None,
    batch_size: int,
    max_parallel: int,
    requests_per_minute: float | None,
    timeout: float,
    retries: int,
) -> None:
    for name, value, holds, wanted in (
        ("dimensions", dimensions, dimensions is None or dimensions >= 1, "at least 1"),
        ("batch_size", batch_size, 1 <= batch_size <= LARGEST_BATCH, f"between 1 and {LARGEST_BATCH}"),
        ("max_parallel", max_parallel, max_parallel >= 1, "at least 1"),
        ("requests_per_minute", requests_per_minute, requests_per_minute is None or requests_per_minute > 0, "above 0"),
        ("timeout", timeout, timeout > 0, "above 0"),
        ("retries", retries, retries >= 0, "at least 0"),
    ):
        if not holds:
            raise OptionError(f"model 'openai': {name} must be {wanted}, not {value}")


@dataclass(frozen=True)
class Ask:
    """One request, and the items it is for."""

    items: tuple[Item, ...]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How items become requests. Attributes as the arguments of `load`.

    Raises:
        OptionError: an instruction in the system turn, in the style that has none.
    """

    model: str
    style: Style
    instruction: Instruction
    dimensions: int | None
    encoding: Encoding
    batch_size: int

    def __post_init__(self) -> None:
        if self.style == "input" and self.instruction == "system":
            raise OptionError("model 'openai': style=input has no system turn; use instruction=text, or style=messages")

    def asks(self, items: Sequence[Item], role: Role) -> list[Ask]:
        """Requests for `items`, in order.

        Raises:
            ModelError: an item with pictures or frames in the style that has text only.
            DataError: a picture that can't be opened.
        """
        groups = [tuple(items[start : start + self.batch_size]) for start in range(0, len(items), self.batch_size)]
        return [Ask(group, {**self._common(), **self._content(group, role)}) for group in groups]

    def _common(self) -> dict[str, Any]:
        cut = {} if self.dimensions is None else {"dimensions": self.dimensions}
        return {"model": self.model, "encoding_format": self.encoding, **cut}

    def _content(self, group: tuple[Item, ...], role: Role) -> dict[str, Any]:
        if self.style == "messages":
            return {"messages": self._messages(group[0], role)}
        for item in group:
            if item.media:
                raise ModelError(
                    f"openai:{self.model} is asked with style=input, which has text only; item {item.id!r} has "
                    f"{'frames' if item.frames else 'a picture'}. Use --model-arg style=messages if the server takes "
                    "pictures (vLLM does)"
                )
        return {"input": [self._text(item, role) or EMPTY_TEXT for item in group]}

    def _messages(self, item: Item, role: Role) -> list[dict[str, Any]]:
        """A conversation: pictures first, or where they stand in the words; a text part only where there is text."""
        parts = [_part(piece) for piece in item.between(self._told(item, role)).pieces or (EMPTY_TEXT,)]
        turns: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        if role == "query" and self.instruction == "system" and item.instruction:
            turns.insert(0, {"role": "system", "content": item.instruction})
        return turns

    def _text(self, item: Item, role: Role) -> str:
        return self._told(item, role) + item.text

    def _told(self, item: Item, role: Role) -> str:
        """What stands before an item's own text."""
        told = item.instruction if role == "query" and self.instruction == "text" else ""
        return f"{told} " if told and item.text else told


def _part(piece: str | Path) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    return {"type": "image_url", "image_url": {"url": data_url(piece)}}


class EndpointEmbedder:
    """Asks one server for vectors, several requests at once."""

    def __init__(self, endpoint: Endpoint, form: Form, base_url: str, revision: str) -> None:
        """Find the width, by one request if it isn't given.

        Raises:
            ModelError: the server can't be reached, or gives no vectors.
        """
        self._endpoint, self._form, self._owner = endpoint, form, f"openai:{form.model}"
        self._width = form.dimensions
        if self._width is None:
            self._width = self._ask(form.asks([Item("width", text="width")], "candidate")).shape[1]
        self.info = ModelInfo(
            name=self._owner,
            revision=revision,
            dimensions=self._width,
            settings={
                "base_url": base_url,
                "style": form.style,
                "instruction": form.instruction,
                "dimensions_asked": form.dimensions,
            },
            profile=_profile(form),
            media=() if form.style == "input" else ("image", "video"),
        )

    def warm_up(self) -> None:
        """Ask once: a server that isn't there shows before the first batch, and one that sleeps wakes up."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def cost(self, item: Item, role: Role) -> int:
        """Tokens, roughly: by them the harness decides how many items it hands over at once."""
        characters = len(item.text) + len(item.instruction)
        return max(_LEAST_COST, characters // _CHARACTERS_PER_TOKEN + _TOKENS_PER_PICTURE * len(item.media))

    def prepare(self, items: Sequence[Item], role: Role) -> list[Ask]:
        """Read pictures and write requests.

        Raises:
            ModelError: an item with pictures or frames in the style that has text only.
            DataError: a picture that can't be opened.
        """
        return self._form.asks(items, role)

    def encode_prepared(self, prepared: list[Ask]) -> EncodeResult:
        """Ask, and wait for all answers.

        Raises:
            ModelError: no answer after all attempts, or one that can't be used; says of which items.
        """
        return EncodeResult(self._ask(prepared))

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self.encode_prepared(self.prepare(items, role))

    def _ask(self, asks: Sequence[Ask]) -> Vectors:
        return np.concatenate(list(self._endpoint.each(self._answer, asks)))

    def _answer(self, client: httpx.Client, ask: Ask) -> Vectors:
        def read(content: bytes, _seconds: float) -> Vectors:
            return self._vectors(content, ask.items)

        try:
            return self._endpoint.ask(client, "embeddings", read, ask.body)
        except RefusedError as error:
            raise ModelError(
                f"{self._owner}: the server refuses {_named(ask.items)}: {error}. If an item is too long for it, "
                "--model-arg batch_size=1 shows which"
            ) from error
        except MayPassError as error:
            raise ModelError(
                f"{self._owner}: {error}, for {_named(ask.items)}. The same command goes on from there; a longer "
                "timeout, fewer max_parallel or requests_per_minute may help"
            ) from error

    def _vectors(self, content: bytes, items: Sequence[Item]) -> Vectors:
        """A 200's content as unit vectors (n, d), in the order of the items.

        Raises:
            MayPassError: it is no answer of embeddings at all.
            ModelError: it is one that can't be used.
        """
        rows = json_object(content).get("data")
        if not isinstance(rows, list):
            raise MayPassError(f"the answer has no data: {message_of(content)}")
        if len(rows) != len(items):
            raise ModelError(f"{self._owner} returned {len(rows)} vectors for {_named(items)}")
        try:
            by_index = {row["index"]: row["embedding"] for row in rows}
        except (TypeError, KeyError) as error:
            raise ModelError(f"{self._owner} returned data without index and embedding, for {_named(items)}") from error
        if by_index.keys() != set(range(len(items))):
            raise ModelError(
                f"{self._owner} returned vectors of indices {sorted(by_index, key=str)[:5]} …, "
                f"not 0 to {len(items) - 1}, for {_named(items)}"
            )
        raw = [self._numbers(by_index[place], item) for place, item in enumerate(items)]
        return unit_vectors(np.stack(raw), items, self._owner)

    def _numbers(self, embedding: object, item: Item) -> Vectors:
        """One vector (d,), sent as a list or in base64; servers don't always send what they were asked for.

        Raises:
            ModelError: neither, or of a wrong width.
        """
        try:
            if isinstance(embedding, str):
                # OpenAI's: float32, little-endian.
                vector = np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
            else:
                vector = np.array(_plain_numbers(embedding), dtype=np.float64)
        except (binascii.Error, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{self._owner} returned no vector for item {item.id!r}: {error}") from error
        if vector.ndim != 1 or not len(vector):
            raise ModelError(
                f"{self._owner} returned an array of shape {vector.shape} for item {item.id!r}; one vector is needed"
            )
        if self._width is not None and len(vector) != self._width:
            raise ModelError(
                f"{self._owner} returned a vector of width {len(vector)} for item {item.id!r}, expected {self._width}; "
                "does the server know `dimensions`?"
            )
        return vector.astype(np.float32)


def _plain_numbers(embedding: object) -> object:
    """The list as it is: numpy would take None as NaN, and words and truth values as numbers.

    Raises:
        TypeError: it holds something else.
    """
    for value in embedding if isinstance(embedding, list) else [embedding]:
        if type(value) not in (int, float, list):
            raise TypeError(f"{str(value)[:60]!r} is no number")
    return embedding


def _profile(form: Form) -> Profile:
    placed: dict[Instruction, InstructionPlacement] = {"system": "system turn", "text": "user text", "none": "none"}
    return Profile(
        name=f"endpoint, {form.style}",
        instruction=placed[form.instruction],
        candidate_instruction="none",
        whitespace="kept",
        pooling="the server's",
    )


def _named(items: Sequence[Item]) -> str:
    first, last = items[0].id, items[-1].id
    return f"item {first!r}" if len(items) == 1 else f"{len(items)} items, {first!r} to {last!r}"
