"""Ways to run a network: all give what eager gives; auto chooses none that does not; what it knows is kept safely."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import vidnoise.backends.auto as auto
from support import tolerances
from support.backends import CPU, CUT, backend, both_ways, clip, given, outputs, worst_rms
from support.streams import frames, values
from vidnoise.backends import BACKENDS, open_backend, steady_backend
from vidnoise.backends.auto import Auto
from vidnoise.backends.measurements import Kind, Measurement, Measurements
from vidnoise.backends.protocol import Backend
from vidnoise.backends.window import Window
from vidnoise.cache import load, store
from vidnoise.cli import main
from vidnoise.errors import BackendError, UsageError
from vidnoise.kernels import cpu_operations
from vidnoise.kernels.cpu_operations import CpuOperations
from vidnoise.model import Denoised, DenoiseNetwork, Scout, State
from vidnoise.model.luma_chroma import rgb_to_bands
from vidnoise.model.operations import Operations
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

pytestmark = pytest.mark.usefixtures("backend_cache")


@pytest.fixture(scope="module")
def trained() -> DenoiseNetwork:
    """Its flow and levels make sense: those of a random network jump at the slightest rounding."""
    return load_model("fast").network


OTHERS = [
    pytest.param("openvino", torch.float32, tolerances.BACKEND_FP32),
    pytest.param("openvino", torch.bfloat16, tolerances.BACKEND_BF16),
    pytest.param("onnxruntime", torch.float32, tolerances.BACKEND_FP32),
    pytest.param("compile", torch.float32, tolerances.BACKEND_FP32, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]


def careful(found: list[Denoised], reference: list[Denoised], careless: list[Denoised], tolerance: float) -> None:
    """Agrees, by a tolerance that would not pass a backend that ignores cuts."""
    assert worst_rms(found, reference) <= tolerance
    for a, b in zip(found, reference, strict=True):
        torch.testing.assert_close(a.level, b.level, rtol=0.02, atol=0)
        assert [t.shape for t in a.state] == [t.shape for t in b.state]
    assert not torch.equal(reference[CUT].clean[1], careless[CUT].clean[1])
    assert worst_rms(careless, reference) > tolerance


@pytest.mark.parametrize(
    ("blind", "through"),
    [(True, outputs), (True, both_ways), (False, outputs), pytest.param(False, both_ways, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(("name", "dtype", "tolerance"), OTHERS)
def test_agrees_with_eager_over_two_streams_and_a_cut(
    trained: DenoiseNetwork,
    name: str,
    dtype: torch.dtype,
    tolerance: float,
    blind: bool,
    through: Any,
) -> None:
    network = trained
    single: Any = nullcontext()
    if name == "compile":  # without the threads that compile, which stay
        from torch._inductor import config  # takes a second to import

        single = config.patch(compile_threads=1)  # pyright: ignore[reportAttributeAccessIssue]
    with single:
        other = backend(name, network, dtype)
        reference = through(open_backend("eager", network, device=CPU, dtype=dtype), blind=blind)
        found = through(other, blind=blind)
    careful(found, reference, through(_Careless(network), blind=blind), tolerance)


class _Careless:
    """Eager, but for the cuts."""

    name = "careless"

    def __init__(self, network: DenoiseNetwork) -> None:
        self._eager = open_backend("eager", network, device=CPU, dtype=torch.float32)
        self.initial_state, self.initial_scout = self._eager.initial_state, self._eager.initial_scout

    def step(self, noisy: Any, sigma: Any, boost: Any, keep: torch.Tensor, state: State) -> Denoised:
        return self._eager.step(noisy, sigma, boost, torch.ones_like(keep), state)

    def measure(self, noisy: Any, sigma: Any, keep: torch.Tensor, state: State) -> Any:
        return self._eager.measure(noisy, sigma, torch.ones_like(keep), state)

    def look(self, noisy: Any, level: Any, boost: Any, keep: torch.Tensor, scout: Scout) -> Any:
        return self._eager.look(noisy, level, boost, torch.ones_like(keep), scout)

    def smooth(self, noisy: Any, level: Any, boost: Any, keep: torch.Tensor, state: State, future: Any) -> Denoised:
        return self._eager.smooth(noisy, level, boost, torch.ones_like(keep), state, future)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_openvino_takes_the_cores_input_as_it_lies(trained: DenoiseNetwork, dtype: torch.dtype) -> None:
    """In channels-last layout and either type, on CPUs without bf16 too."""
    backend("openvino", trained)
    from vidnoise.backends.openvino import Core

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 45, 16, 24, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    hidden = torch.randn(2, trained.config.hidden, 8, 12, generator=generator).clamp(-1, 1)
    with torch.inference_mode():
        expected = trained.in_precision(dtype).core(inputs, hidden)
        found = Core(trained, dtype)(inputs, hidden)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype is torch.float32
        assert (a - b.float()).square().mean().sqrt() < (1e-5 if dtype is torch.float32 else 0.02) * b.float().std()


TWO_IN_TURN = """
import signal, torch
from vidnoise.backends import open_backend
from vidnoise.export.openvino import openvino_core
from vidnoise.model import DenoiseNetwork, ModelConfig

