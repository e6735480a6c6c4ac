"""Asks a vLLM server what our checkpoint would write behind a prompt, and refuses what can't be from it. No torch.

The server must serve the checkpoint that reads what it writes. What shows otherwise stops the run: its name isn't
listed, it saw other tokens than we do. What doesn't show: weights that differ little (but see `embed.served`), another
precision.

Greedy decoding on a server depends, in its last digits, on what else is under way there. Where two tokens are nearly
equally likely, a rationale may come out differently another time; vLLM's VLLM_BATCH_INVARIANT=1 is against that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import httpx2 as httpx

from mmeb_harness.adapter.remote import Endpoint, MayPassError, RefusedError, Remote, StatusError, json_object
from mmemb_r1_model.disk.errors import ModelError
from mmemb_r1_model.model.chat_template import PATH as TEMPLATE
from mmemb_r1_model.model.prompt import VIDEO_PAD, PromptTokenizer
from mmemb_r1_model.vllm.request import (
    BIAS_OF_BANNED,
    CHAT_PATH,
    CLIP_FORMS,
    CLOSING_TOKENS,
    Json,
    UnfitError,
    choices_of,
    other_prompt,
    sampling,
    shows_clip,
    takes_none,
    texts_of,
    way_out,
)
from mmemb_r1_model.vllm.server import Server, Wording

Answer = TypeVar("Answer")
Send: TypeAlias = Callable[["Order"], Future[list[Answer]]]


@dataclass(frozen=True)
class Question:
    """What a server must know of an item; made where its media are read, as it crosses process borders.

    Attributes:
        item_id: for messages.
        chat: see `request.chat`.
    """

    item_id: str
    chat: Json


@dataclass(frozen=True)
class Order:
    """Answers that are wanted to one prompt.

    Attributes:
        prompt: as our own reader has it, <think> included.
        max_new_tokens: of the rationale.
        count: of answers.
        more: further fields of the request.
        certain: a token that is to be written, whatever the model would write.
    """

    question: Question
    prompt: Sequence[int]
    max_new_tokens: int
    count: int = 1
    temperature: float = 0.0
    more: Json = field(default_factory=dict)
    certain: int | None = None

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return len(self.prompt) + self.max_new_tokens + CLOSING_TOKENS


@dataclass(frozen=True)
class Reader:
    """The model that reads what the server writes: what it can write itself, and its name.

    Attributes:
        banned: tokens that can't be written.
        ends: tokens that end an answer, and are part of it.
        checkpoint: its name, for messages.
    """

    tokenizer: PromptTokenizer
    banned: Iterable[int]
    ends: Sequence[int]
    checkpoint: str


@dataclass(frozen=True)
class Served:
    """A model that a server has.

    Attributes:
        context: tokens of prompt and answer together; `None`: it doesn't say.
    """

    name: str
    context: int | None = None


class Client(Generic[Answer]):
    """Asks one server, many prompts at once."""

    def __init__(
        self,
        server: Server,
        wording: Wording,
        reader: Reader,
        read: Callable[[Json], Answer],
        served: Served | None = None,
        restore: Callable[[], None] | None = None,
    ) -> None:
        """Set up; nothing is asked yet.

        Args:
            read: one choice of a reply → what is wanted of it; may raise `UnfitError`.
            served: what is asked; by default it is looked for in the server's list.
            restore: gives the model to a server that doesn't know it any more; then it is asked again.

        Raises:
            OptionError: the key isn't there.
        """
        self._wording, self._reader, self._read = wording, reader, read
        self._wanted, self._served, self._restore = server.model, served, restore
        #: What of a request makes the server lay out a clip as we do; `None`: not asked yet.
        self._clips: Json | None = None
        self._lock, self._clip_lock = threading.Lock(), threading.Lock()
        self._endpoint = Endpoint(
            Remote(
                owner=wording.owner,
                base_url=server.base_url,
                model=server.model or reader.checkpoint,
                api_key_env=server.api_key_env,
                timeout_seconds=server.timeout_seconds,
                max_retries=server.max_retries,
                max_parallel=server.max_parallel,
                base_url_setting=wording.names["base_url"],
                api_key_setting=wording.names["api_key_env"],
            )
        )

    @property
    def served(self) -> Served:
        """The model that is asked; looked for at the first call.

        Raises:
            ModelError: nobody answers, or the server doesn't have it.
        """
        if self._served is None:
            self._served = self._find(self._listed())
        return self._served

    @contextlib.contextmanager
    def sending(self) -> Iterator[Send[Answer]]:
        """Send orders without waiting; gives a function that promises the answers to one.

        What a promise may raise instead:
            ModelError: the server is gone, refuses the request, saw another prompt, or answers without what is needed.
        """
        served = self.served
        with self._endpoint.sending(self._answers) as send:

            def checked(order: Order) -> Future[list[Answer]]:
                self._check_length(order, served)
                return send(order)

            yield checked

    def answers(self, orders: Iterable[Order]) -> list[list[Answer]]:
        """The answers to each order.

        Raises:
            ModelError: as a promise of `sending`.
        """
        return list(self._endpoint.each(self._answers, orders))

    def learn_clips(self, order: Order) -> None:
        """Find out by a clip how this server has to be asked for one, if it takes any.

        Raises:
            ModelError: it lays out no form of a clip as we do, or refuses what pictures need as well.
        """
        with self._explaining(order), self._endpoint.client() as connection:
            try:
                self._clip_form(connection, order)
            except RefusedError as error:
                if not takes_none(error):
                    raise

    def has(self, name: str) -> bool:
        """Whether the server lists a model of this name.

        Raises:
            ModelError: nobody answers.
        """
        return any(model["id"] == name for model in self._listed())

    def post(self, path: str, body: Json) -> None:
        """Tell the server something.

        Raises:
            MayPassError: no attempt succeeded.
            RefusedError: the server doesn't want it.
            ModelError: not allowed, no such address, or nobody answers there.
        """
        with self._endpoint.client() as connection:
            self._endpoint.ask(connection, path, lambda content, seconds: None, body)

    def _listed(self) -> list[Json]:
        """The models that the server has."""
        owner, address = self._wording.owner, self._wording.names["base_url"]
        try:
            with self._endpoint.client() as connection:
                reply = self._endpoint.ask(connection, "models", lambda content, _: json_object(content))
        except (MayPassError, RefusedError) as error:
            raise ModelError(f"{owner}: the server can't say which models it has: {error}. {self._again}") from error
        models = reply.get("data")
        if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
            raise ModelError(f"{owner}: the server lists no models; {address} must be a vLLM server's address")
        return models

    def _find(self, models: Sequence[Json]) -> Served:
        """The model of the wanted name; without one the only model there is."""
        if self._wanted:
            wanted = [model for model in models if model["id"] == self._wanted]
        else:  # an adapter has the model it is for as its parent
            wanted = [model for model in models if not model.get("parent")]
        if len(wanted) != 1:
            raise ModelError(f"{self._wording.owner}: {self._unclear(models)}")
        context = wanted[0].get("max_model_len")
        return Served(str(wanted[0]["id"]), context if isinstance(context, int) else None)

    def _unclear(self, models: Sequence[Json]) -> str:
        name, checkpoint = self._wording.names["model"], self._reader.checkpoint
        listed = ", ".join(repr(str(model["id"])) for model in models) or "none"
        if self._wanted:
            return (
                f"the server has no model {self._wanted!r} (it has {listed}): give the right {name}, or serve "
                f"{checkpoint} there"
            )
        return f"which of the server's models is {checkpoint}? Name it by {name}; it has {listed}"

    def _answers(self, connection: httpx.Client, order: Order) -> list[Answer]:
        """A thread's work: the answers to one prompt."""
        self._check_words(order)
        with self._explaining(order):
            clips = self._clip_form(connection, order) if shows_clip(order.question.chat) else {}
            reply = self._asked(connection, self._body(order, clips))
            if (difference := self._difference(order, reply)) is not None:
                raise self._unequal(order, difference)
            choices = choices_of(reply, order.count, order.question.item_id)
            answers = [self._read(choice) for choice in choices]
            self._check_ends(order, choices)
            return answers

    @contextlib.contextmanager
    def _explaining(self, order: Order) -> Iterator[None]:
        """Whatever fails becomes a ModelError that says for which item, and what to do."""
        owner, item_id = self._wording.owner, order.question.item_id
        try:
            yield
        except MayPassError as error:
            raise ModelError(f"{owner}: {error}, for item {item_id!r}. {self._again}") from error
        except RefusedError as error:
            advice = way_out(error, order.longest, self._reader.checkpoint)
            raise ModelError(
                f"{owner}: the server refuses item {item_id!r}: {str(error).rstrip('.')}. {advice}"
            ) from error
        except UnfitError as error:
            raise ModelError(f"{owner}: the server {error}") from error

    def _asked(self, connection: httpx.Client, body: Json) -> Json:
        """A reply, also of a server that was started again in between and doesn't know the model any more."""

        def ask() -> Json:
            return self._endpoint.ask(connection, CHAT_PATH, lambda content, _: json_object(content), body)

        try:
            return ask()
        except StatusError as error:
            if error.status != 404 or self._restore is None:
                raise
            with self._lock:  # of many threads the first one finds that there is something to do
                self._restore()
            return ask()

    def _body(self, order: Order, clips: Json) -> Json:
        chosen = sampling(order.temperature, order.max_new_tokens, self._reader.banned, self._reader.ends)
        if order.certain is not None:
            chosen["logit_bias"] = {**chosen["logit_bias"], str(order.certain): -BIAS_OF_BANNED}
        return {
            "model": self.served.name,
            "n": order.count,
            **order.more,
            **chosen,
            **order.question.chat,
            **(clips if shows_clip(order.question.chat) else {}),
        }

    def _clip_form(self, connection: httpx.Client, order: Order) -> Json:
        """What of a request makes the server lay out a clip as we do; the first clip shows it."""
        with self._clip_lock:
            probe, differences = dataclasses.replace(order, max_new_tokens=1, count=1, temperature=0.0), []
            for form in CLIP_FORMS if self._clips is None else ():
                difference = self._difference(probe, self._asked(connection, self._body(probe, form)))
                if difference is None:
                    self._clips = form
                    break
                differences.append(difference)
            if self._clips is None:
                raise self._unequal(probe, f"; asked for a bare {VIDEO_PAD}, ".join(differences))
            return self._clips

    def _difference(self, order: Order, reply: Json) -> str | None:
        """How what the server saw differs from what the reader sees."""
        return other_prompt(reply, order.prompt, self._reader.tokenizer.decode)

    def _unequal(self, order: Order, difference: str) -> ModelError:
        return ModelError(
            f"{self._wording.owner}: the server saw another prompt of item {order.question.item_id!r}: {difference}. "
            f"It must serve this checkpoint ({self._reader.checkpoint}) with --chat-template {TEMPLATE}, cut no "
            "prompts, and be a vLLM that takes mm_processor_kwargs and media_io_kwargs in a request. A text that "
            f"begins with a line break also does it: {self._wording.instead}"
        )

    def _check_words(self, order: Order) -> None:
        """What a text spells is a token to a server: a chat with media can't be sent as ids."""
        spelled = next(filter(None, map(self._reader.tokenizer.spelled, texts_of(order.question.chat))), None)
        if spelled is not None:
            raise ModelError(
                f"{self._wording.owner}: item {order.question.item_id!r} has the letters of the special token "
                f"{spelled!r}, which are text here, and which no server takes for text: {self._wording.instead}"
            )

    def _check_ends(self, order: Order, choices: Sequence[Json]) -> None:
        """vLLM cuts an answer that its context has no room for, and says nothing."""
        for choice in choices:
            written = len(choice.get("token_ids") or ())
            if choice.get("finish_reason") == "length" and written < order.max_new_tokens + CLOSING_TOKENS:
                raise ModelError(
                    f"{self._wording.owner}: the server cuts the answer to item {order.question.item_id!r} after "
                    f"{written} tokens: start vLLM with --max-model-len of at least {order.longest}"
                )

    def _check_length(self, order: Order, served: Served) -> None:
        if served.context is not None and order.longest > served.context:
            raise ModelError(
                f"{self._wording.owner}: item {order.question.item_id!r} needs {order.longest} tokens with its "
                f"rationale, and the server takes {served.context}: start vLLM with --max-model-len of at least "
                f"{order.longest}, or give a smaller --model-arg max_new_tokens"
            )

    @property
    def _again(self) -> str:
        return (
            f"Start the server again and repeat the command: it goes on from {self._wording.stored}, also with another "
            f"{self._wording.names['base_url']}"
        )
