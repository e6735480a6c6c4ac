"""Workers behind an OpenAI-compatible HTTP endpoint: vLLM, a provider.

A request that isn't wanted, or that no attempt carries through, is a failed row; what no other request would change
ends the run (see `mmeb_harness.adapter.remote`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import httpx2 as httpx

from mmeb_harness.adapter.pictures import data_url
from mmeb_harness.adapter.remote import Endpoint, MayPassError, RefusedError, Remote, json_object, message_of
from mmemb_r1_model.data.rationales import ERROR
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.text import clean
from mmemb_r1_model.rationales.workers import Answer, Ask, WorkerPrompt, found_rationale, turn


class EndpointWorker:
    """Asks a chat endpoint, several requests at once; answers come in the order of the asks."""

    def __init__(self, config: WorkerConfig, prompt: WorkerPrompt) -> None:
        self._config, self._prompt = config, prompt
        self._endpoint = Endpoint(
            Remote(
                owner=f"worker {config.name!r}",
                base_url=config.base_url,
                model=config.model,
                api_key_env=config.api_key_env,
                timeout_seconds=config.timeout_seconds,
                max_retries=config.max_retries,
                max_parallel=config.max_parallel,
                requests_per_minute=config.requests_per_minute,
            )
        )

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """Ask with up to `max_parallel` requests under way.

        Raises:
            ModelError: not allowed, no such model or address, or nobody answers there.
            DataError: a picture that can't be read.
        """
        yield from self._endpoint.each(self._answer, asks)

    def _answer(self, client: httpx.Client, ask: Ask) -> Answer:
        try:
            return self._endpoint.ask(client, "chat/completions", self._read, self._body(ask))
        except (RefusedError, MayPassError) as error:
            return Answer("", None, None, f"{ERROR}{error}")

    def _body(self, ask: Ask) -> dict[str, Any]:
        config, asked = self._config, turn(ask.item, self._prompt.request)
        content = [_part(piece) for piece in asked.pieces] if asked.media else asked.text
        return {
            "model": config.model,
            "messages": [
                {"role": "system", "content": self._prompt.system},
                {"role": "user", "content": content},
            ],
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": ask.seed,
        }

    def _read(self, content: bytes, seconds: float) -> Answer:
        """A 200's content.

        Raises:
            MayPassError: not the shape of a chat completion.
        """
        reply = json_object(content)
        if not isinstance(reply.get("choices"), list):
            raise MayPassError(f"the answer has no choices: {message_of(content)}")
        usage = reply.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        tokens = count if isinstance(count, int) else None
        if not reply["choices"]:
            return Answer("", tokens, seconds, "stop")
        try:
            choice = reply["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text = self._text(message.get("content"))
            # vLLM and DeepSeek's name, then OpenRouter's and later vLLM's.
            thoughts = self._text(message.get("reasoning_content") or message.get("reasoning"))
        except (TypeError, KeyError, AttributeError) as error:
            raise MayPassError(f"the answer is no chat completion ({type(error).__name__}: {error})") from error
        if reason not in ("stop", "length", "eos", "end_turn", None):
            return Answer(clean(text), tokens, seconds, f"{ERROR}finish reason {str(reason)[:60]!r}")
        cut = reason == "length"
        if self._config.kind == "thinking" and thoughts:
            return Answer(clean(thoughts), tokens, seconds, "length" if cut and not text else "stop")
        if self._config.kind == "thinking" and not text.strip():
            return Answer("", tokens, seconds, "stop")
        found, finish = found_rationale(self._config.kind, text, opened=False, cut=cut)
        return Answer(found, tokens, seconds, finish)

    def _text(self, content: object) -> str:
        """A message's text; some servers send it in parts."""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else ""


def _part(piece: str | Path) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    return {"type": "image_url", "image_url": {"url": data_url(piece)}}
