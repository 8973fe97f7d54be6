"""Operations, arithmetic and memory traffic of one step of the network, by part; and the time of each part.

The network's own code is run and observed at the dispatcher, so that nothing here needs to be kept in sync with it. The
part of an operation is found by which of the network's functions is running.

Counting rules. A convolution: 2 per multiply-add. Per output value, a pooling: its window; a bilinear sample: 8; a
bicubic one: 32. A reduction: 1 per input value. Any other computation: 1 per output value, with a logarithm counting
like an addition. Moving data: none. Bytes: every operation reads its inputs and writes its output once; views and
allocations are free. Of compiled kernels, only the bytes are counted, and of those for convolutions what the direct way
takes, although minimal filtering takes a quarter of the products.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vidnoise.kernels import conversion
from vidnoise.kernels.cpu_operations import CpuOperations
from vidnoise.kernels.library import Library, kernels_in_use
from vidnoise.kernels.native_operations import NativeOperations, operations_for_cpu
from vidnoise.model import DenoiseNetwork, ModelConfig, flow, luma_chroma, warp, wavelet
from vidnoise.model.dncnn import DnCNN
from vidnoise.model.fusion import TemporalFusion
from vidnoise.model.operations import Operations
from vidnoise.session import cuts

SIZE = 256
"""Height and width of the frame on which operations are counted. Everything but the weights scales with the pixels."""

_OPERATIONS = (Operations, CpuOperations, NativeOperations)

PARTS: dict[str, tuple[Any, ...]] = {
    "colour": (conversion.to_network, conversion.from_network, conversion.add_correction, conversion.difference),
    "cuts": (cuts.detect_cut, cuts.thumbnail),
    "noise level": (DenoiseNetwork.estimate_sigma,),
    "motion": (flow.estimate_motion,),
    "warp": (
        *(o.warp_state for o in _OPERATIONS),
        *(warp.warp, warp.sampling_grid, warp.outside, warp.resize_flow),
    ),
    "fusion": (TemporalFusion.forward,),
    "core's input": (DenoiseNetwork._core_input,),
    "core": (DnCNN.forward,),
    "bands": (
        *(f for o in _OPERATIONS for f in (o.rgb_to_bands, o.bands_to_rgb, o.remove_noise)),
        *(luma_chroma.rgb_to_bands, luma_chroma.bands_to_rgb, luma_chroma.per_channel, wavelet.per_band),
    ),
}
"""Functions by part. In nested calls the outermost counts: warps during motion estimation belong to motion."""

REST = "rest"

OUTSIDE = "outside PyTorch"
"""Name of the part for Python and OpenCV."""

_PART_OF: dict[CodeType, str] = {
    inspect.unwrap(f).__code__: part for part, functions in PARTS.items() for f in functions
}


def _convolve(inputs: Sequence[Tensor], result: Tensor) -> tuple[float, Sequence[Tensor]]:
    picture, _, _, *summand = inputs
    return 2.0 * 9 * picture.shape[-1] * result.numel(), [picture, *summand]


def _fuse(inputs: Sequence[Tensor], result: Tensor) -> tuple[float, Sequence[Tensor]]:
    weights = inputs[5::2]
    return 2.0 * sum(t.numel() for t in weights) * result.shape[-2:].numel(), inputs[:5]


def _noise_stem(inputs: Sequence[Tensor], result: Tensor) -> tuple[float, Sequence[Tensor]]:
    return 2.0 * inputs[4].numel() * result.shape[:2].numel(), inputs[:4]


_FILTERS = {"convolve": _convolve, "fuse": _fuse, "noise_stem": _noise_stem}
"""Kernels that convolve: from their inputs and result the FLOP of that, and the inputs but for the weights."""

_MOVES = {
    "_to_copy", "alias", "arange", "cat", "clone", "constant_pad_nd", "copy_", "fill_", "full",
    "full_like", "index", "index_select", "lift_fresh", "ones", "pad", "pixel_shuffle", "reflection_pad2d", "repeat",
    "repeat_interleave", "replication_pad2d", "scalar_tensor", "select_copy", "slice_copy", "stack", "zeros",
    "zeros_like", "contiguous", "to", "new_zeros",
}  # fmt: skip
_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty"}
_REDUCES = {"mean", "sum", "amax", "amin", "linalg_vector_norm", "max", "min", "prod", "all", "any"}


def _part_of(frame: FrameType | None) -> str:
    part = REST
    while frame is not None:
        part = _PART_OF.get(frame.f_code, part)
        frame = frame.f_back
    return part


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a step; figures are per full-resolution pixel."""

    part: str
    name: str
    flops: float
    bytes: float
    is_convolution: bool
    is_large: bool
    """Whether it is a convolution or a warp, which remain when everything small is fused into its neighbours."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The counted operations of one step."""

    operations: tuple[Operation, ...]
    state_bytes: float
    """Bytes of the state per pixel."""
    weight_bytes: int
    """Bytes of all weights, in the precision of the arithmetic."""

    @property
    def flops(self) -> float:
        """FLOP per pixel."""
        return sum(op.flops for op in self.operations)

    @property
    def convolution_flops(self) -> float:
        """FLOP per pixel in convolutions."""
        return sum(op.flops for op in self.operations if op.is_convolution)

    @property
    def unfused_bytes(self) -> float:
        """Bytes per pixel if every operation goes through main memory."""
        return sum(op.bytes for op in self.operations)

    @property
    def layered_bytes(self) -> float:
        """Bytes per pixel if convolutions and warps go through main memory, and the rest is fused into them."""
        return sum(op.bytes for op in self.operations if op.is_large) + self.fused_bytes

    @property
    def fused_bytes(self) -> float:
        """Minimum bytes per pixel, if only the picture (float32 RGB) and the state are read and written."""
        return 12 + 2 * self.state_bytes

    def by_part(self) -> dict[str, list[Operation]]:
        """Operations by part, in the order of :data:`PARTS`."""
        found: dict[str, list[Operation]] = {part: [] for part in (*PARTS, REST)}
        for op in self.operations:
            found[op.part].append(op)
        return {part: ops for part, ops in found.items() if ops}


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    """Return the bytes that reading a tensor takes; an expanded dimension is read once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


class _Counter(TorchDispatchMode):
    """Records every operation that runs."""

    def __init__(self, weights: set[int], pixels: int) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._weights = weights
        """Storages of the weights, and of tensors derived from them alone (their casts)."""
        self._kept: list[Tensor] = []
        """The derived tensors, kept alive because a freed storage could be reused by another tensor."""
        self._pixels = pixels

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs, outputs = list(_tensors((args, kwargs))), list(_tensors(out))
        if inputs and all(_storage(t) in self._weights for t in inputs):
            self._weights.update(_storage(t) for t in outputs)
            self._kept += outputs
            return out
        places = {_storage(t) for t in inputs}
        changes_input = func._schema.is_mutable
        if outputs and not changes_input and all(_storage(t) in places for t in outputs):
            return out  # a view
        name = func.overloadpacket.__name__
        if name in _ALLOCATES:
            return out
        read = {id(t): _bytes(t) for t in inputs if _storage(t) not in self._weights}
        moved = sum(read.values()) + sum(_bytes(t) for t in outputs)
        flops = _flops(func, name, args, kwargs, inputs, outputs)
        is_convolution = func.overloadpacket in flop_registry
        self.operations.append(
            Operation(
                _part_of(sys._getframe(1)), name, flops / self._pixels, moved / self._pixels,
                is_convolution, is_convolution or name.startswith("grid_sampler"),
            )
        )  # fmt: skip
        return out

    def add_kernel(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], part: str) -> None:
        """Record a compiled kernel, which PyTorch's dispatcher does not see."""
        flops, is_convolution = 0, name in _FILTERS
        if is_convolution:
            flops, inputs = _FILTERS[name](inputs, outputs[0])
        moved = sum(_bytes(t) for t in (*inputs, *outputs))
        pixels = self._pixels
        self.operations.append(Operation(part, name, flops / pixels, moved / pixels, is_convolution, is_convolution))


