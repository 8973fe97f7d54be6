"""CUDA graphs: each operation of a backend is recorded once per size as one graph and replayed for every frame.

A step of a small network is some three hundred kernels, most of them so short that launching them one by one would
take longer than running them. A replay launches them all at once, allocates nothing, and never waits for the device.

Note [Static buffers]
---------------------
A graph reads and writes the addresses it was recorded with. So each state from :meth:`CudaGraph.initial_state` owns a
set of buffers, one for each name among the inputs and outputs of the graphs (:data:`~vidnoise.export.graph.KINDS`)
recorded for it. Arguments are copied into their buffers before the replay. The state itself lives in its buffers, and
the replay updates it in place; the clean frame is part of it. Consequently:

- a clean frame and its noise level are valid until the next frame with the same state. Callers that need them for
  longer must copy them. The pipeline makes the corrected frame on the same stream before it enqueues the next step, so
  it needs no copy;
- results that wait for later frames are copied out: the levels of :meth:`CudaGraph.measure`, and the results of
  :meth:`CudaGraph.look`. Scouts come and go with each window, so the buffers for looking belong to a size rather than a
  scout, last as long as there are states of that size, and scouts are copied in and out;
- a scene cut changes values (``continues``), not the graph;
- a state belongs to one stream (or one set of streams, stepped together). A state that was assembled elsewhere is
  copied into new buffers, which costs a recording;
- a step that fails (no memory for the recording) leaves the state as it was: recording runs nothing, and the state is
  put back after the warm-up.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vidnoise.backends.protocol import is_map, step_by_place
from vidnoise.errors import BackendError
from vidnoise.export.graph import FUTURE, KINDS, SCOUT, Size, named_state, shape_of, step_kind
from vidnoise.kernels import enabled
from vidnoise.model import Denoised, DenoiseNetwork, Future, Scout, State, known_levels, uniform_sigma

WARM_UP = 3
"""Steps before recording: in the first ones, libraries choose algorithms and allocate workspaces."""


_RECORDING = threading.Lock()
"""Serialises recordings by several devices on threads of their own: CUDA records one graph at a time in a process, and
cuDNN's settings are process-wide."""


class Graphs(Protocol):
    """Recorder of graphs; tests have a fake one."""

    def warm_up(self, run: Callable[[], None]) -> None:
        """Run ``run`` so often that all one-time initialisation is done."""
        ...

    def record(self, run: Callable[[], None]) -> Callable[[], Any]:
        """Record the work that ``run`` enqueues, without running it; return a function that replays it on the device.

        Replays use the same addresses.
        """
        ...


class CudaGraphs:
    """CUDA graphs on one device, which share one pool of memory for intermediate results.

    That is sound because they are replayed on one stream, one after the other, and leave nothing in the pool that is
    read later: persistent values are in the static buffers.
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
        # Other threads decode and encode meanwhile; their CUDA calls must not affect the recording.
        with torch.cuda.device(self._device), torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):  # fmt: skip
            run()
        return graph.replay


@dataclass(eq=False)
class _Buffers:
    """Tensors that graphs of one size read and write, by name; see Note [Static buffers]."""

    tensors: dict[str, Tensor]
    replays: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Replay functions by kind of graph."""


def _place(output: str) -> str:
    """Return the name of an output's buffer: for state, the one that it is read from."""
    return "previous" if output == "clean" else output.removeprefix("next_")


class GraphState(State):
    """A :class:`State` whose tensors are static buffers."""

    buffers: _Buffers
    looking: _Buffers
    """Buffers of :meth:`CudaGraph.look`, shared by all states of one size."""

    @classmethod
    def _make(cls, iterable: Iterable[Tensor]) -> State:
        """Return a plain state, as one derived by ``_replace`` is not in the static buffers."""
        return State._make(iterable)


