"""Who writes rationales, and how they are asked; what may change between two runs into one folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmeb_harness.adapter.addresses import check_address
from mmemb_r1_model.data.pairs import SIDES, Side
from mmemb_r1_model.disk.errors import OptionError

Kind = Literal["instruct", "thinking", "api"]
Backend = Literal["local", "endpoint", "recorded"]

#: Our own words; the paper's are not public.
SYSTEM_PROMPT = (
    "You help a search engine understand one input: a text, a picture, a page or some frames of a video, often with "
    "the task it is meant for. Think it through: say what it shows or asks, read what is written in it, work out what "
    "has to be worked out, step by step, and end with the few words that say best what it is or what answers it. "
    "Use this input alone. You haven't seen what it will be compared with: never speak of candidates, options, "
    "matches or results. Leave out what can't be made out; don't guess. Be brief: at most six sentences, no headings, "
    "no lists."
)
REQUEST = "Write down your reasoning about this input."

#: Fields that decide what a worker writes; the others only where, how fast and how patiently.
_CONTENT_FIELDS = ("kind", "backend", "model", "revision", "temperature", "top_p", "max_new_tokens", "seed", "dtype")
#: Settings that all workers' rows share.
_SHARED_FIELDS = ("system_prompt", "request", "min_leak_characters", "drop_leaks")

_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class WorkerConfig:
    """One worker: a model of some character, and how to reach it.

    Attributes:
        name: in the rows; unique.
        kind: the model's character. Of a thinking model the thoughts are the rationale, of the others the answer.
        backend: local: transformers; endpoint: an OpenAI-compatible server; recorded: rationales that exist already.
        model: local: hub id or folder; endpoint: the server's name for it; recorded: data folder with a
            worker_rationales.parquet, "" takes what the pairs themselves carry.
        temperature: 0 is greedy.
        seed: every row's own seed derives from it; a server may ignore seeds.
        base_url: endpoint, up to and with /v1.
        api_key_env: name of the environment variable with the key; the key itself is stored nowhere.
        timeout_seconds: for one attempt, until its answer is there whole.
        max_retries: further attempts where one may help: rate limits, server errors, broken connections.
        max_parallel: requests under way at once.
        requests_per_minute: attempts of all threads together; `None`: no limit.
        batch_size, device, dtype: local.
    """

    name: str = ""
    kind: Kind = "instruct"
    backend: Backend = "local"
    model: str = ""
    revision: str | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    base_url: str = ""
    api_key_env: str | None = None
    timeout_seconds: float = 120.0
    max_retries: int = 5
    max_parallel: int = 8
    requests_per_minute: float | None = None
    batch_size: int = 8
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @property
    def is_carried(self) -> bool:
        """Whether it gives what the pairs themselves carry."""
        return self.backend == "recorded" and not self.model


@dataclass(frozen=True)
class RationaleConfig:
    """Stage 0a.

    Attributes:
        samples: rationales a worker writes of one pair side.
        pairs_per_set: of each data set, the first ones, get rationales; the others train the direct path alone.
            `None`: all.
        sides: which sides of a pair get rationales.
        skip_short_texts: positives that are a text of fewer characters, without media, get none: label-side
            reasoning is the first thing to cut. 0: all get some.
        system_prompt, request: what every worker is told.
        min_leak_characters: shorter texts of the other side are no evidence of a leak.
        drop_leaks: mark rationales that contain the other side's text as unusable (finish "leak").
    """

    workers: tuple[WorkerConfig, ...] = ()
    samples: int = 1
    pairs_per_set: int | None = None
    sides: tuple[Side, ...] = SIDES
    skip_short_texts: int = 0
    system_prompt: str = SYSTEM_PROMPT
    request: str = REQUEST
    min_leak_characters: int = 12
    drop_leaks: bool = False


def check_config(config: RationaleConfig) -> None:
    """Refuse values that make no sense.

    Raises:
        OptionError: names the key, its value and what it must be.
    """
    _must(bool(config.workers), "workers", config.workers, "a list of at least one worker")
    _must(config.samples >= 1, "samples", config.samples, "at least 1")
    few = config.pairs_per_set is not None and config.pairs_per_set < 1
    _must(not few, "pairs_per_set", config.pairs_per_set, "at least 1, or left out for all")
    distinct = 0 < len(set(config.sides)) == len(config.sides)
    _must(distinct, "sides", config.sides, f"one or both of {', '.join(SIDES)}, each once")
    _must(config.skip_short_texts >= 0, "skip_short_texts", config.skip_short_texts, "at least 0")
    _must(config.min_leak_characters >= 1, "min_leak_characters", config.min_leak_characters, "at least 1")
    _must(bool(config.request.strip()), "request", config.request, "a text")
    names = [worker.name for worker in config.workers]
    for worker in config.workers:
        _must(names.count(worker.name) == 1, "workers.name", worker.name, "unique")
        _check_worker(worker, config.samples)


def _check_worker(worker: WorkerConfig, samples: int) -> None:
    _must(bool(_NAME.fullmatch(worker.name)), "workers.name", worker.name, "letters, digits and . _ + -")
    key = f"worker {worker.name!r}: "
    _must(worker.temperature >= 0, key + "temperature", worker.temperature, "at least 0")
    _must(0 < worker.top_p <= 1, key + "top_p", worker.top_p, "above 0 and at most 1")
    for name in ("max_new_tokens", "max_parallel", "batch_size"):
        _must(getattr(worker, name) >= 1, key + name, getattr(worker, name), "at least 1")
    _must(worker.max_retries >= 0, key + "max_retries", worker.max_retries, "at least 0")
    _must(worker.timeout_seconds > 0, key + "timeout_seconds", worker.timeout_seconds, "above 0")
    rate = worker.requests_per_minute
    _must(rate is None or rate > 0, key + "requests_per_minute", rate, "above 0, or left out")
    if worker.backend != "recorded":
        _must(bool(worker.model), key + "model", worker.model, "the name of a model")
        if worker.temperature == 0 and samples > 1:
            raise OptionError(
                f"{key}temperature 0 would write the same text {samples} times; raise it, or set samples to 1"
            )
    if worker.backend == "endpoint":
        check_address(worker.base_url, worker.api_key_env, key)


def _must(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise OptionError(f"{key} must be {wanted}, not {value!r}")


def differences(old: Mapping[str, Any], new: RationaleConfig, rows_of: Mapping[str, int]) -> list[str]:
    """What of `new` doesn't fit rows written under `old`, in words; empty if they can lie in one file.

    More workers, samples, pairs or sides are no difference, nor is another server, pace or batch size.

    Args:
        old: a config.json.
        rows_of: worker → number of rows there are of it. One without rows may change.
    """
    if not any(rows_of.values()):
        return []
    now = dataclasses.asdict(new)
    changes = [_change(name, old.get(name), now[name]) for name in _SHARED_FIELDS if old.get(name) != now[name]]
    if new.samples < old.get("samples", 0):
        changes.append(_change("samples", old["samples"], new.samples))
    if gone := [side for side in old.get("sides", ()) if side not in new.sides]:
        changes.append(f"sides: {gone[0]!r} is gone")
    if new.skip_short_texts > old.get("skip_short_texts", new.skip_short_texts):
        changes.append(_change("skip_short_texts", old["skip_short_texts"], new.skip_short_texts))
    before = {str(worker["name"]): worker for worker in old.get("workers", ())}
    after = {str(worker["name"]): worker for worker in now["workers"]}
    for name in sorted(name for name, count in rows_of.items() if count):
        if name not in after:
            changes.append(f"worker {name!r} is gone")
        else:
            was, is_now = before.get(name, {}), after[name]
            changed = [key for key in _CONTENT_FIELDS if was.get(key) != is_now[key]]
            changes += [_change(f"worker {name!r}: {key}", was.get(key), is_now[key]) for key in changed]
    return changes


def _change(key: str, before: object, after: object) -> str:
    return f"{key} was {_shown(before)}, is {_shown(after)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…{text[-1]}"
