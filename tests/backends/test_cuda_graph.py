"""The graph backend, with graphs that are recorded and replayed on the CPU.

:class:`RecordedGraphs` keeps the operations of a step with the very tensors that they read and wrote, and does them
again on a replay: numbers and addresses are frozen as in a CUDA graph. What is wrong there is wrong here: a number that
should have been a tensor, an input that was not copied in, a state that was not written back.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from support import tolerances
from support.graphs import RecordedGraphs
from support.networks import noisy_frames
from vidnoise.backends.cuda_graph import CudaGraph, GraphState, _size
from vidnoise.backends.eager import Eager
from vidnoise.backends.window import Window
from vidnoise.errors import BackendError
from vidnoise.export.graph import FUTURE, KINDS, MEMORY, TRACK, shape_of
from vidnoise.model import TIERS, DenoiseNetwork, Future, Scout, State
from vidnoise.weights import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> DenoiseNetwork:
    return load_model("fast").network


def keeping(*values: bool) -> Tensor:
    return torch.tensor(values)


def steps(backend: Any, frames: Tensor, *, sigmas: list[Any], boosts: list[Any], keeps: list[Tensor]) -> list[Tensor]:
    """Clean frames (copied, as they last until the next step only) and levels."""
    state = backend.initial_state(frames.shape[1], *frames.shape[-2:])
    out = []
    for frame, sigma, boost, keep in zip(frames, sigmas, boosts, keeps, strict=True):
        clean, level, state = backend.step(frame, sigma, boost, keep, state)
        out += [clean.clone(), level.clone()]
    return out


def window(
    backend: Any, frames: Tensor, *, sigmas: list[Any], boosts: list[Any], keeps: list[Tensor], lookahead: int = 3
) -> list[Tensor]:
    """The same, looked through both ways."""
    frames_ahead: Window[None] = Window(backend, lookahead)
    out = []
    for given in zip(frames, sigmas, boosts, keeps, strict=True):
        out += [t.clone() for _, result in frames_ahead.push(None, *given) for t in (result.clean, result.level)]
    return out + [t.clone() for _, result in frames_ahead.flush() for t in (result.clean, result.level)]


def story(
    network: DenoiseNetwork, backend_class: Any = CudaGraph, through: Any = steps, **changes: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Six frames, told and blind, with a cut and changing strengths: by the graphs, and by the eager backend."""
    frames = noisy_frames(6)
    given: dict[str, Any] = {
        "sigmas": [0.1, None, None, 0.05, 0.2, None],
        "boosts": [1.0, 1.0, 1.5, 1.0, 1.2, 1.0],
        "keeps": [keeping(i != 4) for i in range(6)],
    }
    given.update(changes)
    found = through(backend_class(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs()), frames, **given)
    return found, through(eager(network), frames, **given)


def eager(network: DenoiseNetwork) -> Eager:
    """With the operations that are recorded, not those for CPUs, which round differently."""
    backend = Eager(network, device=CPU, dtype=torch.float32)
    backend.network = network
    return backend


def agree(found: list[Tensor], expected: list[Tensor]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=tolerances.GRAPH_REPLAY) for a, b in pairs)


@pytest.mark.parametrize("through", [steps, window])
def test_replays_are_what_the_eager_backend_does(network: DenoiseNetwork, through: Any) -> None:
    assert agree(*story(network, through=through))


def test_two_streams_together_with_values_of_their_own(network: DenoiseNetwork) -> None:
    frames = noisy_frames(4)
    frames = torch.cat([frames, frames.flip(0)], 1)
    given = {
        "sigmas": [torch.tensor([0.1, 0.05])] * 4,
        "boosts": [torch.tensor([[1.0, 1.2], [1.5, 1.0]])] * 4,
        "keeps": [keeping(True, i != 2) for i in range(4)],
    }
    graphs = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    assert agree(steps(graphs, frames, **given), steps(eager(network), frames, **given))
    assert agree(window(graphs, frames, **given), window(eager(network), frames, **given))