network = DenoiseNetwork(ModelConfig((8, 8, 8), (0, 1, 1, 0, 0), 4)).eval()
first, second = (open_backend("openvino", network, device=torch.device("cpu"), dtype=torch.float32) for _ in range(2))
openvino_core().get_property("CPU", "FULL_DEVICE_NAME")  # starts the plugin, as compiling does, but at once
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("ended as asked")
"""


@pytest.mark.slow
def test_ctrl_c_after_several_openvino_backends(network: DenoiseNetwork) -> None:
    """Each used to take the last one's stack for signals with it, and the next signal crashed the process."""
    backend("openvino", network)
    found = subprocess.run([sys.executable, "-c", TWO_IN_TURN], capture_output=True, text=True, timeout=110)
    assert (found.returncode, found.stdout) == (0, "ended as asked\n"), found.stderr


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_odd_sizes_strength_and_cuts_through_the_denoiser(trained: DenoiseNetwork, name: str) -> None:
    backend(name, trained)
    stream = frames(3, 33, 47)
    every: list[dict[str, Any]] = [{"sigma": None, "strength": 1.5}]
    if name == "onnxruntime":  # OpenVINO takes seconds to compile for each of these
        stream += frames(2, 20, 70, seed=5)
        every.append({"sigma": 13})
    for options in every:
        runs = [
            [values(f) for f in Denoiser(trained, device="cpu", precision="fp32", backend=b, **options)(stream)]
            for b in ("eager", name)
        ]
        for a, b in zip(*runs, strict=True):
            assert float((a - b).square().mean().sqrt()) <= tolerances.BACKEND_FP32


def test_a_state_goes_from_backend_to_backend(trained: DenoiseNetwork) -> None:
    first = open_backend("eager", trained, device=CPU, dtype=torch.float32)
    second = backend("onnxruntime", trained)
    reference = outputs(first, blind=True)
    state = first.initial_state(2, 32, 48)
    for i, (noisy, keep) in enumerate(clip()):
        result = (first, second)[i % 2].step(noisy, *given(True, 2), keep, state)
        state = result.state
        assert float((result.clean - reference[i].clean).square().mean().sqrt()) <= tolerances.BACKEND_FP32


def test_what_is_seen_ahead_goes_from_backend_to_backend(trained: DenoiseNetwork) -> None:
    pair = open_backend("eager", trained, device=CPU, dtype=torch.float32), backend("onnxruntime", trained)

    class Turns:
        """Each call goes to the other one."""

        name, calls = "turns", 0

        def __getattr__(self, name: str) -> Any:
            self.calls += 1
            return getattr(pair[self.calls % 2], name)

    found, reference = (both_ways(b, blind=True) for b in (Turns(), pair[0]))
    assert worst_rms(found, reference) <= tolerances.BACKEND_FP32


