"""Rollouts by a vLLM server that is given the student's adapters every few steps.

Ids and log-probabilities are the server's own, never those of text that is tokenised again. What is exact, and what
isn't:

- The log-probabilities are of the policy that sampled, however many steps old its weights are: the clipped ratio of
  stage 2 corrects for the age. That needs `--logprobs-mode processed_logprobs`. By default vLLM reports them as they
  were before its request-level settings, and each is too low by what the unwritable tokens would have had.
- Unwritable tokens get a bias of -100, the least there is, where the student has minus infinity: e^-100 of what they
  had is left. One that is sampled nevertheless ends the rationale there, by rule, as malformed.
- The server lacks the trained row of <emb>, since vLLM can't load it beside adapters (its issue 36501). A rationale
  isn't fed that row, but where it is also <emb>'s output row, the server weighs <emb> by stage 1's: the policy that
  samples is slightly another one. The ratio corrects for that as it does for age.
- The server computes in its own precision and resizes pictures by its own code: equal weights give nearly equal
  numbers. `log_ratio` in the log, the mean distance of both sides' log-probabilities, shows by how much.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.adapter.remote import MayPassError, RefusedError, StatusError
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.vllm.client import Client, Order, Question, Reader, Served
from mmemb_r1_model.vllm.request import Json, UnfitError, ids_of
from mmemb_r1_model.vllm.server import ROLLOUTS, Server, check_server


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


class RolloutWriter:
    """Asks a server that has our adapters; see the module for what is exact."""

    def __init__(self, server: Server, reader: Reader) -> None:
        """Set up; nothing is asked yet.

        Args:
            server: checked.

        Raises:
            OptionError: the key isn't there.
        """
        self._name = server.model or ""
        self._client = Client(server, ROLLOUTS, reader, _written, Served(self._name))

    def load(self, adapter: Path, lora_rank: int) -> str:
        """Put new adapters in place of the old; a hash of them.

        Raises:
            ModelError: the server can't load them.
        """
        try:
            # Not `load_inplace`: vLLM then reads the files anew at every pass (its pull request 41482).
            self._unload()
            self._client.post("load_lora_adapter", {"lora_name": self._name, "lora_path": str(adapter)})
        except (StatusError, RefusedError, MayPassError) as error:
            raise ModelError(
                f"{ROLLOUTS.owner} can't load the adapters in {adapter}: {error}. Start vLLM with "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and --max-lora-rank of at least {lora_rank}, "
                f"where it sees that folder ({ROLLOUTS.names['adapter_folder']}), and repeat the command"
            ) from error
        return hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()

    def _unload(self) -> None:
        try:
            self._client.post("unload_lora_adapter", {"lora_name": self._name})
        except StatusError as error:
            if error.status != 404:  # nothing to unload
                raise

    def write(
        self, prompts: Sequence[tuple[Question, Sequence[int]]], count: int, max_new_tokens: int, seed: int, salt: str
    ) -> list[list[Written]]:
        """Two requests a prompt: the greedy rollout, and the others as choices of one.

        Args:
            prompts: questions, and their tokens as our own reader has them, <think> included.
            salt: another one for other adapters.

        Raises:
            ModelError: the server is gone, doesn't know the adapters, refuses a request, or answers without what
                stage 2 needs.
        """
        # A server numbers the seeds of a request's choices upwards.
        seeds = itertools.count((seed * 65_537) % 2**48, count)
        # vLLM files what it has computed of a prompt under the adapters' name, not their weights (issue 42125).
        more: Json = {"logprobs": True, "top_logprobs": 0, "cache_salt": salt}
        orders = [
            Order(question, prompt, max_new_tokens, num_choices, temperature, more | {"seed": own_seed})
            for (question, prompt), own_seed in zip(prompts, seeds, strict=False)
            for num_choices, temperature in ((1, 0.0), (count - 1, 1.0))
        ]
        try:
            answers = self._client.answers(orders)
        except StatusError as error:
            again = ". If the server was started again in between, repeat the command: it gets the adapters anew"
            raise ModelError(f"{error}{again if error.status == 404 else ''}") from error
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
