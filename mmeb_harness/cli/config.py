"""A run's configuration, from a YAML file and from options; options win."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mmeb_harness.core.errors import OptionError, UnknownNameError, one_line
from mmeb_harness.core.items import Quantization
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS


@dataclass(frozen=True)
class RunConfig:
    """Everything that `mmeb-eval run` can be told. A key of the configuration file is a field's name.

    Attributes:
        data: a data folder; `None` runs on the mini suite.
        edition: of the benchmark; `None`: the default one.
        frames: frames of a video to show; `None`: as many as the model asks for.
        dim: how many of the vectors' first dimensions to compare; `None`: all.
        quantize: the vectors compared.
        vectors: where vectors are kept; `None`: `.vectors` beside `output`.
        workers: processes that read media ahead; `None`: as many as suit the machine, 0: none.
        shard: "I/N": encode that share only.
        ray: address of a Ray cluster, "local" for one of this machine's own; `None`: without Ray.
        ray_workers: how many actors; `None`: as the cluster has room.
        reasoning, candidate_reasoning, device, dtype, trust_remote_code: handed to the model; `None` leaves
            its default.
    """

    model: str | None = None
    model_args: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    data: str | None = None
    edition: str | None = None
    frames: int | None = None
    limit: int | None = None
    dim: int | None = None
    quantize: Quantization = "none"
    reasoning: str | None = None
    candidate_reasoning: str | None = None
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    device: str | None = None
    dtype: str | None = None
    trust_remote_code: bool | None = None
    output: str | None = None
    vectors: str | None = None
    workers: int | None = None
    shard: str | None = None
    ray: str | None = None
    ray_workers: int | None = None
    seed: int = 0
    fresh: bool = False


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of `RunConfig` fields.

    Raises:
        OptionError: not readable, not YAML, not a mapping, or a value of the wrong type.
        UnknownNameError: a key that is no field.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"can't read configuration {path}: {one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise OptionError(f"configuration {path} must be a mapping of option names to values")
    hints = get_type_hints(RunConfig)
    for key in loaded:
        if key not in hints:
            raise UnknownNameError(f"option in {path}", str(key), hints)
    return {key: _checked(path, key, value) for key, value in loaded.items() if value is not None}


def make_config(from_file: Mapping[str, Any], from_options: Mapping[str, Any]) -> RunConfig:
    """Merge: an option that was given wins over the file, which wins over the default.

    Args:
        from_options: `None` and empty values mean "not given".
    """
    given = {key: value for key, value in from_options.items() if value not in (None, (), {})}
    config = dataclasses.replace(RunConfig(), **{**from_file, **given})
    if config.limit is not None and config.limit < 1:
        raise OptionError(f"--limit must be at least 1, not {config.limit}")
    if config.frames is not None and config.frames < 1:
        raise OptionError(f"--frames must be at least 1, not {config.frames}")
    if config.dim is not None and config.dim < 1:
        raise OptionError(f"--dim must be at least 1, not {config.dim}")
    if config.quantize not in get_args(Quantization):
        raise OptionError(f"--quantize must be one of {', '.join(get_args(Quantization))}, not {config.quantize!r}")
    if config.batch_tokens < 1:
        raise OptionError(f"--batch-tokens must be at least 1, not {config.batch_tokens}")
    if config.workers is not None and config.workers < 0:
        raise OptionError(f"--workers must be at least 0, not {config.workers}")
    if config.ray_workers is not None and config.ray_workers < 1:
        raise OptionError(f"--ray-workers must be at least 1, not {config.ray_workers}")
    if config.ray_workers is not None and not config.ray:
        raise OptionError("--ray-workers says how many actors --ray has; without --ray there are none")
    return config


def _checked(path: Path, key: str, value: Any) -> Any:
    if key == "model_args":
        if not isinstance(value, dict):
            raise OptionError(f"{path}: model_args must be a mapping, not {value!r}")
        return {str(name): _as_text(one) for name, one in value.items()}
    if key in ("tasks", "groups", "modalities"):
        values = value if isinstance(value, list) else str(value).split(",")
        return tuple(str(one).strip() for one in values)
    expected: type = {
        "limit": int,
        "frames": int,
        "dim": int,
        "batch_tokens": int,
        "workers": int,
        "ray_workers": int,
        "seed": int,
        "fresh": bool,
        "trust_remote_code": bool,
    }.get(key, str)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise OptionError(f"{path}: {key} must be {expected.__name__}, not {value!r}")
    return value


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
