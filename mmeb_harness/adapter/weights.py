"""Weights into memory, whole or not at all, and what a user is told where they can't be loaded, or don't fit.

No parameter that is used starts from chance: what the files lack is refused, or becomes NaN where its adapter says that
nothing reads it, so that whoever reads it after all gets no number. The libraries that load weights are handed in: the
harness doesn't import them.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.texts import vocabulary_of
from mmeb_harness.core.collector import collector_paused
from mmeb_harness.core.errors import HarnessError, ModelError, is_out_of_memory, leading, one_line

#: A language head: for an adapter that reads states alone, or loads the model without one.
HEAD = ("lm_head.weight", "*.lm_head.weight")
#: What old releases of transformers wrote beside the weights; it is computed now.
_COMPUTED = ("*position_ids", "*rotary_emb.inv_freq", "*masked_bias")
_LORA = "adapter_config.json"
_GB = 1e9


def load_pretrained(
    transformers: ModuleType,
    architecture: str,
    checkpoint: CheckpointFolder,
    device: str,
    dtype: str,
    attention: str = "auto",
    *,
    unused: Sequence[str] = (),
    **options: Any,
) -> Any:
    """A model on `device`, ready for inference; every weight that is used must be in the files.

    Args:
        transformers: the module.
        architecture: its class there, e.g. "AutoModel" for the bare model, without a language head.
        unused: patterns of weights that nothing reads, e.g. `HEAD`: where the files lack them they are NaN.
        options: for `from_pretrained`.

    Raises:
        ModelError: weights are missing (transformers would go on with random numbers in their place), don't fit the
            configuration or the tokenizer, or are no numbers; or the memory doesn't suffice.
    """
    if attention != "auto":
        options["attn_implementation"] = attention
    with loading_weights(transformers, checkpoint, device, dtype, unused=unused):
        model = getattr(transformers, architecture).from_pretrained(
            checkpoint.path, dtype=dtype, local_files_only=True, **options
        )
        return model.to(device).eval()


@contextlib.contextmanager
def loading_weights(
    transformers: ModuleType,
    checkpoint: CheckpointFolder,
    device: str,
    dtype: str,
    library: str = "",
    unused: Sequence[str] = (),
) -> Iterator[None]:
    """Whatever loads a model of transformers in here is held to `load_pretrained`'s rule, its errors are one line.

    Weights of the files that the model has no place for are said in one line, instead of transformers' own report.

    Args:
        library: who loads it, where the user should know.

    Raises:
        ModelError: as `load_pretrained`; where the memory doesn't suffice also what would need less.
    """
    parameters = checkpoint.parameters
    if (checkpoint.path / _LORA).is_file() and not transformers.utils.is_peft_available():
        raise ModelError(f"{checkpoint.path / _LORA}: without peft its LoRA weights are left out; pip install peft")
    logs = transformers.utils.logging
    logs.disable_progress_bar()
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # its report on weights is read here
    try:
        with _reported_loads(transformers) as loads:
            yield
        for model, report in loads:
            _judge(checkpoint, model, report, unused)
            _check_vocabulary(checkpoint, model, all_tokens=not library)
    except HarnessError:
        raise
    except Exception as error:  # half a dozen libraries read files in here, and raise what they please
        if is_out_of_memory(error):
            raise ModelError(
                f"{checkpoint.name} doesn't fit on {device}: {_memory_advice(parameters, dtype, device)}"
            ) from error
        raise ModelError(f"{library} can't load {checkpoint.path}: {explained(error)}".lstrip()) from error
    finally:
        logs.set_verbosity(verbosity)


@contextlib.contextmanager
def reading_files(checkpoint: CheckpointFolder, what: str) -> Iterator[None]:
    """Errors of a library that reads a checkpoint's small files, as one line.

    Args:
        what: that it wants of them, e.g. "usable tokenizer"; with the name of the file, where it is one.

    Raises:
        ModelError: they can't be read, or hold something else.
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:  # tokenizers raises bare ones, others whatever a wrong value leads to
        raise ModelError(f"can't load {checkpoint.path}, it has no {what}: {explained(error)}") from error


def explained(error: Exception) -> str:
    """What a library's error says, behind its class where it says too little without."""
    if type(error).__name__ == "UnpicklingError":  # whose own way out is to run what the file says
        return "a file of it can run code, and isn't read; save the model as .safetensors where it comes from"
    if "Meta tensors" in str(error):
        return "weights that config.json ties (tie_word_embeddings) have several shapes in its files; get both anew"
    spoken = isinstance(error, OSError | ValueError | ImportError | RuntimeError) and len(str(error).split()) > 2
    return one_line(error) if spoken else f"{type(error).__name__}: {one_line(error)}"


@contextlib.contextmanager
def _reported_loads(transformers: ModuleType) -> Iterator[list[tuple[Any, Mapping[str, Any]]]]:
    """Every model that is loaded meanwhile, by whatever library, with transformers' report on its weights."""
    with collector_paused():  # here most of transformers is imported
        every = transformers.PreTrainedModel
    original = every.__dict__["from_pretrained"]
    loads: list[tuple[Any, Mapping[str, Any]]] = []

    def from_pretrained(cls: Any, /, *places: Any, output_loading_info: bool = False, **options: Any) -> Any:
        # Of another shape: reported with its name, not raised without.
        options["ignore_mismatched_sizes"] = True
        model, report = original.__func__(cls, *places, output_loading_info=True, **options)
        loads.append((model, report))
        return (model, report) if output_loading_info else model

    every.from_pretrained = classmethod(from_pretrained)
    try:
        yield loads
    finally:
        every.from_pretrained = original


