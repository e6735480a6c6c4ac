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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

from mmeb_harness.adapter.addresses import check_address
from mmeb_harness.adapter.remote import Endpoint, MayPassError, RefusedError, Remote, StatusError, json_object
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.training.batches import Input
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import TrainingError
from mmemb_r1_model.training.rollouts import Marks, Rollout, finished
from mmemb_r1_model.training.student import Student, StudentConfig
from mmemb_r1_model.vllm.request import (
    CHAT_PATH,
    CLOSING_TOKENS,
    Json,
    UnfitError,
    chat,
    choices_of,
    ids_of,
    other_prompt,
    sampling,
)

_OWNER = "adapt.server"


@dataclass(frozen=True)
class RolloutServer:
    """A vLLM server that serves the student's checkpoint.

    Attributes:
        base_url: up to and with /v1.
        model: the name under which the adapters are loaded; another one than the checkpoint's.
        api_key_env: name of the environment variable with the key; the key itself is stored nowhere.
        timeout_seconds: for one prompt's rollouts.
        max_retries: further attempts where one may help.
        max_parallel: prompts under way at once, of each process.
        adapter_folder: in which adapter/ is written, under the same path for the server; "": the run's folder.
        reload_every: steps after which the server gets new weights.
    """

    base_url: str = ""
    model: str = "student"
    api_key_env: str | None = None
    timeout_seconds: float = 600.0
    max_retries: int = 5
    max_parallel: int = 32
    adapter_folder: str = ""
    reload_every: int = 1


def check_server(server: RolloutServer, student: StudentConfig) -> None:
    """Refuse settings that can't be.

    Raises:
        OptionError: names the setting and the way out.
    """
    check_address(server.base_url, server.api_key_env, f"{_OWNER}.")
    if not student.lora_rank:
        raise OptionError(
            f"{_OWNER} gets new weights as adapters, and student.lora_rank is 0: set it (and lora_alpha), or leave "
            f"{_OWNER} out: the student then writes its rollouts itself"
        )
    if not server.model:
        raise OptionError(f"{_OWNER}.model must be a name for the adapters, not {server.model!r}")
    for name, least in (("timeout_seconds", 0.001), ("max_retries", 0), ("max_parallel", 1), ("reload_every", 1)):
        if getattr(server, name) < least:
            raise OptionError(f"{_OWNER}.{name} must be at least {least:g}, not {getattr(server, name)}")


