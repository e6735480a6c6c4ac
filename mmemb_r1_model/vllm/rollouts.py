"""Rollouts by a vLLM server that is given the student's adapters every few steps.

Ids and log-probabilities are the server's own, never those of text that is tokenised again. What is exact, and what
isn't:

- The log-probabilities are of the policy that sampled, however many steps old its weights are: the clipped ratio of
  stage 2 corrects for the age. That needs `--logprobs-mode processed_logprobs`. By default vLLM reports them as they
  were before its request-level settings, and each is too low by what the unwritable tokens would have had: a token that
  is made certain shows which.
- Unwritable tokens get a bias of -100, the least there is, where the student has minus infinity: e^-100 of what they
  had is left. One that is sampled nevertheless ends the rationale there, by rule, as malformed.
- The server lacks the trained row of <emb>, since vLLM can't load it beside adapters (its issue 36501). A rationale
  isn't fed that row, but where it is also <emb>'s output row, the server weighs <emb> by stage 1's: the policy that
  samples is slightly another one. The ratio corrects for that as it does for age.
- The server computes in its own precision: equal weights give nearly equal numbers. `log_ratio` in the log, the mean
  distance of both sides' log-probabilities, shows by how much; after the first step it must be small.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mmeb_harness.adapter.remote import MayPassError, RefusedError, StatusError
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.vllm.client import Client, Order, Question, Reader, Served
from mmemb_r1_model.vllm.request import Json, UnfitError, ids_of
from mmemb_r1_model.vllm.server import ROLLOUTS, Server, check_server

#: A question, and its tokens as our own reader has them, <think> included.
Asked: TypeAlias = tuple[Question, Sequence[int]]

_LOG_PROBS: Json = {"logprobs": True, "top_logprobs": 0}
#: By which what is certain may miss a log-probability of 0.
_CERTAIN_NATS = 0.01
#: Of a first step. bfloat16 against float32 costs a few hundredths.
_MOST_LOG_RATIO = 0.1


@dataclass(frozen=True)
class Written:
    """What was sampled behind <think>, up to an end; log-probabilities of each token."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


def check_rollout_server(server: Server, lora_rank: int) -> None:
    """Refuse settings that can't be, and a student without adapters.

    Raises:
        OptionError: names the setting and the way out.
    """
    check_server(server, ROLLOUTS)
    if not lora_rank:
        raise OptionError(
            f"{ROLLOUTS.owner} gets new weights as adapters, and student.lora_rank is 0: set it (and lora_alpha), or "
            f"leave {ROLLOUTS.owner} out: the student then writes its rollouts itself"
        )
    if not server.model:
        raise OptionError(f"{ROLLOUTS.names['model']} must be a name for the adapters, not {server.model!r}")


def check_log_ratio(log_ratio: float) -> None:
    """See after a first step, taken with equal weights, that both sides computed the same.

    Raises:
        ModelError: they didn't.
    """
    if not log_ratio <= _MOST_LOG_RATIO:
        raise ModelError(
            f"{ROLLOUTS.owner}: with equal weights the server's log-probabilities differ from the student's by "
            f"{log_ratio:.2f} on average (log_ratio; up to {_MOST_LOG_RATIO:g} could be rounding). Let it serve the "
            "student's checkpoint, not quantised, with --logprobs-mode processed_logprobs"
        )