def test_streams_in_a_batch_are_as_alone(trained: DenoiseNetwork) -> None:
    eager = open_backend("eager", trained, device=CPU, dtype=torch.float32)
    both = outputs(eager, blind=True)
    state = eager.initial_state(1, 32, 48)
    for i, (noisy, keep) in enumerate(clip()):
        result = eager.step(noisy[1:], None, given(True, 2)[1][1:], keep[1:], state)
        state = result.state
        torch.testing.assert_close(result.clean, both[i].clean[1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_what_is_not_installed_says_what_to_install(
    network: DenoiseNetwork, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=rf"pip install 'vidnoise\[{name}\]'"):
        open_backend(name, network, device=CPU, dtype=torch.float32)


def test_compile_without_a_compiler_says_so(network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendError, match=r'needs a C\+\+ compiler .* use backend="eager"'):
        open_backend("compile", network, device=CPU, dtype=torch.float32)


def test_what_a_backend_cannot_do_is_refused(network: DenoiseNetwork) -> None:
    with pytest.raises(UsageError, match="unknown backend 'openvin'; did you mean 'openvino'"):
        open_backend("openvin", network, device=CPU, dtype=torch.float32)
    for name, device, dtype in (("openvino", "meta", torch.float32), ("onnxruntime", "cpu", torch.bfloat16)):
        backend(name, network)
        with pytest.raises(BackendError, match=r'device="cpu"|precision="fp32"'):
            open_backend(name, network, device=torch.device(device), dtype=dtype)


@pytest.mark.parametrize("streams", [1, 2])
def test_operations_for_cpus_are_the_plain_ones(
    trained: DenoiseNetwork, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    plain, fast = Operations(), CpuOperations()
    state = State(*(torch.rand(t.shape, generator=generator) for t in trained.initial_state(streams, 48, 80)))
    flow = torch.nn.functional.interpolate(6 * torch.randn(streams, 2, 3, 5, generator=generator), size=(24, 40))
    known = torch.arange(streams) > 0
    for memory in (state, state.memory, state.track, Scout(state.fused, state.ratio)):
        assert fast.reset_unless(memory, torch.ones(streams, dtype=torch.bool)) is memory
        for a, b in zip(fast.reset_unless(memory, known), plain.reset_unless(memory, known), strict=True):
            assert torch.equal(a, b)

    def moved(operations: Operations) -> list[torch.Tensor]:
        pictures, ratio = operations.warp_state((state.fused, state.clean), state.ratio, flow)
        return [*pictures, ratio]

    for _ in range(2):  # what is remembered within a frame must not last longer
        noisy = torch.rand(streams, 3, 48, 80, generator=generator)
        torch.testing.assert_close(fast.rgb_to_bands(noisy), plain.rgb_to_bands(noisy), rtol=0, atol=1e-6)
        for a, b in zip(moved(fast), moved(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerances.REMAP)
        assert fast.rgb_to_bands(noisy) is fast.rgb_to_bands(noisy)
        bands, remembered, residual = (torch.randn(streams, 12, 24, 40, generator=generator) for _ in range(3))
        left = torch.rand(streams, 6, 24, 40, generator=generator)
        torch.testing.assert_close(fast.bands_to_rgb(bands), plain.bands_to_rgb(bands), rtol=0, atol=1e-5)
        found, expected = (o.remove_noise(bands, left, residual, remembered) for o in (fast, plain))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    monkeypatch.setattr(cpu_operations, "_EXACT_REMAP", False)
    for a, b in zip(moved(fast), moved(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_averages_for_cpus_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    plain, fast = Operations(), CpuOperations()
    x = torch.rand(2, 3, 24, 40, generator=generator)
    for size in (3, 5, 9):
        torch.testing.assert_close(fast.box_filter(x, size), plain.box_filter(x, size), rtol=0, atol=1e-6)
    for factor in (1, 2, 4):
        torch.testing.assert_close(fast.downsample(x, factor), plain.downsample(x, factor), rtol=0, atol=1e-6)
    flow = torch.nn.functional.interpolate(6 * torch.randn(2, 2, 3, 5, generator=generator), size=(24, 40))
    torch.testing.assert_close(fast.warp(x, flow), plain.warp(x, flow), rtol=0, atol=tolerances.REMAP)
    monkeypatch.setattr(cpu_operations, "_EXACT_REMAP", False)
    assert torch.equal(fast.warp(x, flow), plain.warp(x, flow))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_of_pixels_for_cpus_are_the_plain_ones(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_operations, "_PIECE", 7 * 40)  # the last piece has fewer rows
    generator = torch.Generator().manual_seed(0)
    a, b, one = (torch.rand(2, c, 24, 40, generator=generator) for c in (12, 12, 1))

    def function(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x[:, :3] + y[:, 3:6], (x * y).log(), z

    plain, fast = Operations(), CpuOperations()
    layer = torch.nn.Conv2d(16, 4, 3).to(dtype)
    found, expected = (p.pointwise_input(function, (a, b, one), layer) for p in (fast, plain))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for found, expected in zip(*(p.pointwise(function, (a, b, one)) for p in (fast, plain)), strict=True):
        assert torch.equal(found, expected)


def test_flat_places_for_cpus_are_the_plain_ones() -> None:
    noisy = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    noisy[0, :, :12] = 0  # a bar
    noisy[0, :, 30:40, 50:60] = 0.5  # as small as is flat
    noisy[0, :, 30:38, 80:88] = 0.5  # smaller
    noisy[1, :, 58:, 90:] = 1  # in a corner
    bands = rgb_to_bands(noisy)
    found, expected = (o.flat_mask(bands) for o in (CpuOperations(), Operations()))
    assert torch.equal(found, expected)
    assert [bool(picture.any()) for picture in found] == [True, True, False]


def test_every_name_has_a_class() -> None:
    import importlib

    for path in BACKENDS.values():
        module, _, name = path.partition(":")
        assert hasattr(importlib.import_module(module), name)


class _Fake:
    """Eager with a name, a delay that it reports nowhere, and pictures that are off by a little."""

    def __init__(self, network: DenoiseNetwork, name: str, error: float = 0.0) -> None:
        self.name = name
        self.error = error
        self.n_steps = 0
        self._eager = open_backend("eager", network, device=CPU, dtype=torch.float32)
        self.initial_state, self.initial_scout = self._eager.initial_state, self._eager.initial_scout
        self.measure, self.look = self._eager.measure, self._eager.look

    def step(self, *arguments: Any) -> Denoised:
        self.n_steps += 1
        result = self._eager.step(*arguments)
        return result._replace(clean=result.clean + self.error)

    def smooth(self, *arguments: Any) -> Denoised:
        self.n_steps += 1
        result = self._eager.smooth(*arguments)
        return result._replace(clean=result.clean + self.error)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Trials at the second frame, on a clock by which a step takes what the test says."""
    costs = {"eager": 0.100, "swift": 0.010, "wrong": 0.001, "slow": 0.2, "near": 0.098}
    monkeypatch.setattr(auto, "TRIAL_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(auto, "TRIAL_AFTER_FRAMES", 1)
    return costs


def make_auto(network: DenoiseNetwork, costs: dict[str, float], *names: str) -> tuple[Auto, dict[str, _Fake]]:
    """An ``Auto`` among fakes."""
    clock = auto.time = _Clock()  # type: ignore[assignment]
    opened: dict[str, _Fake] = {}

    def open_fake(name: str) -> _Fake:
        fake = opened[name] = _Fake(network, name, error=0.01 if name == "wrong" else 0.0)
        shares = {"step": 1.0, "measure": 0.2, "look": 0.3, "smooth": 0.5}

        def at_a_cost(call: str, share: float) -> Any:
            plain = getattr(fake, call)

            def costly(*arguments: Any) -> Any:
                clock.now += share * costs[name]
                return plain(*arguments)

            return costly

        for call, share in shares.items():
            setattr(fake, call, at_a_cost(call, share))
        return fake

    measurements = Measurements(network, CPU, torch.float32)
    made = Auto(
        network, device=CPU, dtype=torch.float32, open=open_fake, candidates=names, measurements=measurements
    )  # fmt: skip
    return made, opened


class _Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _real_clock() -> Iterator[None]:
    real = auto.time
    yield
    auto.time = real


def go(backend: Backend, n: int = 6) -> list[str]:
    """The names that it has frame by frame."""
    state, names = backend.initial_state(2, 32, 48), []
    for noisy, keep in clip(n):
        state = backend.step(noisy, None, 1.0, keep, state).state
        names.append(backend.name)
    return names


def go_both_ways(backend: Backend, n: int = 6) -> list[str]:
    """The same, looked through both ways."""
    window, names = Window[None](backend, 2), []
    for noisy, keep in clip(n):
        list(window.push(None, noisy, None, 1.0, keep))
        names.append(backend.name)
    return names


@pytest.mark.parametrize("going", [go, go_both_ways])
def test_auto_goes_over_to_the_fastest_that_agrees(
    network: DenoiseNetwork, impatient: dict[str, float], caplog: pytest.LogCaptureFixture, going: Any
) -> None:
    made, opened = make_auto(network, impatient, "slow", "wrong", "swift")
    with caplog.at_level(logging.INFO, "vidnoise"):
        # A window is denoised with its third frame; what measuring alone takes is too little for a trial.
        assert going(made) == (["eager"] + ["swift"] * 5 if going is go else ["eager"] * 3 + ["swift"] * 3)
    assert opened["wrong"].n_steps == opened["slow"].n_steps == auto.STEPS + 1, "each frame once"
    assert "wrong is not used" in caplog.text
    assert "swift from here on: 10 ms a frame where eager takes 100" in caplog.text


@pytest.mark.parametrize("names", [("wrong",), ("slow",), ("near",), ()])
def test_auto_stays_where_nothing_better_agrees(
    network: DenoiseNetwork, impatient: dict[str, float], names: tuple[str, ...]
) -> None:
    assert go(make_auto(network, impatient, *names)[0]) == ["eager"] * 6


@pytest.mark.parametrize(("cost", "taken"), [(0.009, "openvino:int8"), (0.0099, "swift")])
def test_auto_takes_int8_only_if_it_gains_on_all_others(
    network: DenoiseNetwork, impatient: dict[str, float], cost: float, taken: str
) -> None:
    impatient[auto.IN_INT8] = cost
    assert go(make_auto(network, impatient, "swift", auto.IN_INT8)[0]) == ["eager"] + [taken] * 5


def test_auto_tries_nothing_in_short_streams(network: DenoiseNetwork, impatient: dict[str, float]) -> None:
    auto.TRIAL_AFTER_SECONDS = 10.0
    made, opened = make_auto(network, impatient, "swift")
    assert go(made) == ["eager"] * 6
    assert list(opened) == ["eager"]


def test_auto_does_not_measure_twice(network: DenoiseNetwork, impatient: dict[str, float]) -> None:
    go(make_auto(network, impatient, "swift", "slow")[0])
    made, opened = make_auto(network, impatient, "swift", "slow")
    assert go(made)[-1] == "swift"
    assert set(opened) == {"eager", "swift"}
    assert opened["swift"].n_steps <= 6  # those of the stream, none of a trial
    torch.set_num_threads(2)  # another number of threads is another question
    try:
        made, opened = make_auto(network, impatient, "swift", "slow")
        go(made)
        assert "slow" in opened
    finally:
        torch.set_num_threads(1)


def test_auto_measures_each_way_for_itself(network: DenoiseNetwork, impatient: dict[str, float]) -> None:
    go(make_auto(network, impatient, "swift")[0])
    made, opened = make_auto(network, impatient, "swift")
    assert go_both_ways(made)[-1] == "swift"
    assert opened["swift"].n_steps > auto.STEPS  # a trial of its own
    made, opened = make_auto(network, impatient, "swift")
    assert go_both_ways(made)[-1] == "swift"
    assert opened["swift"].n_steps <= 6


def test_auto_waits_until_a_start_is_worth_it(network: DenoiseNetwork, impatient: dict[str, float]) -> None:
    made, _ = make_auto(network, impatient, "swift")
    measurements = Measurements(network, CPU, torch.float32)
    known = Measurement("swift", {"eager": 100, "swift": 10}, {"swift": 0.04}, {"swift": 0.0})
    measurements.keep(Kind(torch.Size((2, 3, 32, 48)), blind=True, both_ways=False), known)
    made, _ = make_auto(network, impatient, "swift")
    assert go(made, 7) == ["eager"] * 4 + ["swift"] * 3  # 0.4 s, ten times as long as the start takes


def test_auto_survives_a_candidate_that_fails(network: DenoiseNetwork, impatient: dict[str, float]) -> None:
    made, _ = make_auto(network, impatient, "swift", "unheard-of")  # a KeyError in its first step
    assert go(made)[-1] == "swift"


ENTRIES = [
    {"best": "swift"},
    {"best": "swift", "ms": {"eager": "100", "swift": 10}},
    {"best": ["swift"], "ms": {"eager": 100, "swift": 10}},
    {"best": "swift", "ms": [100, 10]},
    {"best": "swift", "ms": {"eager": 100, "swift": 10}, "start_seconds": {"swift": None}},
    {"best": "swift", "ms": {"eager": float("nan"), "swift": 10}},
    7,
]
"""What entries of the cache may be, beside what they should be."""


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"x": 3}', b"[" * 100_000, *ENTRIES], ids=lambda c: str(c)[:20]
)
def test_a_damaged_cache_is_as_none(network: DenoiseNetwork, impatient: dict[str, float], content: Any) -> None:
    if not isinstance(content, bytes):
        go(make_auto(network, impatient, "swift")[0], 3)
        content = json.dumps(dict.fromkeys(json.loads(load("backends") or b""), content)).encode()
    store("backends", content)
    assert go(make_auto(network, impatient, "swift")[0], 3)[-1] == "swift"
    known = json.loads(load("backends") or b"")
    assert "swift" in [entry["best"] for entry in known.values() if isinstance(entry, dict)]


def test_a_cache_that_cannot_be_written_does_no_harm(
    network: DenoiseNetwork, impatient: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "locked").mkdir(mode=0o500)
    for name in ("file", "locked"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        assert go(make_auto(network, impatient, "swift")[0], 3)[-1] == "swift"


@pytest.mark.parametrize("fails_in", ["its start", "its first step", "a later step"])
def test_a_measured_backend_that_fails_is_left_aloud(
    network: DenoiseNetwork, impatient: dict[str, float], caplog: pytest.LogCaptureFixture, fails_in: str
) -> None:
    go(make_auto(network, impatient, "swift")[0])
    made, _ = make_auto(network, impatient, "swift")
    opener, n_steps = made._open, 0

    def broken(name: str) -> Backend:
        if name == "eager":
            return opener(name)
        if fails_in == "its start":
            raise RuntimeError("an empty graph")
        fake = opener(name)
        plain = fake.step

        def step(*arguments: Any) -> Denoised:
            nonlocal n_steps
            n_steps += 1
            if fails_in == "its first step" or n_steps == 3:
                raise RuntimeError("an empty graph")
            return plain(*arguments)

        fake.step = step  # type: ignore[method-assign]
        return fake

    made._open = broken
    names = go(made)
    assert names[-1] == "eager"
    assert ("swift" in names) == (fails_in == "a later step")
    assert caplog.text.count("swift, the fastest here, does not run any more; going on with eager: an empty graph") == 1


def test_live_streams_never_pause_for_a_trial() -> None:
    assert steady_backend("auto", CPU) == "eager"
    assert steady_backend("openvino", CPU) == "openvino"


def test_a_run_says_how_the_network_ran(
    trained: DenoiseNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ``--precision auto`` is what the backend can do."""
    backend("onnxruntime", trained)
    statistics = tmp_path / "run.json"
    video = ["lavfi:testsrc2=size=64x48:rate=25:duration=0.2", "-o", str(tmp_path / "out.mkv"), "--model", "fast"]
    assert main([*video, "--device", "cpu", "--backend", "onnxruntime", "--json", str(statistics)]) == 0
    found = json.loads(statistics.read_text())
    assert (found["backend"], found["precision"], found["frames_out"]) == ("onnxruntime", "float32", 5)
    assert "model fast on cpu by onnxruntime" in capsys.readouterr().err
    assert main([*video, "-y", "--device", "cpu", "--backend", "openvin"]) == 2
    assert "did you mean 'openvino'" in capsys.readouterr().err
