"""The TensorRT backend, on a fake TensorRT whose engines are the ONNX files themselves, run by ONNX Runtime.

The fake works on addresses, as the true one does: it reads the inputs from where it was told, writes the outputs to
where it was told, and refuses what TensorRT cannot do. What it cannot show is whether TensorRT takes the graph.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from support import tolerances
from support.backends import both_ways, outputs, worst_rms
from vidnoise.backends import open_backend
from vidnoise.backends.tensorrt import TensorRT
from vidnoise.errors import BackendError
from vidnoise.model import DenoiseNetwork
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")


class Context:
    """An execution context: one size, addresses that last until they are set anew."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert shape == self._engine.shapes[name], f"{name}: {shape} is not in the profile"
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Gpu.STREAM
        session = self._engine.session
        inputs = {i.name: i for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        assert self._shapes.keys() == inputs.keys()
        assert self._addresses.keys() == {*inputs, *names}
        assert not {self._addresses[n] for n in names} & {self._addresses[n] for n in inputs}, (
            "engines work not in place"
        )
        fed = {}
        for name, declared in inputs.items():
            kind = np.bool_ if declared.type == "tensor(bool)" else np.float32
            n_bytes = math.prod(self._shapes[name]) * np.dtype(kind).itemsize
            fed[name] = np.frombuffer(ctypes.string_at(self._addresses[name], n_bytes), kind).reshape(
                self._shapes[name]
            )
        for name, made in zip(names, session.run(names, fed), strict=True):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(made).ctypes.data, made.nbytes)
        return self._engine.is_able


class Engine:
    def __init__(self, graph: bytes, shapes: dict[str, tuple[int, ...]], *, is_able: bool) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.shapes, self.is_able = shapes, is_able

    def create_execution_context(self) -> Context:
        return Context(self)


class FakeTensorRT(ModuleType):
    """As much of the package as building and running takes. An engine is a line of shapes, then the ONNX file."""

    __version__ = "10.13.2.6"

    def __init__(self, *, takes: bool = True, runs: bool = True) -> None:
        super().__init__("tensorrt")
        self.n_built = 0
        self._takes, self._runs = takes, runs
        self._graph, self._shapes = b"", {}
        self.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=3)
        self.OnnxParser = lambda network, logger: SimpleNamespace(
            parse=self._parse, num_errors=1, get_error=lambda i: "no such operator"
        )
        self.Builder = lambda logger: SimpleNamespace(
            create_network=lambda flags: flags,
            create_builder_config=lambda: SimpleNamespace(add_optimization_profile=lambda profile: None),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self._set_shape),
            build_serialized_network=self._build,
        )
        self.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _parse(self, data: bytes) -> bool:
        self._graph = data
        return self._takes

    def _set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert len(set(shapes)) == 1, "an engine of one size"
        self._shapes[name] = tuple(shapes[0])

    def _build(self, network: Any, config: Any) -> bytes:
        self.n_built += 1
        return f"{self._shapes}\n".encode() + self._graph

    def _deserialize(self, content: bytes) -> Engine | None:
        shapes, _, graph = content.partition(b"\n")
        return Engine(graph, eval(shapes), is_able=self._runs) if graph else None


class Gpu:
    STREAM = 7
    kind = "a GPU 9.0"

    def run(self, enqueue: Callable[[int], bool]) -> bool:
        return enqueue(self.STREAM)


@pytest.fixture(autouse=True)
def engines(traced: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ONNX files are kept for all tests, engines for one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(traced))
    yield traced / "vidnoise" / "tensorrt"
    shutil.rmtree(traced / "vidnoise" / "tensorrt", ignore_errors=True)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakeTensorRT:
    package = FakeTensorRT(**options)
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    return package


def tensorrt(network: DenoiseNetwork, dtype: torch.dtype = torch.float32) -> TensorRT:
    return TensorRT(network, device=CPU, dtype=dtype, gpu=Gpu())


@pytest.fixture(scope="module")
def fast() -> DenoiseNetwork:
    return load_model("fast").network