def test_one_recording_for_a_size_and_kind_and_none_for_a_cut(network: DenoiseNetwork) -> None:
    graphs = RecordedGraphs()
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=graphs)
    state = backend.initial_state(1, 32, 48)
    for i, frame in enumerate(noisy_frames(6)):
        _, _, state = backend.step(frame, None if i % 2 else 0.1, 1.0, keeping(i != 3), state)
    assert (graphs.n_recorded, graphs.n_replayed) == (2, 6)


def test_one_recording_for_all_windows_of_a_size(network: DenoiseNetwork) -> None:
    graphs = RecordedGraphs()
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=graphs)
    frames = noisy_frames(6)
    windows = [Window[None](backend, 2) for _ in range(2)]
    for i, frame in enumerate(frames):
        for frames_ahead in windows:
            list(frames_ahead.push(None, frame, None, 1.0, keeping(i != 3)))
    # To measure and to smooth for each stream, and to look for both.
    assert graphs.n_recorded == 5
    assert sorted(kind for w in windows for kind in w.state.buffers.replays) == ["measure"] * 2 + ["smooth"] * 2
    del windows, frames_ahead
    assert not backend._looking, "what looks goes with the last state of its size"


def test_what_outlives_a_replay_is_copied_out(network: DenoiseNetwork) -> None:
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    frames = noisy_frames(2)
    state, scouts = backend.initial_state(1, 32, 48), [backend.initial_scout(1, 32, 48) for _ in range(2)]
    kept: list[tuple[Tensor, Tensor]] = []
    for i, frame in enumerate(frames):
        level, state = backend.measure(frame, None if i else 0.1, keeping(True), state)
        future, scout = backend.look(frame, level, 1.0, keeping(False), scouts[i])
        kept += [(t, t.clone()) for t in (level, *future, *scout)]
    for frame in frames.flip(0):
        backend.measure(frame, 0.2, keeping(True), state)
        backend.look(frame, kept[0][0], 1.0, keeping(False), scouts[0])
    assert all(torch.equal(a, b) for a, b in kept)


def test_the_steady_state_keeps_its_addresses(network: DenoiseNetwork) -> None:
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    state = backend.initial_state(1, 32, 48)
    addresses = set()
    for frame in noisy_frames(4):
        clean, level, state = backend.step(frame, None, 1.0, keeping(True), state)
        addresses.add((clean.data_ptr(), level.data_ptr(), *(t.data_ptr() for t in state)))
    assert len(addresses) == 1


def test_a_frame_made_in_the_buffer_is_not_copied(network: DenoiseNetwork) -> None:
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    state = backend.initial_state(1, 32, 48)
    assert isinstance(state, GraphState)
    plain = eager(network)
    theirs = plain.initial_state(1, 32, 48)
    for frame in noisy_frames(3):
        place = backend.input_buffer(state)
        assert place is not None
        place.copy_(frame)
        clean, _, state = backend.step(place, 0.1, 1.0, keeping(True), state)
        expected, _, theirs = plain.step(frame, 0.1, 1.0, keeping(True), theirs)
        torch.testing.assert_close(clean, expected, rtol=0, atol=tolerances.GRAPH_REPLAY)


def test_a_state_that_was_put_together_elsewhere_is_taken_over(network: DenoiseNetwork) -> None:
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    frames = noisy_frames(3)
    state = backend.initial_state(1, 32, 48)
    for frame in frames[:2]:
        _, _, state = backend.step(frame, None, 1.0, keeping(True), state)
    copies = [State(*(t.clone() for t in state)) for _ in range(2)]
    clean, _, theirs = backend.step(frames[2], None, 1.0, keeping(True), copies[0])
    assert theirs.fused.data_ptr() != state.fused.data_ptr()
    smoothed = []
    for other in (backend, eager(network)):
        level, measured = other.measure(frames[2], None, keeping(True), State(*(t.clone() for t in copies[1])))
        future, _ = other.look(frames[2], level, 1.0, keeping(False), other.initial_scout(1, 32, 48))
        smoothed.append(other.smooth(frames[2], level, 1.0, keeping(True), measured, future)[0])
    torch.testing.assert_close(*smoothed, rtol=0, atol=tolerances.GRAPH_REPLAY)
    other = eager(network).measure(frames[2], None, keeping(True), state)[1]  # of which a part is replaced
    assert not isinstance(other, GraphState)
    expected = backend.step(frames[2], None, 1.0, keeping(True), state)[0]
    torch.testing.assert_close(clean, expected, rtol=0, atol=tolerances.GRAPH_REPLAY)


