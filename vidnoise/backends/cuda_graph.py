"""A whole step of the network as one CUDA graph: recorded once for a size, replayed for every frame.

A step of a small network is some three hundred kernels, most of them so short that starting them one by one would take
longer than running them. Replaying starts them all at once, allocates nothing, and never waits for the device.

Note [Static buffers]
---------------------
A graph reads and writes the addresses it was recorded with. So each state from :meth:`CudaGraph.initial_state` owns a
set of buffers: the noisy frame, which streams to keep, told level and boost, the memory of the network, and the level
that was found. :meth:`CudaGraph.step` copies its arguments in and replays; the replay leaves the new memory where it
found the old one, and the clean frame is a part of that memory. What follows:

- a clean frame is valid until the next step with its state. Whoever needs it for longer copies it. The corrected frame
  is made from it on the same stream before the next step is enqueued, so nothing is copied for the pipeline's sake;
- a scene cut is a matter of values (``keep``), not of another graph;
- a state belongs to one stream (or one set of streams, stepped together). A state that was put together elsewhere is
  copied into new buffers, which costs a recording;
- a step that fails (no memory for the recording) has not touched the state, since recording runs nothing, and what
  warms up runs on a copy.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import BackendError
from ..kernels import enabled
from ..model import Denoised, DenoiseNetwork, State

WARM_UP = 3
"""Steps before recording: libraries choose their algorithms and take their workspaces in the first ones."""


_RECORDING = threading.Lock()
"""CUDA records one graph at a time in a process, and cuDNN's settings are the process's: devices that work on threads
of their own take turns."""


class Graphs(Protocol):
    """Who records; a fake one in tests."""

    def warm_up(self, run: Callable[[], None]) -> None:
        """Run it, so that everything that is done once has been done."""
        ...

    def record(self, run: Callable[[], None]) -> Callable[[], Any]:
        """What does again on the device, and on the same addresses, what ``run`` enqueues. Nothing is run yet."""
        ...


class CudaGraphs:
    """CUDA graphs on one device; their memory between the first operation and the last is shared by all.

    That is sound because they are replayed on one stream, one after the other, and leave nothing there that is read
    later: what lasts are the static buffers.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, run: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                run()
        current.wait_stream(self._stream)

    def record(self, run: Callable[[], None]) -> Callable[[], Any]:
        graph = torch.cuda.CUDAGraph()
        # Other threads decode and encode meanwhile; what they ask of CUDA is no business of the recording.
        with torch.cuda.device(self._device), torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):  # fmt: skip
            run()
        return graph.replay


@dataclass
class _Buffers:
    """What the graphs of one state read and write; see Note [Static buffers]."""

    noisy: Tensor
    keep: Tensor
    sigma: Tensor
    boost: Tensor
    level: Tensor
    network: DenoiseNetwork
    """Shares its weights with all others; its operations write into these buffers."""
    replays: dict[bool, Callable[[], Any]] = field(default_factory=dict)
    """By whether the level is told."""


class GraphState(State):
    """A :class:`State` whose tensors are static buffers."""

    buffers: _Buffers

    @property
    def noisy(self) -> Tensor:
        """``(N, 3, H, W)``: whoever makes the next frame here spares :meth:`CudaGraph.step` a copy."""
        return self.buffers.noisy


class CudaGraph:
    """See :class:`~vidnoise.backends.protocol.Backend` and Note [Static buffers].

    Args:
        graphs: who records; by default CUDA.

    Raises:
        BackendError: the device is no CUDA device.
    """

    name = "cuda-graph"

    def __init__(
        self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype, graphs: Graphs | None = None
    ) -> None:
        if graphs is None and device.type != "cuda":
            raise BackendError(f"backend cuda-graph needs a CUDA device, not {device}; use --backend auto")
        self._device = device
        self._graphs = graphs or CudaGraphs(device)
        self._network = network.in_precision(dtype)

    def initial_state(self, n: int, height: int, width: int) -> State:
        network = copy.copy(self._network)  # its layers are shared
        state = GraphState(*(t.contiguous() for t in network.initial_state(n, height, width, device=self._device)))
        if enabled(self._device) and network.config.transform == "haar":
            from ..kernels.operations import FusedOperations

            # The pictures, not the state: a circle would keep its memory on the device after its last use.
            network.operations = FusedOperations(network.operations, clean=state.clean, fused=state.fused)
        per_stream = torch.empty(n, device=self._device)
        state.buffers = _Buffers(
            noisy=torch.empty(n, 3, height, width, device=self._device),
            keep=torch.empty(n, dtype=torch.bool, device=self._device),
            sigma=per_stream,
            boost=torch.empty_like(per_stream),
            level=torch.empty_like(per_stream),
            network=network,
        )
        return state

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, boost: float | Tensor, keep: Tensor, state: State
    ) -> Denoised:
        if not isinstance(state, GraphState):
            state = self._adopted(state)
        buffers, is_told = state.buffers, sigma is not None
        if noisy.data_ptr() != buffers.noisy.data_ptr():
            buffers.noisy.copy_(noisy)
        buffers.keep.copy_(keep)
        _set(buffers.boost, boost)
        if sigma is not None:
            _set(buffers.sigma, sigma)
        if is_told not in buffers.replays:
            buffers.replays[is_told] = self._recorded(state, is_told)
        buffers.replays[is_told]()
        return Denoised(state.clean, buffers.level, state)

    def _adopted(self, state: State) -> GraphState:
        """A state of ours with the values of another one's."""
        n, _, height, width = state.fused.shape
        ours = self.initial_state(n, height, width)
        assert isinstance(ours, GraphState)
        for target, source in zip(ours, state, strict=True):
            target.copy_(source)
        return ours

    def _recorded(self, state: GraphState, is_told: bool) -> Callable[[], Any]:
        buffers = state.buffers

        def run() -> None:
            result = buffers.network.advance(
                buffers.noisy, buffers.sigma if is_told else None, buffers.boost, buffers.keep, state
            )
            buffers.level.copy_(result.level)
            for target, source in zip(state, result.state, strict=True):
                if target.data_ptr() != source.data_ptr():  # fused operations have put it there already
                    target.copy_(source)

        # One size for ever, so it is worth trying which algorithm is the fastest.
        tf32 = torch.backends.cudnn.allow_tf32
        with _RECORDING, torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            before = State(*(t.clone() for t in state))
            try:
                self._graphs.warm_up(run)
            finally:  # also where memory ran out in the middle
                for target, source in zip(state, before, strict=True):
                    target.copy_(source)
            return self._graphs.record(run)


def _set(buffer: Tensor, value: float | Tensor) -> None:
    if isinstance(value, Tensor):
        buffer.copy_(value)
    else:
        buffer.fill_(value)
