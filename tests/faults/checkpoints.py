"""Checkpoint folders that are cut, mixed up, or lack what they are used for."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.fault import Command, Fault, World

TINY = Path(__file__).parents[2] / "mmemb_r1_model" / "tiny"
WEIGHTS, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 8000000\n"
RUN = ("mmeb-eval", "run", "--limit", "2", "--tasks", "DocVQA", "--reasoning", "never", "--model", "mmemb_r1:ck")
CHECK = ("mmeb-eval", "check", "mmemb_r1:ck")
ADD = ("mmemb-r1", "add-tokens", "ck", "new")
#: What happens to a copy of the tiny checkpoint.
Damage = Callable[[Path], object]


def _fault(
    name: str,
    damage: Damage,
    *says: str,
    command: Command = RUN,
    code: int = 2,
    slow: bool = False,
    holds: Callable[[World], None] | None = None,
) -> Fault:
    def make(world: World) -> list[Command]:
        shutil.copytree(TINY, world.folder / "ck", copy_function=shutil.copyfile)
        damage(world.folder / "ck")
        return [command]

    return Fault("checkpoints", name, make, says, code, slow=slow, holds=holds)


def _model(name: str) -> Command:
    return (*RUN[:6], "--model", f"{name}:ck")


def _writes(file: str, content: bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content)


def _cut(file: str, missing: int) -> Damage:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-missing])


def _removes(*files: str) -> Damage:
    return lambda folder: [(folder / file).unlink() for file in files]


def _all(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def _folder_instead_of(file: str) -> Damage:
    return _all(_removes(file), lambda folder: (folder / file).mkdir())


def _sets(file: str, **values: Any) -> Damage:
    """Values of a JSON file; `a__b` stands within `a`, `None` removes it."""

    def damage(folder: Path) -> None:
        whole = json.loads((folder / file).read_text())
        for name, value in values.items():
            *outer, last = name.split("__")
            inner = whole
            for key in outer:
                inner = inner[key]
            inner[last] = value
        (folder / file).write_text(json.dumps(whole))

    return damage


#: A tensor by name: its dtype and shape, and its bytes.
Tensors = dict[str, tuple[dict[str, Any], bytes]]


def _read(path: Path) -> Tensors:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    places = {name: [start + place for place in tensor.pop("data_offsets")] for name, tensor in header.items()}
    return {name: (tensor, content[slice(*places[name])]) for name, tensor in header.items()}


def _write(path: Path, tensors: Tensors) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (tensor, values) in tensors.items():
        header[name] = {**tensor, "data_offsets": [end, end + len(values)]}
        end += len(values)
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(values for _, values in tensors.values()))


def _tensors(change: Callable[[Tensors], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = _read(folder / WEIGHTS)
        change(tensors)
        _write(folder / WEIGHTS, tensors)

    return damage


def _sharded(folder: Path) -> None:
    tensors = sorted(_read(folder / WEIGHTS).items())
    (folder / WEIGHTS).unlink()
    shards = {"model-00001-of-00002.safetensors": tensors[::2], "model-00002-of-00002.safetensors": tensors[1::2]}
    for shard, some in shards.items():
        _write(folder / shard, dict(some))
    places = {name: shard for shard, some in shards.items() for name, _ in some}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))


def _adapter(base: str | None) -> Damage:
    """A folder of LoRA weights alone."""

    def damage(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        _write(folder / "adapter_model.safetensors", {"a": ({"dtype": "F32", "shape": [1]}, bytes(4))})

    return damage


def _nothing_ran(world: World) -> None:
    assert not (world.folder / "executed").exists(), "a pickle's code was run"


def _nothing_written(world: World) -> None:
    assert not (world.folder / "new").exists(), "a checkpoint was written"


def _with_nan(tensors: Tensors) -> None:
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    tensor, values = tensors[name]
    tensors[name] = (tensor, values[:-2] + b"\xff\xff")


def _reshaped(tensors: Tensors) -> None:
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    tensor, values = tensors[name]
    tensors[name] = (tensor | {"shape": tensor["shape"][::-1]}, values)


UNTIED = _sets(CONFIG, tie_word_embeddings=False, text_config__tie_word_embeddings=False)
LAYER = "model.language_model.layers.2.mlp.up_proj.weight"


def _whole(of: str) -> tuple[str, ...]:
    return (rf"{of} is no whole \.safetensors file: get it again",)


def _quick() -> Sequence[Fault]:
    """Refused before anything large is imported."""
    cut = _cut(WEIGHTS, 1000)
    yield from (
        _fault(f"weights cut by 1,000 bytes, {command[1]}", cut, *_whole(r"model\.safetensors"), command=command)
        for command in (RUN, CHECK, ADD)
    )
    yield _fault("weights cut, under a baseline", cut, *_whole(r"model\.safetensors"), command=_model("gme"))
    st = _model("st")
    yield _fault("weights cut, sentence-transformers", cut, *_whole(r"model\.safetensors"), command=st, slow=True)
    yield _fault(
        "weights longer than their tensors", _writes(WEIGHTS, b"\x02" + bytes(7) + b"{}more"), *_whole(WEIGHTS)
    )
    yield _fault("a header longer than its file", _writes(WEIGHTS, b"\xff" * 8 + b"{}"), *_whole(WEIGHTS))
    yield _fault("no byte of weights", _writes(WEIGHTS, b""), *_whole(WEIGHTS))
    yield _fault("a folder in place of weights", _folder_instead_of(WEIGHTS), r"model\.safetensors can't be read")
    yield _fault(
        "a pointer in place of weights", _writes(WEIGHTS, POINTER), r"model\.safetensors is no whole", "git lfs pull"
    )
    yield _fault("a pointer in place of a tokenizer", _writes(TOKENIZER, POINTER), r"tokenizer\.json", "git lfs pull")
    shard = "model-00002-of-00002.safetensors"
    yield _fault("a cut shard", _all(_sharded, _cut(shard, 9)), *_whole(shard))
    yield _fault("a shard that isn't there", _all(_sharded, _removes(shard)), rf"index\.json names 1 files.*{shard}")
    yield _fault("an index that is a list", _all(_sharded, _writes(INDEX, b"[]")), r"index\.json is no JSON object")
    yield _fault("an index without places", _all(_sharded, _writes(INDEX, b"{}")), r"index\.json: weight_map is None")
    yield _fault("tokenizer.json cut", _cut(TOKENIZER, 100), r"ck/tokenizer\.json can't be read: .*get it again")
    yield _fault("tokenizer.json cut, check", _cut(TOKENIZER, 9), r"tokenizer\.json can't be read", command=CHECK)
    yield _fault("tokenizer.json cut, add-tokens", _cut(TOKENIZER, 9), r"tokenizer\.json can't be read", command=ADD)
    yield _fault("tokenizer.json without a model", _writes(TOKENIZER, b"{}"), r"no usable tokenizer\.json")
    yield _fault(
        "an empty preprocessor_config.json",
        _writes("preprocessor_config.json", b""),
        r"preprocessor_config\.json can't",
    )
    yield _fault(
        *("a mean that is no colour", _sets("preprocessor_config.json", image_mean=[0.5, None, 0.5])),
        r"preprocessor_config\.json: image_mean is .* not 3 numbers",
    )
    yield _fault("config.json as a list", _writes(CONFIG, b"[]"), r"config\.json is no JSON object")
    yield _fault("config.json in latin-1", _writes(CONFIG, b'{"a": "\xe4"}'), r"config\.json can't be read")
    yield _fault("config.json nested too deeply", _writes(CONFIG, b"[" * 200_000), r"config\.json can't be read")
    yield _fault("config.json is a folder", _folder_instead_of(CONFIG), r"config\.json can't be read: Is a directory")
    yield _fault(
        "a size that is a text",
        _sets(CONFIG, text_config__hidden_size="96"),
        r"text_config\.hidden_size is '96', not a",
    )
    yield _fault(
        "no vision_config", _sets(CONFIG, vision_config=None), r"config\.json: vision_config\.patch_size is None"
    )
    yield _fault(
        "generation_config.json cut", _cut("generation_config.json", 9), r"generation_config\.json can't be read"
    )
    yield _fault(
        "LoRA weights without their base", _adapter("some/base"), r"no config\.json: it holds LoRA.*some/base.*merge"
    )
    yield _fault("LoRA weights, add-tokens", _adapter("some/base"), r"holds LoRA.*some/base.*merge", command=ADD)
    yield _fault(
        "an adapter whose base is gone", _adapter("./gone"), r"base of .*ck: .*\./gone", command=_model("vlm2vec")
    )
    yield _fault(
        "an adapter that names no base", _adapter(None), r"names no base model; name it", command=_model("vlm2vec")
    )
    yield _fault("a pickle that runs code", _pickled, "other formats can run code", holds=_nothing_ran)
    yield _fault(
        *("the weights' own name instead of their folder", lambda folder: None),
        "is a file; name its folder",
        command=(*RUN[:-1], f"mmemb_r1:./ck/{WEIGHTS}"),
    )


def _loaded() -> Sequence[Fault]:
    """Found when the weights are loaded."""
    adaptive = (*RUN[:6], "--reasoning", "adaptive", *RUN[-2:])
    head = r"lacks weights, 1 in all: lm_head\.weight; .*--reasoning never"
    yield _fault("untied, without a head, adaptive", UNTIED, head, command=adaptive)
    yield _fault("untied, without a head, direct", UNTIED, "DocVQA", code=0)
    yield _fault("untied, without a head, add-tokens", UNTIED, head, command=ADD, holds=_nothing_written)
    yield _fault("untied, without a head, check", UNTIED, head, command=CHECK, code=1)
    yield _fault(
        "a layer without weights", _tensors(lambda some: some.pop(LAYER)), "lacks weights, 1 in all: .*layers.2"
    )
    yield _fault(
        "a layer too many in config.json", _sets(CONFIG, text_config__num_hidden_layers=5), "lacks weights, .*layers.4"
    )
    yield _fault(
        *("a layer too few in config.json", _sets(CONFIG, text_config__num_hidden_layers=3)),
        r"ck: \d+ weights of its files have no place in its Qwen3VL.*layers\.3",
        code=0,
    )
    yield _fault(
        "weights of another shape",
        _tensors(_reshaped),
        r"another shape than config\.json says, e\.g\. .*layers.1.*instead of",
    )
    yield _fault(
        "NaN among the weights", _tensors(_with_nan), r"NaN or infinity in 1 weights: .*layers\.1\.mlp\.up_proj"
    )


FAULTS = (*_quick(), *(Fault(**{**vars(fault), "slow": True}) for fault in _loaded()))