def test_no_memory_for_a_recording_leaves_the_state_alone(network: DenoiseNetwork) -> None:
    class Full(RecordedGraphs):
        full = True

        def record(self, run: Callable[[], None]) -> Callable[[], None]:
            if self.full:
                raise torch.OutOfMemoryError("no memory")
            return super().record(run)

    graphs = Full()
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=graphs)
    frames = noisy_frames(2)
    state = backend.initial_state(1, 32, 48)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            backend.step(frames[0], None, 1.0, keeping(True), state)
    graphs.full = False
    plain = eager(network)
    found = backend.step(frames[0], None, 1.0, keeping(True), state)[0]
    expected = plain.step(frames[0], None, 1.0, keeping(True), plain.initial_state(1, 32, 48))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerances.GRAPH_REPLAY)


def test_no_memory_while_warming_up_leaves_the_state_alone(network: DenoiseNetwork) -> None:
    class Full(RecordedGraphs):
        def warm_up(self, run: Callable[[], None]) -> None:
            run()
            raise torch.OutOfMemoryError("no memory")

    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=Full())
    state = backend.initial_state(1, 32, 48)
    before = [t.clone() for t in state]
    with pytest.raises(torch.OutOfMemoryError):
        backend.step(noisy_frames(1)[0], None, 1.0, keeping(True), state)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


@pytest.mark.parametrize("has_kernels", [False, True])
def test_a_state_that_is_let_go_leaves_the_device_at_once(
    network: DenoiseNetwork, has_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No circle holds it: Python looks for those now and then, and knows nothing of a GPU that is full."""
    monkeypatch.setattr("vidnoise.backends.cuda_graph.enabled", lambda device: has_kernels)
    if has_kernels:
        pytest.importorskip("triton")

    class Once(RecordedGraphs):
        """Leaves a graph that knows addresses only, as CUDA's."""

        def warm_up(self, run: Callable[[], None]) -> None: ...

        def record(self, run: Callable[[], None]) -> Callable[[], None]:
            return lambda: None

    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=Once())
    state = backend.initial_state(1, 32, 48)
    backend.step(noisy_frames(1)[0], None, 1.0, keeping(True), state)
    left = [weakref.ref(tensor) for tensor in state]
    gc.disable()
    try:
        del state
        assert [ref() for ref in left] == [None] * len(left)
    finally:
        gc.enable()


def test_devices_record_one_after_the_other(network: DenoiseNetwork) -> None:
    """Each on a thread of its own, as the files of a batch are."""
    busy, most = [0], [0]

    class Slow(RecordedGraphs):
        def record(self, run: Callable[[], None]) -> Callable[[], None]:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            time.sleep(0.05)
            busy[0] -= 1
            return lambda: None

    def work() -> None:
        backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=Slow())
        backend.step(noisy_frames(1)[0], None, 1.0, keeping(True), backend.initial_state(1, 32, 48))

    before = torch.backends.cudnn.benchmark
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert torch.backends.cudnn.benchmark == before


def test_a_cpu_is_refused_in_one_line(network: DenoiseNetwork) -> None:
    with pytest.raises(BackendError, match="needs a CUDA device, not cpu"):
        CudaGraph(network, device=CPU, dtype=torch.float32)


# The rules of Note [Static buffers], broken one by one: the comparison above must notice each.
class InputsAreAliased(CudaGraph):
    """Records the first frame's own memory instead of a buffer's."""

    def step(self, noisy, sigma, boost, keep, state):
        if not state.buffers.replays:
            state.buffers.tensors["noisy"] = noisy
        return super().step(noisy, sigma, boost, keep, state)