class RolloutWriter:
    """Asks a server that has our adapters; see the module for what is exact."""

    def __init__(self, server: Server, reader: Reader, adapter: Path, lora_rank: int) -> None:
        """Set up; nothing is asked yet.

        Args:
            server: checked.
            adapter: folder of the adapters, under the same path for the server.

        Raises:
            OptionError: the key isn't there.
        """
        self._name, self._reader, self._adapter, self._lora_rank = server.model or "", reader, adapter, lora_rank
        self._client = Client(server, ROLLOUTS, reader, _written, Served(self._name), self._restore)

    def load(self) -> str:
        """Put new adapters in place of the old; a hash of them.

        Raises:
            ModelError: the server can't load them.
        """
        with self._loading():
            # Not `load_inplace`: vLLM then reads the files anew at every pass (its pull request 41482).
            self._unload()
            self._load()
        return hashlib.sha256((self._adapter / "adapter_model.safetensors").read_bytes()).hexdigest()

    def check(self, text: Asked, clip: Asked) -> None:
        """See, before anything is sampled, which log-probabilities there are, and how clips have to be asked for.

        Raises:
            ModelError: they are those of before the request's settings; or see `Client.learn_clips`.
        """
        unfit = {*self._reader.banned, *self._reader.ends}
        certain = next(token for token in reversed(range(self._reader.tokenizer.size)) if token not in unfit)
        ((answer,),) = self._client.answers([Order(*text, 1, more=_LOG_PROBS, certain=certain)])
        if answer.ids[:1] != (certain,):
            raise ModelError(f"{ROLLOUTS.owner}: the server doesn't heed `logit_bias`; it must be vLLM")
        if answer.log_probs[0] < -_CERTAIN_NATS:
            raise ModelError(
                f"{ROLLOUTS.owner}: what a request makes certain has a log-probability of {answer.log_probs[0]:.2f} "
                "instead of 0: the server gives those of before a request's settings. Start vLLM with --logprobs-mode "
                "processed_logprobs"
            )
        self._client.learn_clips(Order(*clip, 1, more=_LOG_PROBS))

    def _load(self) -> None:
        self._client.post("load_lora_adapter", {"lora_name": self._name, "lora_path": str(self._adapter)})

    def _unload(self) -> None:
        try:
            self._client.post("unload_lora_adapter", {"lora_name": self._name})
        except StatusError as error:
            if error.status != 404:  # nothing to unload
                raise

    def _restore(self) -> None:
        """Load what a server had before it was started again, unless another process was quicker."""
        with self._loading():
            try:
                if not self._client.has(self._name):
                    self._load()
            except RefusedError as error:
                if "already been loaded" not in str(error):
                    raise

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        try:
            yield
        except (StatusError, RefusedError, MayPassError) as error:
            advice = (
                f"Give another {ROLLOUTS.names['model']}"
                if "served base model" in str(error)
                else f"Start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and --max-lora-rank of at "
                f"least {self._lora_rank}, where it sees that folder ({ROLLOUTS.names['adapter_folder']})"
            )
            raise ModelError(
                f"{ROLLOUTS.owner} can't load the adapters in {self._adapter}: {str(error).rstrip('.')}. {advice}, "
                "and repeat the command"
            ) from error

    def write(
        self, prompts: Sequence[Asked], count: int, max_new_tokens: int, seed: int, salt: str
    ) -> list[list[Written]]:
        """Two requests a prompt: the greedy rollout, and the others as choices of one.

        Args:
            salt: another one for other adapters.

        Raises:
            ModelError: the server is gone, doesn't know the adapters, refuses a request, or answers without what
                stage 2 needs.
        """
        # A server numbers the seeds of a request's choices upwards.
        seeds = itertools.count((seed * 65_537) % 2**48, count)
        # vLLM files what it has computed of a prompt under the adapters' name, not their weights (issue 42125).
        more: Json = {**_LOG_PROBS, "cache_salt": salt}
        orders = [
            Order(question, prompt, max_new_tokens, num_choices, temperature, more | {"seed": own_seed})
            for (question, prompt), own_seed in zip(prompts, seeds, strict=False)
            for num_choices, temperature in ((1, 0.0), (count - 1, 1.0))
        ]
        answers = self._client.answers(orders)
        return [[*greedy, *others] for greedy, others in zip(answers[::2], answers[1::2], strict=True)]


def _written(choice: Json) -> Written:
    ids, reported = ids_of(choice), choice.get("logprobs")
    content = reported.get("content") if isinstance(reported, dict) else None
    tokens = content if isinstance(content, list) else []
    values = [token.get("logprob") for token in tokens if isinstance(token, dict)]
    log_probs = tuple(float(value) for value in values if isinstance(value, int | float) and math.isfinite(value))
    if len(log_probs) != len(ids):
        raise UnfitError(
            f"gives {len(log_probs)} log-probabilities for {len(ids)} tokens: it must heed `logprobs: true`, as vLLM "
            "does, started with --logprobs-mode processed_logprobs"
        )
    return Written(ids, log_probs)
