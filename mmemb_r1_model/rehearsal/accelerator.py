"""A GPU that isn't there: its tensors have shape, type and place, and no memory; the host's are real.

What would go wrong on a GPU goes wrong here: a host's tensor beside a device's, a shape that depends on what was
computed. What would be slow is recorded: every place where the host waits for the device, or the device for the host.
Whole numbers that the host sent are known on the device, too (grids, lengths, masks); what is computed from weights is
unknown, and reads as 0.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.rehearsal.memory import Ledger

#: Not "cuda", on which a build of torch without it can neither differentiate nor even take a slice.
DEVICE = "fakegpu"
#: read: the host waits for a number. upload: it waits until the device has taken one. shape: it waits for a size.
Wait = Literal["read", "upload", "shape"]

#: Numbers of a tensor that are still looked after: shapes follow from rows of a batch, not from squares of them.
_MOST_KNOWN = 2**20

_aten = torch.ops.aten
_SIZED_BY_VALUES = (
    _aten.nonzero.default,
    _aten.repeat_interleave.Tensor,
    _aten.masked_select.default,
    _aten.bincount.default,
    _aten.unique_consecutive.default,
)
_PUTS = (_aten.index_put.default, _aten.index_put_.default, _aten._unsafe_index_put.default)
#: Where something on the host can meet something on the device.
_ON_THE_WAY = (_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor, *_PUTS)
_LIBRARY = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class Place:
    """A place in the code, where it waited for the device.

    Attributes:
        where: "module:function" that asked torch.
        line: of it.
    """

    where: str
    line: int
    wait: Wait


class Accelerator(TorchDispatchMode):
    """The device, and what was seen of it; see `there`.

    Attributes:
        waits: every place that waited, in order; see `places`.
        recording: while true, a wait is an error, as it is while a CUDA graph is recorded.
    """

    def __init__(self, memory: int = 80 * 10**9) -> None:
        """Set up.

        Args:
            memory: bytes that it says it has.

        Raises:
            OptionError: this release of torch can't pretend.
        """
        super().__init__()
        _register()
        self.device, self.memory = torch.device(DEVICE, 0), memory
        self.waits: list[Place] = []
        self.recording = False
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._known = WeakIdKeyDictionary()  # whole numbers and truth values on the device → the same on the host

    @contextlib.contextmanager
    def there(self) -> Iterator[Ledger]:
        """While it lasts, tensors on the device take no memory, and are in the ledger.

        Yields:
            The ledger of what they would take.
        """
        ledger = Ledger(self.device)
        # Torch remembers which functions `with torch.device` is about. A stand-in must not be among them: a checkpoint
        # loaded afterwards would have no positions.
        with torch.device("meta"):
            torch.tensor([])
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by torch, of a copy
            warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
            stack.enter_context(patch.object(torch.nn.functional, "scaled_dot_product_attention", _attention))
            stack.enter_context(patch.object(torch, "clear_autocast_cache", _casts.clear))
            stack.enter_context(patch.object(Tensor, "record_stream", lambda tensor, stream: None))
            whole = lambda tensor: self._downloaded(tensor, None).tolist()  # noqa: E731  # torch would read one by one
            stack.enter_context(patch.object(FakeTensor, "tolist", whole))
            # Parameters without memory have weak references from the start, for which torch won't move them.
            stack.enter_context(patch.object(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda tensor: [])))
            stack.enter_context(patch.object(torch, "tensor", _tensor))
            # It draws nothing; that it is on the host is all the same to it.
            stack.enter_context(patch.object(torch, "Generator", lambda device: _Generator()))
            for name, stand_in in _runtime(self).items():
                stack.enter_context(patch.object(torch.cuda, name, stand_in))
            # The threads of the backward pass count a process's devices only once, before this one may be known.
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            for mode in (self._fake, ledger, self):
                stack.enter_context(mode)
            yield ledger

    def places(self) -> dict[Place, int]:
        """Where it waited, and how often."""
        counted: dict[Place, int] = {}
        for place in self.waits:
            counted[place] = counted.get(place, 0) + 1
        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        target = kwargs.get("device")
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors) and not _is_device(target, DEVICE):
            return _on_host(func, args, kwargs)
        if _has_parts(func):  # in inference mode nobody has taken it apart before
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if func in _ON_THE_WAY:
            if func is _aten._to_copy.default and isinstance(args[0], FakeTensor) and _is_device(target, "cpu"):
                return self._downloaded(args[0], kwargs.get("dtype"))
            if func is _aten.copy_.default and not isinstance(args[0], FakeTensor):
                return _on_host(func, (args[0], self._downloaded(args[1], None)), {})
            if any(tensor.numel() and tensor.dim() and not isinstance(tensor, FakeTensor) for tensor in tensors):
                self._uploaded(func, args, kwargs)
        if func is _aten._local_scalar_dense.default:
            return self._number(args[0])
        if func in _SIZED_BY_VALUES:
            return self._sized(func, args, kwargs)
        if func is _aten.index.Tensor:
            args = (args[0], self._places_of(args[1]))
        elif func in _PUTS and any(map(_is_mask, args[1])) and (args[2].numel() > 1 or len(args[1]) > 1):
            self._wait("shape")  # else torch fills
        result = func(*args, **kwargs)
        self._learn(func, args, kwargs, tensors, list(_tensors(result)))
        return result

    def _number(self, tensor: Tensor) -> Any:
        self._wait("read")
        value = self._known.get(tensor)
        with no_dispatch():
            return torch.zeros((), dtype=tensor.dtype).item() if value is None else value.item()

    def _downloaded(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        self._wait("read")
        value: Tensor | None = self._known.get(tensor)
        with no_dispatch():
            if value is None:
                return torch.zeros(tensor.shape, dtype=dtype or tensor.dtype)
            return value.to(dtype or tensor.dtype, copy=True)

    def _uploaded(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Something lies on the host: all but a copy from pinned memory waits until the device has it."""
        if func is _aten.copy_.default:
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        else:
            waits = func is not _aten._to_copy.default or not kwargs.get("non_blocking")
        if waits:
            self._wait("upload")

    def _places_of(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Masks as the places where they are true, as an index has it."""
        unmasked: list[Tensor | None] = []
        for index in indices:
            if not _is_mask(index):
                unmasked.append(index)
                continue
            places = self._sized(_aten.nonzero.default, (index,), {})
            with self:
                unmasked += places.unbind(1)
        return unmasked

    def _sized(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What has a size that depends on numbers on the device, which have to be known."""
        self._wait("shape")
        device = next(arg.device for arg in args if isinstance(arg, FakeTensor))
        values = [self._value(arg) if isinstance(arg, Tensor) else arg for arg in args]
        if any(value is None for value in values):
            raise RuntimeError(f"{func} has a shape that depends on what was computed on the device")
        return tree_map_only(Tensor, lambda real: self._made(real, device), _on_host(func, values, kwargs))

    def _made(self, real: Tensor, device: torch.device) -> Tensor:
        """What is known, on the device."""
        made = torch.empty(real.shape, dtype=real.dtype, device=device)
        self._known[made] = real
        return made

    def _value(self, tensor: Tensor) -> Tensor | None:
        return self._known.get(tensor) if isinstance(tensor, FakeTensor) else tensor

    def _learn(self, func: Any, args: Any, kwargs: dict[str, Any], given: Sequence[Tensor], made: list[Tensor]) -> None:
        """Whole numbers from whole numbers are known; a result that is unknown leaves what was there."""
        if not made or any(tensor.is_floating_point() or tensor.numel() > _MOST_KNOWN for tensor in made):
            return
        if any(self._value(tensor) is None for tensor in given) or torch.Tag.nondeterministic_seeded in func.tags:
            return
        own, named = tree_map_only(Tensor, self._value, (args, kwargs))
        if "device" in named:
            named = {**named, "device": torch.device("cpu")}
        for tensor, value in zip(made, _tensors(_on_host(func, own, named)), strict=True):
            self._known[tensor] = value

    def _wait(self, wait: Wait) -> None:
        place = _asked_by(wait)
        if self.recording:
            raise RuntimeError(f"{place.where}, line {place.line}: a wait ({wait}) while a graph is recorded")
        self.waits.append(place)


def _on_host(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """As it is, but for pinned memory, which takes a driver."""
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if func is _aten.copy_.default and args[0].dtype == torch.uint8 and args[0].numel() > 2**16:
        return args[0]  # pixels, which nobody looks at
    with no_dispatch():
        return func(*args, **kwargs)


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors among arguments or results; torch's own walk through them takes longer than the rest."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


@functools.cache
def _has_parts(func: Any) -> bool:
    return func.namespace == "aten" and func not in _SIZED_BY_VALUES and func._can_decompose()


def _is_device(device: torch.device | str | None, kind: str) -> bool:
    return device is not None and torch.device(device).type == kind


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _asked_by(wait: Wait) -> Place:
    """The innermost frame that is none of torch's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((_LIBRARY, _HERE, "<")):
        frame = frame.f_back
    if frame is None:
        return Place("torch", 0, wait)
    return Place(f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}", frame.f_lineno, wait)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's attention runs on a GPU since Ampere: flash kernels without a mask, memory-efficient ones with one.

    Which of them it is moves no number here, but what they keep: no scores, and a mask as numbers to be added.
    """
    kind = query.device.type
    if not isinstance(query, FakeTensor):
        return _host_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if attn_mask is None and query.dtype != torch.float32:
        flash = _aten._scaled_dot_product_flash_attention.default
        repeated = query.shape[1] // key.shape[1]
        if repeated > 1 and not enable_gqa:
            raise RuntimeError(f"{query.shape[1]} heads of queries beside {key.shape[1]} of keys, without enable_gqa")
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]
    if enable_gqa:
        raise RuntimeError("no kernel but the one that keeps all scores takes a mask beside enable_gqa")
    if attn_mask is not None:
        attn_mask = _added(attn_mask, query, key)
    efficient = _aten._scaled_dot_product_efficient_attention.default
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    return efficient(query, key, value, attn_mask, learns, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]


_Generator = torch.Generator
_original_tensor = torch.tensor


def _tensor(values: Any, *places: Any, **options: Any) -> Tensor:
    """The same as torch's, which reads a list of numbers on a device past everybody who could see it."""
    if isinstance(values, list) and values and isinstance(values[0], FakeTensor):
        values = [value.item() for value in values]
    return _original_tensor(values, *places, **options)


_host_attention = torch.nn.functional.scaled_dot_product_attention


def _added(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask as the kernel wants it: numbers, in rows of a multiple of 16, for every head."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), -torch.inf)
    width = mask.shape[-1]
    if width % 16:
        mask = torch.nn.functional.pad(mask, (0, 16 - width % 16))[..., :width]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def _runtime(accelerator: Accelerator) -> dict[str, Any]:
    """CUDA's runtime, as far as the code calls it by name."""

    class Event:
        def __init__(self, enable_timing: bool = False) -> None: ...
        def record(self, stream: Any = None) -> None: ...
        def synchronize(self) -> None:
            accelerator._wait("read")

        def elapsed_time(self, other: Event) -> float:
            return 0.0

    class Stream:
        def __init__(self, *_: Any) -> None: ...
        def wait_stream(self, other: Any) -> None: ...
        def wait_event(self, event: Any) -> None: ...
        def record_event(self) -> Event:
            return Event()

    class Graph:
        def replay(self) -> None: ...

    @contextlib.contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        accelerator.recording = True
        try:
            yield
        finally:
            accelerator.recording = False

    return {
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": graph,
        "graph_pool_handle": object,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "mem_get_info": lambda device=None: (accelerator.memory, accelerator.memory),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
    }


#: What autocast of a GPU computes in half precision, what in single, what it adds up in single precision, and what in
#: the widest of its operands': of torch's lists (autocast_mode.h) what these models call.
_HALF = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "_convolution", "conv3d", "convolution")
_SINGLE = (
    *("exp", "expm1", "log", "log1p", "pow.Tensor_Scalar", "rsqrt", "reciprocal", "softplus", "logsumexp"),
    *("layer_norm", "native_layer_norm", "nll_loss", "nll_loss_nd", "cosine_similarity"),
)
_SUMMED = ("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum", "prod", "linalg_vector_norm")
_WIDEST = ("cat", "stack", "index_put")

#: Weights that learn in single precision → their copies in half, which autocast keeps until it is left.
_casts: dict[int, tuple[Tensor, Tensor]] = {}
_library: list[torch.library.Library] = []


def _register() -> None:
    """Tell torch of the device, once a process; and of its autocast, which torch has for devices that it knows.

    Raises:
        OptionError: this release of torch can't be told.
    """
    if _library:
        return
    try:
        from torch.utils import backend_registration

        setup = backend_registration._setup_privateuseone_for_python_backend
    except (ImportError, AttributeError) as error:
        raise OptionError(f"torch {torch.__version__} can't pretend to have a GPU; 2.9 and later can") from error
    setup(DEVICE, _backend())
    library = torch.library.Library("aten", "IMPL")
    for names, casting in ((_HALF, _halved), (_SINGLE, _single), (_SUMMED, _summed), (_WIDEST, _widest)):
        for name in names:
            packet, _, overload = name.partition(".")
            library.impl(name, casting(getattr(getattr(_aten, packet), overload or "default")), "AutocastPrivateUse1")
    _library.append(library)
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _library.append(others)


def _backend() -> Any:
    """The module torch.fakegpu: random numbers are never drawn there, so there is no state of them."""
    return SimpleNamespace(
        is_available=lambda: False,  # else torch would make its tensors there, and not send them
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        get_rng_state=lambda device=None: torch.zeros(0, dtype=torch.uint8),
        set_rng_state=lambda state, device=None: None,
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
        device=lambda index: contextlib.nullcontext(),
    )


def _below_autocast(op: Any, args: Any, kwargs: Any) -> Any:
    key: Any = torch._C._parse_dispatch_key("AutocastPrivateUse1")
    keys = torch._C.DispatchKeySet(key)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        return op(*args, **kwargs)


def _is_cast(leaf: Any) -> bool:
    return isinstance(leaf, FakeTensor) and leaf.is_floating_point() and leaf.dtype != torch.float64


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    if not _is_cast(leaf) or leaf.dtype == dtype:
        return leaf
    keeps = leaf.is_leaf and leaf.requires_grad and leaf.dtype == torch.float32 and not leaf._is_view()
    if not keeps or not torch.is_autocast_cache_enabled():
        return leaf.to(dtype)
    if id(leaf) not in _casts:
        _casts[id(leaf)] = leaf, leaf.to(dtype)
    return _casts[id(leaf)][1]


def _halved(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(DEVICE)
        return _below_autocast(op, *tree_map_only(Tensor, lambda leaf: _cast(leaf, dtype), (args, kwargs)))

    return kernel


def _single(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        return _below_autocast(op, *tree_map_only(Tensor, lambda leaf: _cast(leaf, torch.float32), (args, kwargs)))

    return kernel


def _summed(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        named = dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)) | kwargs
        if named.get("dtype") is None and _is_cast(args[0]):
            named["dtype"] = torch.float32
        return _below_autocast(op, (), named)

    return kernel


def _widest(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtypes = {leaf.dtype for leaf in tree_flatten(args)[0] if _is_cast(leaf)}
        if len(dtypes) > 1:
            args = tree_map_only(Tensor, lambda leaf: _cast(leaf, torch.float32), args)
        return _below_autocast(op, args, kwargs)

    return kernel