def _judge(checkpoint: CheckpointFolder, model: Any, report: Mapping[str, Any], unused: Sequence[str]) -> None:
    """Refuse what is used and missing, say what has no place, and look whether all numbers are some."""
    shapes = {name: (stored, wanted) for name, stored, wanted in report["mismatched_keys"]}
    missing = {*report["missing_keys"], *shapes}
    if odd := _without(shapes, unused):
        stored, wanted = (tuple(shape) for shape in shapes[odd[0]])
        raise ModelError(
            f"can't load {checkpoint.path}: {len(odd)} of its weights have another shape than config.json says, e.g. "
            f"{odd[0]} {stored} instead of {wanted}; get both from one place"
        )
    if used := _without(missing, unused):
        raise ModelError(
            f"checkpoint {checkpoint.path} lacks weights, {len(used)} in all: {leading(used, 3)}; {_way_out(used)}"
        )
    _check_ties(checkpoint, model, unused)
    for name in missing:
        model.get_parameter_or_buffer(name).data.fill_(float("nan"))
    if homeless := _without(report["unexpected_keys"], (*unused, *_COMPUTED)):
        logging.getLogger(__name__).warning(
            f"{checkpoint.name}: {len(homeless)} weights of its files have no place in its {type(model).__name__}: "
            f"{leading(homeless, 3)}"
        )
    if (codes := checkpoint.codes) and getattr(model.config, "quantization_config", None) is None:
        raise ModelError(
            f"checkpoint {checkpoint.path} has {len(codes)} quantised weights, and config.json doesn't say how "
            f"(quantization_config): {leading(codes, 3)}; get both from one place"
        )
    parameters = {name: value for name, value in model.named_parameters() if name not in missing}
    ranges = {name: _range(value) for name, value in parameters.items()}
    if broken := [name for name, (low, high) in ranges.items() if not math.isfinite(low + high)]:
        raise ModelError(
            f"checkpoint {checkpoint.path} has NaN or infinity in {len(broken)} weights: {leading(broken, 3)}; get it "
            "again, or from before it was trained to that"
        )
    if empty := [name for name, value in parameters.items() if value.dim() > 1 and ranges[name] == (0, 0)]:
        logging.getLogger(__name__).warning(
            f"{checkpoint.name}: {len(empty)} of its weights are nothing but zeros, as in a file that was not "
            f"fetched to its end: {leading(empty, 3)}"
        )


def _check_ties(checkpoint: CheckpointFolder, model: Any, unused: Sequence[str]) -> None:
    """Refuse weights that are to be one, and of which the files have two that differ.

    transformers 5 keeps both then, releases before it have copied one over the other, and so do servers: which of them
    a published score is of can't be known.
    """
    ties = model.get_expanded_tied_weights_keys(all_submodels=True)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in _without((name for name in ties if name in parameters), unused):
        other = ties[name]
        if other in parameters and parameters[other] is not parameters[name]:
            raise ModelError(
                f"checkpoint {checkpoint.path} holds another {name} than {other}, and config.json says that they are "
                "one (tie_word_embeddings): set it to false there if the model was trained with both, or leave "
                f"{name} out of the files"
            )


def _check_vocabulary(checkpoint: CheckpointFolder, model: Any, *, all_tokens: bool) -> None:
    """Refuse a tokenizer with tokens that the embedding table has no row for: an index out of range, one day.

    Args:
        all_tokens: also those that no text of the data becomes, which prompts of ours may have.
    """
    file = "tokenizer.json"
    reads_texts = getattr(model, "text_model", model)  # CLIP itself doesn't say which of its tables is that of tokens
    table: Any = getattr(reads_texts.get_input_embeddings(), "weight", None)
    if table is None or table.dim() != 2 or not (checkpoint.path / file).is_file():
        return
    described = checkpoint.json(file)
    vocabulary = dict(vocabulary_of(described.get("model") or {}))
    if all_tokens:
        vocabulary |= {token["content"]: token["id"] for token in described.get("added_tokens") or ()}
    token, last = max(vocabulary.items(), key=lambda entry: entry[1], default=("", -1))
    if last >= len(table):
        raise ModelError(
            f"checkpoint {checkpoint.path} has no weights for token {token!r}: it is number {last} of {file}, and the "
            f"embedding table has {len(table)} rows; get both from one place"
        )


def _without(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns))


def _way_out(names: Sequence[str]) -> str:
    if names == ["lm_head.weight"]:
        return (
            "it writes words, and config.json says that it isn't the embedding table again (tie_word_embeddings). "
            "Without it a checkpoint only embeds directly (--reasoning never): get it whole, or correct config.json if "
            "you know that it was trained tied"
        )
    return "get it again, or convert it to the layout of this version of transformers"


def _range(value: Any) -> tuple[float, float]:
    """Least and greatest value of a parameter, NaN if it holds one; in one pass over it, without a copy."""
    if not value.is_floating_point() or value.is_meta or not value.numel() or value.element_size() < 2:
        return 0.5, 0.5
    low, high = value.detach().aminmax()
    return float(low), float(high)


def _memory_advice(parameters: int | None, dtype: str, device: str) -> str:
    """What the weights alone need, where their number is known, and what would need less."""
    if parameters is None:
        return "--dtype bfloat16 needs half of it" if dtype == "float32" else _elsewhere(device)
    half = f"{2 * parameters / _GB:.1f} GB"
    if dtype == "float32":
        return f"its weights need {4 * parameters / _GB:.1f} GB as float32; --dtype bfloat16 needs {half}"
    return f"its weights need {half} as {dtype}; {_elsewhere(device)}"


def _elsewhere(device: str) -> str:
    return "use a smaller checkpoint" + ("" if device == "cpu" else " or --device cpu")