def _flops(func: Any, name: str, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> float:
    written = sum(t.numel() for t in outputs)
    if func.overloadpacket in flop_registry:
        return float(flop_registry[func.overloadpacket](*args, **kwargs, out_val=outputs[0]))
    if name in _MOVES:
        return 0.0
    if name in _REDUCES:
        return float(sum(t.numel() for t in inputs))
    if "pool2d" in name:
        window = args[1]
        return float(written * window[0] * window[-1])
    if name.startswith("grid_sampler"):
        return written * (32.0 if args[2] == 2 else 8.0)
    if name.startswith("upsample_bilinear"):
        return written * 8.0
    return float(written)


@contextlib.contextmanager
def _observed_kernels(around: Callable[..., contextlib.AbstractContextManager[object]]) -> Iterator[None]:
    """Run compiled kernels within ``around(part, name, inputs, outputs)``."""
    run = Library.run

    def observed(self: Library, name: str, inputs: Any, outputs: Any, *rest: Any, **options: Any) -> None:
        with around(_part_of(sys._getframe(1)), name, inputs, outputs):
            run(self, name, inputs, outputs, *rest, **options)

    Library.run = observed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Library.run = run  # type: ignore[method-assign]


@functools.cache
def count_step(config: ModelConfig, dtype: torch.dtype = torch.float32, *, fused: bool = False) -> Graph:
    """Count one blind step of a network.

    Args:
        config: The network's configuration.
        dtype: Precision of its convolutions.
        fused: Count it as it runs on a CPU, with :func:`operations_for_cpu`, instead of in its plain form. OpenCV's
            operations are not seen.
    """
    network = DenoiseNetwork(config).eval().requires_grad_(False).in_precision(dtype)
    noisy = torch.rand(1, 3, SIZE, SIZE)
    state = network.initial_state(1, SIZE, SIZE)
    continues = torch.ones(1, dtype=torch.bool)
    weights = {_storage(p) for p in network.parameters()}
    # Not in inference mode, in which composite operations reach the dispatcher undivided.
    counter = _Counter(weights, SIZE * SIZE)

    def count(part: str, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Any:
        counter.add_kernel(name, inputs, outputs, part)
        return contextlib.nullcontext()

    if fused:
        network.operations = operations_for_cpu()
        with torch.no_grad():  # the first step also transforms the weights
            network.step(noisy, None, 1.0, continues, state)
    with torch.no_grad(), counter, _observed_kernels(count):
        network.step(noisy, None, 1.0, continues, state)
    n_weights = sum(p.numel() for p in network.parameters())
    state_bytes = sum(t.numel() * t.element_size() for t in state) / SIZE**2
    return Graph(tuple(counter.operations), state_bytes, n_weights * dtype.itemsize)


def count_fused(config: ModelConfig, dtype: torch.dtype, device: str) -> Graph | None:
    """Count a step as it runs with the compiled kernels; ``None`` where there are none for the device."""
    if torch.device(device).type != "cpu" or kernels_in_use() is None:
        return None
    return count_step(config, dtype, fused=True)


class _Timer(TorchDispatchMode):
    """Labels every operation for the profiler with its part."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with record_function(f"part: {_part_of(sys._getframe(1))}"):
            return func(*args, **(kwargs or {}))


def time_by_part(push: Any, frames: list[Any], device: torch.device) -> dict[str, float]:
    """Measure the milliseconds per frame in each part by torch.profiler, in host time on the CPU, else in device time.

    Args:
        push: Takes one frame and runs the network operation by operation (backend ``eager``).
        frames: The frames to push; the first two are not counted.
        device: The device that the network runs on.
    """
    on_device = device.type != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    for frame in frames[:2]:
        push(frame)

    def label(part: str, *_: object) -> Any:
        return record_function(f"part: {part}")

    with profile(activities=activities) as measured, _Timer(), _observed_kernels(label):
        start = time.perf_counter()
        for frame in frames[2:]:
            push(frame)
        whole = 1e3 * (time.perf_counter() - start) / (len(frames) - 2)
    totals: dict[str, float] = defaultdict(float)
    for event in measured.key_averages():
        if event.key.startswith("part: "):
            us = event.device_time_total if on_device else event.cpu_time_total
            totals[event.key.removeprefix("part: ")] += us / 1e3 / (len(frames) - 2)
    if not on_device:
        totals[OUTSIDE] = max(0.0, whole - sum(totals.values()))
    return {part: totals[part] for part in (*PARTS, REST, OUTSIDE) if totals[part] > 0}