@pytest.mark.parametrize(
    ("dtype", "blind", "through", "n_engines"),
    [
        (torch.float32, True, outputs, 1),
        (torch.float16, False, outputs, 1),
        pytest.param(torch.float32, True, both_ways, 3, marks=pytest.mark.slow),
        (torch.float32, False, both_ways, 2),
    ],
    ids=["blind", "told in halves", "both ways", "both ways, told"],
)
def test_agrees_with_eager_over_two_streams_and_a_cut(
    fake: FakeTensorRT, fast: DenoiseNetwork, dtype: torch.dtype, blind: bool, through: Any, n_engines: int
) -> None:
    found = through(tensorrt(fast, dtype), blind=blind)
    reference = through(open_backend("eager", fast, device=CPU, dtype=torch.float32), blind=blind)
    tolerance = tolerances.BACKEND_FP32 if dtype is torch.float32 else tolerances.BACKEND_BF16
    assert worst_rms(found, reference) <= tolerance
    for a, b in zip(found, reference, strict=True):
        torch.testing.assert_close(a.level, b.level, rtol=0.02, atol=0)
        assert [t.shape for t in a.state] == [t.shape for t in b.state]
    assert fake.n_built == n_engines


def test_an_engine_is_built_once_for_a_size_and_machine(
    fake: FakeTensorRT, fast: DenoiseNetwork, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(height: int = 32) -> None:
        backend = tensorrt(fast)
        state = backend.initial_state(1, height, 48)
        for _ in range(2):
            keep = torch.ones(1, dtype=torch.bool)
            state = backend.step(torch.rand(1, 3, height, 48), None, 1.0, keep, state).state

    step()
    step()
    assert fake.n_built == 1
    step(48)
    assert fake.n_built == 2
    monkeypatch.setattr(Gpu, "kind", "another GPU 8.9")
    step()
    assert fake.n_built == 3
    for path in engines.iterdir():
        path.write_bytes(b"of another TensorRT")  # which the runtime does not take
    step()
    assert fake.n_built == 4


def test_through_the_denoiser(fake: FakeTensorRT, fast: DenoiseNetwork) -> None:
    from support.streams import frames, values

    stream = frames(3, 36, 50)
    expected = [values(f) for f in Denoiser(fast, device="cpu", precision="fp32", backend="eager")(stream)]
    denoiser = Denoiser(fast, device="cpu", precision="fp32", backend=tensorrt(fast))
    found = [values(f) for f in denoiser(stream)]
    assert denoiser.backend_name == "tensorrt"
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1 / 255 + 1e-6  # where a sum rounds the other way


def test_what_cannot_be_is_one_line(fast: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match='needs a CUDA device, not cpu; use backend="auto"'):
        open_backend("tensorrt", fast, device=CPU, dtype=torch.float32)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="TensorRT is not installed: pip install tensorrt"):
        tensorrt(fast)
    monkeypatch.setattr(install(monkeypatch), "__version__", "8.6.1")
    with pytest.raises(BackendError, match=r"needs TensorRT 10 or newer, not 8\.6\.1"):
        tensorrt(fast)
    install(monkeypatch)
    with pytest.raises(BackendError, match='use precision="fp16"'):
        tensorrt(fast, torch.bfloat16)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"takes": False}, "cannot build the network.*no such operator"), ({"runs": False}, "failed to run a step")],
)
def test_what_fails_later_says_so(
    fast: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], text: str
) -> None:
    install(monkeypatch, **options)
    backend = tensorrt(fast)
    with pytest.raises(BackendError, match=text):
        backend.step(
            torch.rand(1, 3, 32, 48), None, 1.0, torch.ones(1, dtype=torch.bool), backend.initial_state(1, 32, 48)
        )


@pytest.mark.needs_cuda
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_the_device(dtype: torch.dtype) -> None:
    pytest.importorskip("tensorrt")
    device = torch.device("cuda:0")
    network = load_model("fast", device).network
    backend = open_backend("tensorrt", network, device=device, dtype=dtype)
    eager = open_backend("eager", network, device=device, dtype=dtype)
    states = [b.initial_state(1, 64, 96) for b in (backend, eager)]
    for i in range(4):
        noisy = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(i)).to(device)
        keep = torch.tensor([i != 2], device=device)
        results = [b.step(noisy, None, 1.0, keep, s) for b, s in zip((backend, eager), states, strict=True)]
        states = [r.state for r in results]
        apart = (results[0].clean - results[1].clean).square().mean().sqrt()
        assert apart <= (tolerances.BACKEND_FP32 if dtype is torch.float32 else tolerances.BACKEND_BF16) * 5