class TheStateStays(CudaGraph):
    """Forgets to write back what the step remembered."""

    def _recorded(self, kind, size, buffers):
        tensors = buffers.tensors
        stays = {name: t.clone() for name, t in tensors.items() if name in (*TRACK, *MEMORY)}
        buffers.tensors = {**tensors, **stays}
        try:
            return super()._recorded(kind, size, buffers)
        finally:
            buffers.tensors = {**buffers.tensors, **tensors}


class NumbersAreFrozen(CudaGraph):
    """Records the told level as a number."""

    def _recorded(self, kind, size, buffers):
        if kind == "step-told":
            buffers.tensors["sigma"] = buffers.tensors["sigma"].clone()
        return super()._recorded(kind, size, buffers)

    def _buffer(self, buffers, name, size):
        return (
            torch.empty(1, 6)
            if name == "sigma" and "step-told" in buffers.replays
            else super()._buffer(buffers, name, size)
        )


class TheStateIsTheInput(CudaGraph):
    """Makes the next frame in the memory of the last clean one."""

    def initial_state(self, n, height, width):
        state = super().initial_state(n, height, width)
        state.buffers.tensors["noisy"] = state.clean
        return state


class WarmingUpCounts(CudaGraph):
    """Warms up on the state itself."""

    def _recorded(self, kind, size, buffers):
        record = self._graphs.record
        kept = {}
        self._graphs.warm_up = lambda run: (run(), kept.update((n, t.clone()) for n, t in buffers.tensors.items()))

        def record_from_there(run):
            for name, values in kept.items():
                buffers.tensors[name].copy_(values)
            return record(run)

        self._graphs.record = record_from_there
        return super()._recorded(kind, size, buffers)


@pytest.mark.parametrize(
    "broken", [InputsAreAliased, TheStateStays, NumbersAreFrozen, TheStateIsTheInput, WarmingUpCounts]
)
def test_a_broken_rule_is_noticed(network: DenoiseNetwork, broken: type[CudaGraph]) -> None:
    assert not agree(*story(network, broken))


class FuturesAreBuffers(CudaGraph):
    """Hands out what the next look overwrites."""

    def look(self, noisy, level, boost, keep, scout):
        _, following = super().look(noisy, level, boost, keep, scout)
        return Future(*(self._looking[_size(noisy)].tensors[name] for name in FUTURE)), following


class LevelsAreBuffers(CudaGraph):
    """Hands out what the next frame overwrites."""

    def measure(self, noisy, sigma, keep, state):
        level, state = super().measure(noisy, sigma, keep, state)
        return level if sigma is not None else state.buffers.tensors["levels"], state


class ScoutsStay(CudaGraph):
    """Forgets to take the scout over."""

    def look(self, noisy, level, boost, keep, scout):
        return super().look(noisy, level, boost, keep, Scout(*(t.clone() for t in self.initial_scout(*_size(noisy)))))


@pytest.mark.parametrize(
    "broken", [TheStateStays, TheStateIsTheInput, WarmingUpCounts, FuturesAreBuffers, LevelsAreBuffers, ScoutsStay]
)
def test_a_broken_rule_is_noticed_both_ways(network: DenoiseNetwork, broken: type[CudaGraph]) -> None:
    assert not agree(*story(network, broken, window))


def test_a_clean_frame_lasts_until_the_next_step_only(network: DenoiseNetwork) -> None:
    backend = CudaGraph(network, device=CPU, dtype=torch.float32, graphs=RecordedGraphs())
    state = backend.initial_state(1, 32, 48)
    first, second = noisy_frames(2)
    clean, _, state = backend.step(first, 0.1, 1.0, keeping(True), state)
    before = clean.clone()
    backend.step(second, 0.1, 1.0, keeping(True), state)
    assert not torch.equal(clean, before)