class ServerSampler:
    """Rollouts over HTTP; see the module for what is exact."""

    def __init__(self, student: Student, server: RolloutServer, folder: Path, world: World) -> None:
        """Set up; nothing is asked yet.

        Args:
            folder: of the run.

        Raises:
            OptionError: the key isn't there.
        """
        self._student, self._server, self._world = student, server, world
        self._marks = Marks.of(student)
        self._adapter = Path(server.adapter_folder or folder).expanduser().resolve() / "adapter"
        self._loaded: int | None = None
        self._salt = ""
        self._endpoint = Endpoint(
            Remote(
                owner=_OWNER,
                base_url=server.base_url,
                model=server.model,
                api_key_env=server.api_key_env,
                timeout_seconds=server.timeout_seconds,
                max_retries=server.max_retries,
                max_parallel=server.max_parallel,
            )
        )

    def refresh(self, step: int) -> None:
        """Give the server the adapters as they are, if its own are `reload_every` steps old or it has none of us.

        Raises:
            ModelError: the server can't load them.
        """
        if self._loaded is not None and step - self._loaded < self._server.reload_every:
            return
        self._student.save_adapter(self._adapter)
        salt = self._load() if self._world.is_first else ""
        # Also holds the others back until the new weights are there.
        self._salt = self._world.gather_objects(salt)[0]
        self._loaded = step

    def _load(self) -> str:
        """Put the new adapters in place of the old; a hash of them."""
        name = {"lora_name": self._server.model}
        try:
            with self._endpoint.client() as client:
                # Not `load_inplace`: vLLM then reads the files anew at every pass (its pull request 41482).
                self._unload(client, name)
                self._post(client, "load_lora_adapter", {**name, "lora_path": str(self._adapter)})
        except (StatusError, RefusedError, MayPassError) as error:
            raise TrainingError(
                f"{_OWNER} can't load the adapters in {self._adapter}: {error}. Start vLLM with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and --max-lora-rank of at least "
                f"{self._student.config.lora_rank}, where it sees that folder ({_OWNER}.adapter_folder), and repeat "
                "the command"
            ) from error
        return hashlib.sha256((self._adapter / "adapter_model.safetensors").read_bytes()).hexdigest()

    def _unload(self, client: httpx.Client, name: dict[str, str]) -> None:
        try:
            self._post(client, "unload_lora_adapter", name)
        except StatusError as error:
            if error.status != 404:  # nothing to unload
                raise

    def _post(self, client: httpx.Client, path: str, body: dict[str, str]) -> None:
        self._endpoint.post(client, path, body, lambda content, seconds: None)

    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        """Two requests an input: the greedy rollout, and the others as choices of one.

        Raises:
            TrainingError: the server is gone, doesn't know the adapters, refuses a request, or answers without what
                stage 2 needs.
            ModelError: nobody answers at the address.
            DataError: a picture that can't be read.
        """
        # A server numbers the seeds of a request's choices upwards.
        seeds = itertools.count((seed * 65_537) % 2**48, count)
        asks = [
            _Ask(one, greedy, 1 if greedy else count - 1, max_new_tokens, own)
            for one, own in zip(inputs, seeds, strict=False)
            for greedy in (True, False)
        ]
        answers = list(self._endpoint.each(self._rollouts, asks))
        return [[*first, *others] for first, others in zip(answers[::2], answers[1::2], strict=True)]

    def _rollouts(self, client: httpx.Client, ask: _Ask) -> list[Rollout]:
        body = self._body(ask)
        try:
            reply = self._endpoint.post(client, CHAT_PATH, body, lambda content, _: json_object(content))
        except MayPassError as error:
            raise TrainingError(
                f"{_OWNER}: {error}. Start the server again and repeat the command: it goes on from the last "
                f"checkpoint, also with another {_OWNER}.base_url"
            ) from error
        except RefusedError as error:
            needed = len(ask.input.prompt) + 1 + body["max_tokens"]
            raise TrainingError(
                f"{_OWNER} refuses a rollout of item {ask.input.item.id!r}: {error}. It needs --max-model-len of at "
                f"least {needed}; if that isn't it, the server is none that understands these settings of vLLM"
            ) from error
        except StatusError as error:
            again = ". If the server was started again in between, repeat the command: it gets the adapters anew"
            raise TrainingError(f"{error}{again if error.status == 404 else ''}") from error
        self._check_prompt(ask.input, reply)
        try:
            choices = [_choice(one) for one in choices_of(reply, ask.count, ask.input.item.id)]
        except UnfitError as error:
            raise TrainingError(f"{_OWNER} {error}") from error
        return [self._rollout(choice, ask) for choice in choices]

    def _body(self, ask: _Ask) -> Json:
        marks, temperature = self._marks, 0.0 if ask.greedy else 1.0
        return {
            "model": self._server.model,
            "n": ask.count,
            "seed": ask.seed,
            "logprobs": True,
            "top_logprobs": 0,
            # vLLM files what it has computed of a prompt under the adapters' name, not their weights (issue 42125).
            "cache_salt": self._salt,
            **sampling(temperature, ask.max_new_tokens, marks.banned, (marks.emb, marks.turn_end)),
            **chat(ask.input.item, self._student.settings),
        }

    def _check_prompt(self, one: Input, reply: Json) -> None:
        """The server must have seen what the student sees."""
        ours = [*one.prompt.ids.tolist(), self._student.think]
        found = other_prompt(reply, ours, self._student.tokenizer.decode)
        if found is None:
            return
        raise TrainingError(
            f"{_OWNER} saw another prompt of item {one.item.id!r} than the student: {found}. It must serve the "
            f"student's checkpoint ({self._student.config.checkpoint}) with its own chat template, one that continues "
            "an assistant's turn as it stands, and resize pictures by min_pixels and max_pixels of mmemb_r1.json. A "
            "text that begins with a line break or spells a special token also does it: leave that pair out"
        )

    def _rollout(self, choice: _Choice, ask: _Ask) -> Rollout:
        """A choice up to its end; what a server writes beyond is not wanted."""
        ids = [self._student.think]
        for token in choice.ids[: ask.max_new_tokens + CLOSING_TOKENS]:
            ids.append(token)
            if self._marks.end(ids):
                break
        return finished(ids, choice.log_probs[: len(ids) - 1], self._marks, ask.max_new_tokens)


@dataclass(frozen=True)
class _Ask:
    """One prompt's rollouts: the greedy one, or `count` at temperature 1."""

    input: Input
    greedy: bool
    count: int
    max_new_tokens: int
    seed: int


@dataclass(frozen=True)
class _Choice:
    """What was sampled behind <think>."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]


def _choice(choice: Json) -> _Choice:
    ids, log_probs = ids_of(choice), _log_probs(choice)
    if len(log_probs) != len(ids):
        raise UnfitError(
            f"gives {len(log_probs)} log-probabilities for {len(ids)} tokens: it must heed `logprobs: true`, as vLLM "
            "does, started with --logprobs-mode processed_logprobs"
        )
    return _Choice(ids, tuple(log_probs))


def _log_probs(choice: Json) -> list[float]:
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, dict) else None
    values = [one.get("logprob") for one in content or ()]
    return [float(value) for value in values if value is not None]
