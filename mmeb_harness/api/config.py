"""A run's configuration, from a YAML file and from options; options win."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb_harness.core.errors import NO_UTF8, OptionError
from mmeb_harness.core.files import is_plain
from mmeb_harness.core.items import PageFiles, Quantization
from mmeb_harness.core.reading import build_config, read_yaml
from mmeb_harness.core.trackers import TrackerName, check_trackers
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS


@dataclass(frozen=True)
class RunConfig:
    """Everything that `mmeb-eval run` can be told. A key of the configuration file is a field's name.

    Attributes:
        data: a data folder; `None` runs on the mini suite.
        edition: of the benchmark; `None`: the default one.
        frames: frames of a video to show; `None`: as many as the model asks for.
        audio_seconds: of a sound, from its start; `None`: as many as the model asks for.
        pages: how pages of documents are written; `None`: as the model asks for, which is as they are stored.
        dim: how many of the vectors' first dimensions to compare; `None`: all.
        quantize: the vectors compared.
        vectors: where vectors are kept; `None`: `.vectors` beside `output`.
        keep_states: keep of each query the state that the model's gate reads.
        workers: processes that read media ahead; `None`: as many as suit the machine, 0: none.
        shard: "I/N": encode that share only.
        ray: address of a Ray cluster, "local" for one of this machine's own; `None`: without Ray.
        ray_workers: how many actors; `None`: as the cluster has room.
        track: trackers that the run's summary is given to.
        reasoning: when queries write a rationale first, handed to the model; several: a run for each. None leaves its
            default.
        candidate_reasoning, device, dtype, trust_remote_code: handed to the model; `None` leaves its default.
    """

    model: str | None = None
    model_args: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    data: str | None = None
    edition: str | None = None
    frames: int | None = None
    audio_seconds: float | None = None
    pages: PageFiles | None = None
    limit: int | None = None
    dim: int | None = None
    quantize: Quantization = "none"
    reasoning: tuple[str, ...] = ()
    candidate_reasoning: str | None = None
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    device: str | None = None
    dtype: str | None = None
    trust_remote_code: bool | None = None
    output: str | None = None
    vectors: str | None = None
    keep_states: bool = False
    workers: int | None = None
    shard: str | None = None
    ray: str | None = None
    ray_workers: int | None = None
    seed: int = 0
    fresh: bool = False
    track: tuple[TrackerName, ...] = ()

    @property
    def mode(self) -> str | None:
        """The first of `reasoning`, which is the only one of a single run; `None`: the model's default."""
        return next(iter(self.reasoning), None)

    def of_each_mode(self) -> list[RunConfig]:
        """A configuration for each mode; of several, results in folders named by it, below `output`."""
        if len(self.reasoning) < 2:
            return [self]
        outputs = {mode: self.output and str(Path(self.output) / mode) for mode in self.reasoning}
        return [dataclasses.replace(self, reasoning=(mode,), output=output) for mode, output in outputs.items()]


#: Smallest values of numbers.
_LEAST = {"limit": 1, "frames": 1, "dim": 1, "batch_tokens": 1, "workers": 0, "ray_workers": 1, "seed": 0}
#: Of a sound: models hear none that is shorter.
LEAST_SECONDS = 0.025


def read_config(path: Path) -> RunConfig:
    """Read a YAML mapping of `RunConfig` fields. Lists may be written "a, b"; model arguments mean what they mean after
    `--model-arg`.

    Raises:
        OptionError: not readable, not YAML, not a mapping, or a value of the wrong type.
        UnknownNameError: a key that is no field.
    """
    known = {field.name for field in dataclasses.fields(RunConfig)}
    values = {
        key: value
        for key, value in read_yaml(path, texts=("model_args",)).items()
        if value is not None or key not in known
    }
    for key in values.keys() & {"tasks", "groups", "modalities", "track", "reasoning"}:
        names = values[key] if isinstance(values[key], list) else str(values[key]).split(",")
        values[key] = [str(name).strip() for name in names]
    return build_config(RunConfig, values, str(path))


def make_config(from_file: RunConfig, from_options: Mapping[str, Any]) -> RunConfig:
    """Merge: an option that was given wins over the file, which wins over the default.

    Args:
        from_options: `None` and empty values mean "not given".
    """
    given = {key: value for key, value in from_options.items() if value not in (None, (), {})}
    for key, value in given.items():
        if not is_plain(value):  # bytes of a name in another encoding, as Python stands for them
            raise OptionError(f"--{key.replace('_', '-')}: {value!r} {NO_UTF8}")
    config = dataclasses.replace(from_file, **given)
    config = dataclasses.replace(config, reasoning=tuple(dict.fromkeys(config.reasoning)))
    for name, least in _LEAST.items():
        if (value := getattr(config, name)) is not None and value < least:
            raise OptionError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    if config.audio_seconds is not None and not LEAST_SECONDS <= config.audio_seconds < float("inf"):
        raise OptionError(f"--audio-seconds must be at least {LEAST_SECONDS}, not {config.audio_seconds}")
    if config.ray_workers is not None and not config.ray:
        raise OptionError("--ray-workers says how many actors --ray has; without --ray there are none")
    check_trackers(config.track)
    return config
