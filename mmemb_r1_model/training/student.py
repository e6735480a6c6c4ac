"""The model while it is trained: a checkpoint folder opened, run on packed prompts, written back.

Legend of shapes: B prompts, R branches (continuations), L columns, D hidden size, T scored tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmemb_r1_model.decoding import quicken
from mmemb_r1_model.disk.config import Below1, Least0, Least1
from mmemb_r1_model.disk.errors import ModelError, OptionError, say
from mmemb_r1_model.disk.files import replacing_folder
from mmemb_r1_model.model.chat_template import write_chat_template
from mmemb_r1_model.model.checkpoint import Checkpoint, load_weights, open_checkpoint
from mmemb_r1_model.model.gate import gate_words
from mmemb_r1_model.model.items import MAX_TEXT_TOKENS, ItemReader
from mmemb_r1_model.model.prompt import END_OF_TEXT, TURN_END, Prompt, PromptTokenizer, continuation
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Settings, Short, write_settings
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.losses import token_log_probs
from mmemb_r1_model.training.packing import Packed, pack, run_packed
from mmemb_r1_model.training.rows import TableRow, as_the_table_has_it, exact_logits, learn_row
from mmemb_r1_model.training.sharding import gather_on_first, is_sharded, shard, whole, with_weights, without_weights

#: Where the transformers model lies in a `PackedModel` with adapters.
_ADAPTED = "backbone.base_model.model."
#: Files of a checkpoint folder that training doesn't touch.
_PASSED_ON = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "preprocessor_config.json", "video_preprocessor_config.json", "generation_config.json"),
)


@dataclass(frozen=True)
class StudentConfig:
    """What is trained, of which checkpoint, in which precision.

    Attributes:
        checkpoint: folder or hub id of a Qwen3-VL with MMEmb-R1's tokens; tiny: the embedded one.
        lora_rank: 0 trains all weights.
        lora_targets: names of the linear layers of the language model that get an adapter.
        train_vision: whether the vision tower learns. The merger, which maps its output to the language
            model, counts as a part of it.
        dtype: of frozen weights; what is trained stays in float32. bfloat16 computes under autocast.
        shard: split weights, gradients and optimiser state over the processes (FSDP2); an error with one process.
            They are kept, gathered and added up in their own type, as without it. Under bfloat16 autocast's copy of
            each weight lives from the forward to the backward pass, unless there is gradient_checkpointing.
        max_text_tokens: of the prompt of an item without media; a longer text loses its end, as in an evaluation.
    """

    checkpoint: str = ""
    revision: str | None = None
    lora_rank: Least0 = 0
    lora_alpha: Least0 = 0
    lora_dropout: Below1 = 0.0
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    train_vision: bool = False
    gradient_checkpointing: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    shard: bool = False
    max_text_tokens: Least1 = MAX_TEXT_TOKENS


@dataclass(frozen=True)
class Encoded:
    """What a packed batch gave.

    Attributes:
        vectors_RD: unit vectors at the last token of every branch.
        gate_BA: log p(<think> | x), log p(<emb> | x), of a graded gate log p(</think> | x), over the whole vocabulary.
        log_probs: of the tokens of each scored branch after its first one.
    """

    vectors_RD: Tensor
    gate_BA: Tensor
    log_probs: tuple[Tensor, ...]


class PackedModel(nn.Module):
    """A Qwen3-VL on packed prompts. All calls go through `forward`, as wrappers that split a model need it.

    Attributes:
        gate_tokens: of the gate's actions.
        banned: (V,) true for tokens that no rationale can contain.
    """

    banned: Tensor

    def __init__(self, backbone: Any, gate_tokens: Sequence[int], banned_V: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.gate_tokens = tuple(gate_tokens)
        self.register_buffer("banned", banned_V, persistent=False)

    def forward(self, packed: Packed, scored: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(vectors_RD, gate_BA, log-probabilities (T,) of the scored branches' tokens, one after the other)."""
        hidden_BLD = run_packed(self.transformers_model, packed)
        if is_sharded(self) and not packed.batch.pixels:
            hidden_BLD = hidden_BLD + self._unused_vision()
        branches = packed.branches
        rows = torch.tensor([branch.row for branch in branches], device=hidden_BLD.device)
        ends = torch.tensor([branch.end - 1 for branch in branches], device=hidden_BLD.device)
        vectors = functional.normalize(hidden_BLD[rows, ends].float(), dim=-1)
        head = self.transformers_model.lm_head
        answered = hidden_BLD[:, packed.prompt_length - 1]
        # As the engine has it: the difference of rounded logits would be one of steps of up to 1/8.
        gate = exact_logits(head, answered, self.gate_tokens)
        gate = gate - torch.logsumexp(head(answered).float(), dim=-1, keepdim=True)
        return vectors, gate, self._log_probs(packed, hidden_BLD, scored, head)

    @property
    def transformers_model(self) -> Any:
        """The transformers model, under its adapters if it has some."""
        return self.backbone.base_model.model if self.has_adapters else self.backbone

    @property
    def has_adapters(self) -> bool:
        """Whether adapters learn, and not the weights themselves."""
        return hasattr(self.backbone, "peft_config")

    def _unused_vision(self) -> Tensor | float:
        """0, with a gradient of 0 for the vision tower: where another process has pictures, all must have gradients."""
        parameters = self.transformers_model.model.visual.parameters()
        return sum((parameter.sum() * 0.0 for parameter in parameters if parameter.requires_grad), start=0.0)

    def _log_probs(self, packed: Packed, hidden_BLD: Tensor, scored: Sequence[int], head: nn.Module) -> Tensor:
        chosen = [packed.branches[index] for index in scored]
        if not chosen:
            return hidden_BLD.new_zeros(0, dtype=torch.float32)
        device = hidden_BLD.device
        lengths = [branch.end - branch.start - 1 for branch in chosen]
        rows = torch.from_numpy(np.repeat([branch.row for branch in chosen], lengths)).to(device)
        places = np.concatenate([np.arange(branch.start, branch.end - 1) for branch in chosen])
        columns = torch.from_numpy(places).to(device)
        targets = packed.batch.ids_BL[rows, columns + 1]
        return token_log_probs(hidden_BLD[rows, columns], head, targets, self.banned)