class CudaGraph:
    """The CUDA graph backend, see Note [Static buffers].

    Args:
        network, device, dtype: As for all backends.
        graphs: Recorder of graphs; by default CUDA.

    Raises:
        BackendError: The device is not a CUDA device.
    """

    name = "cuda-graph"

    def __init__(
        self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype, graphs: Graphs | None = None
    ) -> None:
        if graphs is None and device.type != "cuda":
            raise BackendError(f'backend cuda-graph needs a CUDA device, not {device}; use backend="auto"')
        self._device = device
        self._graphs = graphs or CudaGraphs(device)
        self._network = network.in_precision(dtype)
        self._looking: weakref.WeakValueDictionary[Size, _Buffers] = weakref.WeakValueDictionary()

    def initial_state(self, n: int, height: int, width: int) -> State:
        initial = self._network.initial_state(n, height, width, device=self._device)
        state = GraphState(*(t.contiguous() for t in initial))
        noisy = torch.empty(n, 3, height, width, device=self._device)
        state.buffers = _Buffers({"noisy": noisy, **named_state(state)})
        state.looking = self._looking.setdefault((n, height, width), _Buffers({}))
        return state

    def input_buffer(self, state: State) -> Tensor | None:
        return state.buffers.tensors["noisy"] if isinstance(state, GraphState) else None

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        return self._network.initial_scout(n, height, width, device=self._device)

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        if is_map(sigma):
            return step_by_place(self, noisy, sigma, sigma_scale, continues, state)
        state = self._ours(state)
        given = {"noisy": noisy, "boost": sigma_scale, "keep": continues}
        if sigma is not None:
            given["sigma"] = known_levels(sigma, noisy)
        made = self._run(step_kind(blind=sigma is None), _size(noisy), state.buffers, given)
        return Denoised(state.clean, made["level"], state)

    @torch.inference_mode()
    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:  # fmt: skip
        if sigma is not None:
            return uniform_sigma(sigma, noisy), state
        state = self._ours(state)
        made = self._run("measure", _size(noisy), state.buffers, {"noisy": noisy, "keep": continues})
        return made["levels"].clone(), state

    @torch.inference_mode()
    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        size = _size(noisy)
        buffers = self._looking.setdefault(size, _Buffers({}))
        given = {
            "noisy": noisy,
            "levels": level,
            "boost": sigma_scale,
            "keep": continues,
            **dict(zip(SCOUT, scout, strict=True)),
        }
        made = self._run("look", size, buffers, given)
        return Future(*(made[name].clone() for name in FUTURE)), Scout(*(made[name].clone() for name in SCOUT))

    @torch.inference_mode()
    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State, future: Future
    ) -> Denoised:
        state = self._ours(state)
        ahead = dict(zip(FUTURE, future, strict=True))
        given = {"noisy": noisy, "levels": level, "boost": sigma_scale, "keep": continues, **ahead}
        made = self._run("smooth", _size(noisy), state.buffers, given)
        return Denoised(state.clean, made["level"], state)

    def _ours(self, state: State) -> GraphState:
        """Return the state itself, or if it is from elsewhere, a copy of it in new buffers."""
        if isinstance(state, GraphState):
            return state
        n, _, height, width = state.fused.shape
        ours = self.initial_state(n, height, width)
        assert isinstance(ours, GraphState)
        for target, source in zip(ours, state, strict=True):
            target.copy_(source)
        return ours

    def _run(
        self, kind: str, size: Size, buffers: _Buffers, given: dict[str, float | Tensor]
    ) -> dict[str, Tensor]:  # fmt: skip
        """Replay a graph on arguments by name, after recording it if needed, and return the buffers."""
        for name, value in given.items():
            _fill(self._buffer(buffers, name, size), value)
        if kind not in buffers.replays:
            buffers.replays[kind] = self._recorded(kind, size, buffers)
        buffers.replays[kind]()
        return buffers.tensors

    def _buffer(self, buffers: _Buffers, name: str, size: Size) -> Tensor:
        if name not in buffers.tensors:
            dtype = torch.bool if name == "keep" else torch.float32
            buffers.tensors[name] = torch.empty(shape_of(name, self._network, size), dtype=dtype, device=self._device)
        return buffers.tensors[name]

    def _recorded(self, kind: str, size: Size, buffers: _Buffers) -> Callable[[], Any]:
        inputs, outputs, work = KINDS[kind]
        read = {name: buffers.tensors[name] for name in inputs}
        written = {name: self._buffer(buffers, _place(name), size) for name in outputs}
        network = copy.copy(self._network)  # its layers are shared
        if enabled(self._device):
            from vidnoise.kernels.cuda_operations import CudaOperations

            # The pictures of the state are overwritten; they are no longer read by then.
            network.operations = CudaOperations(
                clean=read.get("previous"), fused=read.get("fused", read.get("scout_fused"))
            )

        def run() -> None:
            found = work(network, read)
            for name, target in written.items():
                if target.data_ptr() != found[name].data_ptr():  # fused operations have written there already
                    target.copy_(found[name])

        # The size never changes, so benchmarking the algorithms pays off.
        tf32 = torch.backends.cudnn.allow_tf32
        with _RECORDING, torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            before = {name: read[name].clone() for name in map(_place, outputs) if name in read}
            try:
                self._graphs.warm_up(run)
            finally:  # also when memory ran out in the middle
                for name, values in before.items():
                    read[name].copy_(values)
            return self._graphs.record(run)


def _size(noisy: Tensor) -> Size:
    n, _, height, width = noisy.shape
    return n, height, width


def _fill(buffer: Tensor, value: float | Tensor) -> None:
    if not isinstance(value, Tensor):
        buffer.fill_(value)
    elif value.data_ptr() != buffer.data_ptr():
        buffer.copy_(value)