class NothingWaits(TorchFunctionMode):
    """Fails on what makes the host wait for the device, or copies from memory that is not pinned."""

    FORBIDDEN = frozenset({
        "item", "tolist", "cpu", "cuda", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__",
        "masked_select", "unique", "pin_memory", "new_tensor", "tensor", "from_numpy", "__contains__", "equal",
        "synchronize", "argwhere",
    })  # fmt: skip

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        assert name not in self.FORBIDDEN, f"{name} is not possible inside a graph"
        if name == "as_tensor":
            assert isinstance(args[0], Tensor), "as_tensor of a number copies it to the device"
        return func(*args, **(kwargs or {}))


class OneDevice(TorchDispatchMode):
    """Fails on an operation that touches two devices, or whose result has a size that depends on values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
        assert devices <= {"meta"}, f"{func} works on {devices}"
        assert torch.Tag.data_dependent_output not in func.tags, f"{func} depends on values"
        return result


GRAPHS = [kind for kind in KINDS if kind != "core"]  # which is a part of the others
RECORDED = [
    *(("fast", kind, torch.float16) for kind in GRAPHS), ("fast", "step", torch.float32),
    *((tier, "step", torch.float16) for tier in TIERS if tier != "fast"),
]  # fmt: skip
"""Every kind in one tier, and every tier as it runs on GPUs. The rest is made of the same parts."""
ALL = [(tier, kind, dtype) for tier in TIERS for kind in GRAPHS for dtype in (torch.float32, torch.float16)]


@pytest.mark.parametrize(
    ("tier", "kind", "dtype"),
    [*RECORDED, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in RECORDED)],
)
def test_every_graph_can_be_recorded(tier: str, kind: str, dtype: torch.dtype) -> None:
    """On tensors without values, so that looking at one fails whatever it is called."""
    network = DenoiseNetwork(TIERS[tier]).to("meta").in_precision(dtype)
    inputs, outputs, work = KINDS[kind]
    given = {name: torch.empty(shape_of(name, network, (2, 64, 96)), device="meta") for name in inputs}
    given["keep"] = given["keep"].bool()
    with torch.inference_mode(), NothingWaits(), OneDevice():
        found = work(network, given)
    assert [found[name].shape for name in outputs] == [shape_of(name, network, (2, 64, 96)) for name in outputs]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x.sum().item(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: torch.as_tensor(0.5, device=x.device),
        lambda x: x.to("cpu"),
        lambda x: x + torch.zeros(4).sum(),
    ],
)
def test_what_cannot_be_recorded_is_noticed(wait: Callable[[Tensor], Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NothingWaits(), OneDevice():
        wait(torch.empty(4, device="meta"))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("through", [steps, window])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graphs_on_the_device_agree_with_eager(
    dtype: torch.dtype, through: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda:0")
    network = load_model("fast", device).network
    frames = noisy_frames(6).to(device)
    given: dict[str, Any] = {
        "sigmas": [0.1, None, None, 0.05, 0.2, None],
        "boosts": [1.0, 1.0, 1.5, 1.0, 1.2, 1.0],
        "keeps": [torch.tensor([i != 4], device=device) for i in range(6)],
    }
    expected = through(Eager(network, device=device, dtype=dtype), frames, **given)
    for kernels in ("off", "on"):
        monkeypatch.setenv("VIDNOISE_KERNELS", kernels)
        found = through(CudaGraph(network, device=device, dtype=dtype), frames, **given)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerances.GRAPH_CUDA[dtype])


@pytest.mark.needs_cuda
def test_the_steady_state_allocates_nothing() -> None:
    device = torch.device("cuda:0")
    backend = CudaGraph(load_model("fast", device).network, device=device, dtype=torch.float16)
    state = backend.initial_state(1, 256, 384)
    noisy, keep = torch.rand(1, 3, 256, 384, device=device), torch.ones(1, dtype=torch.bool, device=device)
    for i in range(5):
        if i == 2:
            before = torch.cuda.memory_stats(device)["allocation.all.allocated"]
        _, _, state = backend.step(noisy, None, 1.0, keep, state)
    assert torch.cuda.memory_stats(device)["allocation.all.allocated"] == before