@dataclass(frozen=True)
class Learnt:
    """What one weight has learnt beside the model: scale * up @ down.

    Attributes:
        name: of the weight in the transformers model without adapters.
        token: the only row that has learnt; `None`: all have.
    """

    name: str
    up: Tensor
    down: Tensor
    scale: float
    token: int | None = None

    def update(self) -> Tensor:
        """What has to be added, in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    def part_of(self, model: Any) -> Tensor:
        """The same weight, or row of it, in a model without adapters."""
        weight: Tensor = model.get_parameter(self.name).data
        return weight if self.token is None else weight[self.token, None]


class Student:
    """A checkpoint that is trained."""

    def __init__(self, checkpoint: Checkpoint, model: Any, config: StudentConfig, world: World) -> None:
        self.checkpoint, self.config, self.world, self.device = checkpoint, config, world, world.device
        self.tokenizer: PromptTokenizer = checkpoint.tokenizer
        self.settings: Settings = checkpoint.settings
        self.reader = ItemReader(checkpoint, checkpoint.settings, min(config.max_text_tokens, checkpoint.positions))
        self.think, self.end_think, self.emb = (self.tokenizer.id_of(token) for token in (THINK, END_THINK, EMB))
        self.pad = self.tokenizer.id_of(END_OF_TEXT)
        head = model.get_output_embeddings().weight
        banned_V = torch.zeros(head.shape[0], dtype=torch.bool, device=head.device)
        ends = (self.end_think, self.emb, self.tokenizer.id_of(TURN_END))
        banned_V[self.tokenizer.unwritable(ends, len(banned_V))] = True
        self.module = PackedModel(model, (), banned_V)
        self._shell: PackedModel | None = None  # the module without weights, once they are split
        self.set_short(self.settings.short)

    @property
    def backbone(self) -> Any:
        """The transformers model, wrapped in adapters if there are any."""
        return self.module.backbone

    def trained(self) -> list[nn.Parameter]:
        """The parameters that a step changes."""
        return [parameter for _, parameter in self.trained_by_name()]

    def trained_by_name(self) -> list[tuple[str, nn.Parameter]]:
        """The same with their names in `module`."""
        return [(name, parameter) for name, parameter in self.module.named_parameters() if parameter.requires_grad]

    def set_short(self, short: Short | None) -> None:
        """Let the gate be a graded one, or a binary one; it is saved with the weights."""
        self.settings = dataclasses.replace(self.settings, short=short)
        tokens = tuple(self.tokenizer.id_of(word) for word in gate_words(short))
        for module in filter(None, (self.module, self._shell)):
            module.gate_tokens = tokens

    def completion(self, rationale: str) -> list[int]:
        """Token ids of `<think> r </think> <emb>`."""
        return [self.think, *self.tokenizer.plain(" " + rationale.strip()), self.end_think, self.emb]

    def rationale_tokens(self, rationale: str) -> int:
        """How many tokens of a rationale the student would have to write, without those around it."""
        return len(self.completion(rationale)) - 3

    def pack(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Sequence[int]]]) -> Packed:
        """Prompts with the token ids of their branches, on the device."""
        branches = [[continuation(ids) for ids in own] for own in completions]
        return pack(prompts, branches, self.pad, self.device)

    def encode(self, packed: Packed, scored: Sequence[int] = (), module: PackedModel | None = None) -> Encoded:
        """Run the model, or another `module` of its kind.

        Args:
            scored: positions in `packed.branches` whose tokens' probabilities are wanted.
        """
        module = module or self.module
        with self.precision(module):
            vectors, gate, flat = module(packed, tuple(scored))
        lengths = [packed.branches[index].end - packed.branches[index].start - 1 for index in scored]
        return Encoded(vectors, gate, tuple(torch.split(flat, lengths)) if lengths else ())

    def precision(self, module: PackedModel) -> contextlib.AbstractContextManager[None]:
        """Where `module`, of the student's kind, computes in the type that the configuration says."""
        enabled = self.config.dtype == "bfloat16"
        # Of a split model autocast's cache would keep a copy of every layer that is gathered until the pass ends.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=not is_sharded(module))

    @contextlib.contextmanager
    def as_it_started(self) -> Iterator[None]:
        """For a while what adapters and the row of <emb> have learnt doesn't count; only with adapters."""
        with self.backbone.disable_adapter(), as_the_table_has_it(self.module):
            yield

    def shard(self) -> None:
        """Split the weights over the processes; see `sharding.shard`."""
        self._shell = without_weights(self.module)
        shard(self.module, self.world)

    def whole_module(self) -> PackedModel:
        """The module for what can't go through its `forward`: if it is split, a copy of it with all weights.

        Every process must call it, but may then run the copy as often as it likes.
        """
        if self._shell is None:
            return self.module
        weights = {name: whole(parameter.detach()) for name, parameter in self.module.named_parameters()}
        # Of what could learn autocast keeps its copy: one a pass would cost more than the pass.
        return with_weights(self._shell, weights).to(self.device).requires_grad_()

    def frozen_copy(self) -> PackedModel:
        """The module as it is now, split or not, which learns no more. Every process must call it."""
        copied = copy.deepcopy(self.module) if self._shell is None else self.whole_module()
        copied.requires_grad_(False)
        if self._shell is not None:
            shard(copied, self.world)
        return copied

    def learnt(self) -> Iterator[Learnt]:
        """What adapters and the row of <emb> have learnt, weight by weight, in main memory.

        Every process must go through all; only the first is given something.
        """
        from peft.tuners.lora import LoraLayer

        rows: set[int] = set()  # two tables may share one
        for name, layer in self.module.named_modules():
            weight = f"{name.removeprefix(_ADAPTED)}.weight"
            if isinstance(layer, LoraLayer):
                named = [(part, self.module.get_parameter(f"{name}.lora_{part}.default.weight")) for part in "AB"]
                if parts := gather_on_first(named, self.world):
                    yield Learnt(weight, parts["B"], parts["A"], layer.scaling["default"])
            elif isinstance(layer, TableRow) and id(layer.row) not in rows:
                rows.add(id(layer.row))
                if parts := gather_on_first([("table", layer.weight), ("row", layer.row)], self.world):
                    # A row is a product, too: of 1 and itself.
                    difference = parts["row"] - parts["table"][None, layer.token].float()
                    yield Learnt(weight, torch.ones(1, 1), difference, 1.0, layer.token)

    def save(self, folder: Path) -> None:
        """Write a whole checkpoint folder, in float32, that the embedder reads.

        What adapters have learnt is added to the weights of the checkpoint that the student was opened from, as its
        files have them: those in memory may be rounded to bfloat16, and a sum that is rounded to it again is, in most
        entries, what it was before.

        Every process calls it, the first writes.
        """
        if self.module.has_adapters:
            learnt = list(self.learnt())
            if self.world.is_first:
                model = load_weights(self.checkpoint, torch.device("cpu"), torch.float32, "sdpa")
                for own in learnt:
                    own.part_of(model).add_(own.update())
                save_checkpoint(model, self.checkpoint.folder, self.settings, folder)
            return
        weights = {} if self._shell is None else gather_on_first(self.module.named_parameters(), self.world)
        if not self.world.is_first:
            return
        module = self.module if self._shell is None else with_weights(self._shell, weights)
        save_checkpoint(module.backbone, self.checkpoint.folder, self.settings, folder)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapters alone, in peft's form and without the row of <emb>, which few servers can load.

        Every process calls it, the first writes; whole or not at all.

        Raises:
            OptionError: the student has no adapters.
        """
        if not self.module.has_adapters:
            raise OptionError("student.lora_rank is 0: there is no adapter to write; set it (and lora_alpha)")
        named = ((name, weight) for name, weight in self.module.named_parameters() if ".lora_" in name)
        weights = gather_on_first(named, self.world)
        if not self.world.is_first:
            return
        from safetensors.torch import save_file

        config = copy.copy(self.backbone.peft_config["default"])
        config.inference_mode = True
        # peft's names in files: below the wrapper, without the adapter's own name.
        renamed = {name.removeprefix("backbone.").replace(".default.", "."): weight for name, weight in weights.items()}
        with replacing_folder(folder) as temporary:
            config.save_pretrained(str(temporary))
            save_file(
                {name: weight.contiguous() for name, weight in renamed.items()}, temporary / "adapter_model.safetensors"
            )


def open_student(config: StudentConfig, world: World) -> Student:
    """Load a checkpoint and mark what learns.

    Args:
        world: `join_world(config.device, config.shard)`, or one of the caller's.

    Raises:
        ModelError: the checkpoint can't be used, or is no Qwen3-VL with the tokens of MMEmb-R1.
        OptionError: a LoRA setting that makes no sense.
    """
    if not config.checkpoint:
        raise OptionError("student.checkpoint is empty: name a checkpoint folder or hub id")
    checkpoint = open_checkpoint(config.checkpoint, config.revision)
    frozen = getattr(torch, config.dtype) if config.lora_rank else torch.float32
    # What is split goes to the device layer by layer, a part of each.
    place = torch.device("cpu") if world.sharded else world.device
    model = load_weights(checkpoint, place, frozen, "sdpa")
    student = prepared(checkpoint, model, config, world)
    if world.sharded:
        student.shard()
    return student


def prepared(checkpoint: Checkpoint, model: Any, config: StudentConfig, world: World) -> Student:
    """A student with a checkpoint's model, of which is marked what learns; its weights are whole.

    Raises:
        ModelError: peft is not installed.
        OptionError: a LoRA setting that makes no sense.
    """
    model.config.use_cache = False
    quicken(model, world.device)
    if config.lora_rank:
        model = _with_adapters(model, config, checkpoint.tokenizer.id_of(EMB))
    else:
        for parameter in model.model.visual.parameters():
            parameter.requires_grad_(config.train_vision)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.lora_rank:
            model.enable_input_require_grads()
    student = Student(checkpoint, model, config, world)
    student.module.train()
    return student


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module without dropout for a while, then as it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def save_checkpoint(model: Any, source: Path, settings: Settings, folder: Path) -> None:
    """Weights, and from `source` what training doesn't touch. Written beside `folder` and renamed: whole or not."""
    with replacing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        for path in source.iterdir():
            if path.name in _PASSED_ON and not (temporary / path.name).exists():
                shutil.copy(path, temporary / path.name)
        # A calibration is of the weights that it was fitted to.
        write_settings(temporary, dataclasses.replace(settings, calibration=None))
        replaced = write_chat_template(source, temporary)
    if replaced is not None:
        say(f"{folder / 'chat_template.jinja'} is ours, not that of {source}: {replaced}")


def _with_adapters(model: Any, config: StudentConfig, emb: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError("LoRA needs peft: pip install 'mmeb-harness[train]'; or set student.lora_rank: 0") from error
    if config.lora_alpha <= 0:
        raise OptionError(f"student.lora_alpha must be above 0 with lora_rank {config.lora_rank}")
    # Only the language model's layers; the vision tower has layers of the same names in other releases.
    targets = rf".*language_model.*\.({'|'.join(config.lora_targets)})"
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    # Adapters begin at random: the same in every process, whatever each has drawn before.
    torch.manual_seed(0)
    adapted = get_peft_model(model, lora)
    # The new token's row must learn, or the readout starts where no input ever was.
    learn_row(model, emb)
    return adapted
