"""The Triton kernels against the PyTorch operations that they stand for.

With a GPU they run on it; without one Triton's interpreter runs them on the CPU (see conftest.py), which checks
everything but the compiler's own work.
"""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from support import tolerances
from support.frames import make_frame
from support.paths import TESTS
from support.planes import assert_same_codes
from vidnoise import kernels
from vidnoise.errors import UsageError
from vidnoise.frame import Frame
from vidnoise.kernels import conversion
from vidnoise.model import DenoiseNetwork, Scout, State
from vidnoise.model.luma_chroma import bands_to_rgb, rgb_to_bands
from vidnoise.model.operations import Operations
from vidnoise.model.state import UNKNOWN, NoiseMemory, Track, reset_unless
from vidnoise.model.warp import outside, resize_flow, sampling_grid, warp
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

pytest.importorskip("triton")
bands, planes_in, planes_out, warping = (
    importlib.import_module(f"vidnoise.kernels.{name}") for name in ("bands", "planes_in", "planes_out", "warp")
)
CudaOperations = importlib.import_module("vidnoise.kernels.cuda_operations").CudaOperations


def on_device(frame: Frame) -> Frame:
    return replace(frame, planes=tuple(p.to(DEVICE) for p in frame.planes))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def test_pictures_to_bands_and_back() -> None:
    image = noise(2, 3, 22, 34)
    found = bands.rgb_to_bands(image)
    torch.testing.assert_close(found, rgb_to_bands(image), rtol=0, atol=tolerances.KERNEL_BANDS)
    torch.testing.assert_close(bands.bands_to_rgb(found), image, rtol=0, atol=tolerances.KERNEL_BANDS)
    out = torch.empty_like(image)
    assert bands.bands_to_rgb(found, out=out) is out
    torch.testing.assert_close(out, bands_to_rgb(found), rtol=0, atol=tolerances.KERNEL_BANDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_smoothed", [False, True])
def test_bands_to_pictures(dtype: torch.dtype, is_smoothed: bool) -> None:
    """What is remembered is what the picture is made of, or not, when that was smoothed."""
    source, left = noise(2, 12, 9, 21), noise(2, 6, 9, 21, seed=1).abs()
    remembered = noise(2, 12, 9, 21, seed=3) if is_smoothed else source
    residual = noise(2, 12, 9, 21, seed=2).to(dtype).to(memory_format=torch.channels_last)
    clean, fused = torch.empty(2, 3, 18, 42, device=DEVICE), torch.empty(2, 3, 18, 42, device=DEVICE)
    results = bands.remove_noise(source, left, residual, remembered, clean=clean, fused=fused)
    assert [r.data_ptr() for r in results] == [clean.data_ptr(), fused.data_ptr()]
    expected = Operations().remove_noise(source, left, residual, remembered)
    for a, b in zip(results, expected[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerances.KERNEL_BANDS)


FLOWS = {
    "still": lambda turning: 0 * turning,
    "turning": lambda turning: turning,
    "beyond the edges": lambda turning: turning * 6 + 4,
    "wild": lambda turning: turning * 1e12,
    "jitter": lambda turning: 0.3 * noise(*turning.shape),
}


def flow_and_picture(name: str, channels: int, scale: int) -> tuple[Tensor, Tensor]:
    """A flow, and what to warp by it, ``scale`` times as high and as wide."""
    # Two streams and more than one block of rows, once: the interpreter takes its time for each block.
    n, h, w = (2, 5, 12) if name == "turning" else (1, 4, 12)
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    turning = torch.stack([-3 * y, 3 * x]).expand(n, 2, h, w).to(DEVICE)
    return FLOWS[name](turning).contiguous(), noise(n, channels, h * scale, w * scale)


@pytest.mark.parametrize("name", FLOWS)
def test_warped_bands(name: str) -> None:
    flow, image = flow_and_picture(name, 3, 2)
    expected = rgb_to_bands(warp(image, sampling_grid(resize_flow(flow, 2)), mode="bicubic"))
    torch.testing.assert_close(warping.warp_bands(image, flow), expected, rtol=0, atol=tolerances.KERNEL_WARP)


@pytest.mark.parametrize("name", FLOWS)
def test_warped_ratio(name: str) -> None:
    flow, ratio = flow_and_picture(name, 4, 1)
    ratio = ratio.abs()
    grid = sampling_grid(flow)
    expected = warp(ratio, grid) + UNKNOWN * outside(grid)
    found = warping.warp_ratio(ratio, flow, UNKNOWN)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=tolerances.KERNEL_WARP)


def test_forgetting_leaves_the_other_streams_as_they_are() -> None:
    state = noise(3, 13, 11, 9)
    kept = state.clone()
    warping.reset(state, torch.tensor([True, False, True], device=DEVICE), UNKNOWN)
    assert torch.equal(state[::2], kept[::2])
    assert torch.equal(state[1], torch.full_like(state[1], UNKNOWN))
    with pytest.raises(ValueError, match="in place"):
        warping.reset(state.transpose(1, 2), torch.ones(3, dtype=torch.bool, device=DEVICE), 0.0)


@pytest.mark.parametrize(("name", "options"), [("yuv420p", {}), ("p010le", {"luma": 0.5}), ("rgb24", {"strength": 0})])
def test_a_denoiser_uses_them(name: str, options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def noted(function: Callable) -> Callable:
        return lambda *args, **kwargs: (used.append(function.__name__), function(*args, **kwargs))[1]

    monkeypatch.setattr(planes_in, "to_rgb", noted(planes_in.to_rgb))
    monkeypatch.setattr(planes_out, "apply_correction", noted(planes_out.apply_correction))
    monkeypatch.setattr(conversion, "kernels_in_use", lambda: None)  # those compiled for the CPU
    outputs = []
    for on in (True, False):
        monkeypatch.setattr(conversion, "enabled", lambda device, on=on: on)
        denoiser = Denoiser("fast", device=DEVICE, precision="fp32", backend="eager", **options)
        outputs.append([f for i in range(2) for f in denoiser.push(on_device(make_frame(name, 18, 37, seed=i)))])
    assert used == ["to_rgb", "apply_correction"] * 2
    for a, b in zip(*outputs, strict=True):
        assert_same_codes(a, b)


def memories() -> Iterator[Any]:
    """One of each kind that the network forgets, of three streams."""
    shapes = {"fused": 3, "ratio": 4, "clean": 3, "hidden": 5, "noise": 13, "past": 12}
    for kind in (NoiseMemory, Track, State, Scout):
        yield kind(**{name: noise(3, shapes[name], 4, 6) for name in kind._fields})


@pytest.mark.parametrize("memory", list(memories()), ids=lambda memory: type(memory).__name__)
def test_every_memory_is_forgotten_as_the_network_does(memory: Any) -> None:
    known = torch.tensor([True, False, True], device=DEVICE)
    expected = reset_unless(memory, known)
    found = CudaOperations().reset_unless(memory, known)
    assert type(found) is type(memory)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def fused_network(plain: DenoiseNetwork, clean: Tensor | None, fused: Tensor) -> DenoiseNetwork:
    network = copy.copy(plain)
    network.operations = CudaOperations(clean=clean, fused=fused)
    return network


def assert_near(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=tolerances.KERNEL_STEP)


@pytest.mark.slow
def test_a_step_of_the_network() -> None:
    """Three frames with a cut before the last, two streams, into the buffers that the state lies in."""
    plain = load_model("fast", DEVICE).network
    ours, theirs = (plain.initial_state(2, 16, 32, device=DEVICE) for _ in range(2))
    network = fused_network(plain, ours.clean, ours.fused)
    picture = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    with torch.inference_mode():
        for i in range(3):
            noisy = picture.roll(i, 3) + 0.1 * noise(2, 3, 16, 32, seed=i)
            known = torch.tensor([True, i != 2], device=DEVICE)
            found = network.step(noisy, None, 1.0, known, ours)
            expected = plain.step(noisy, None, 1.0, known, theirs)
            theirs = expected.state
            assert found.clean.data_ptr() == ours.clean.data_ptr()
            assert_near((found.level, *found.state), (expected.level, *theirs))
            for target, source in zip(ours, found.state, strict=True):
                target.copy_(source)


@pytest.mark.slow
def test_a_look_ahead_and_what_follows_from_it() -> None:
    """Two frames, the second of which one stream cannot be told from."""
    plain = load_model("fast", DEVICE).network
    picture = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    frames = [picture.roll(i, 3) + 0.1 * noise(2, 3, 16, 32, seed=i) for i in range(2)]
    follows = [torch.zeros(2, dtype=torch.bool, device=DEVICE), torch.tensor([True, False], device=DEVICE)]
    boost = torch.tensor([[1.0, 1.5], [1.2, 1.0]], device=DEVICE)
    with torch.inference_mode():
        results = []
        for is_fused in (True, False):
            state, scout = plain.initial_state(2, 16, 32, device=DEVICE), plain.initial_scout(2, 16, 32, device=DEVICE)
            looking = fused_network(plain, None, scout.fused) if is_fused else plain
            smoothing = fused_network(plain, state.clean, state.fused) if is_fused else plain
            levels = []
            for frame in frames:
                level, state = smoothing.measure(frame, None, follows[1], state)
                levels.append(level)
            for frame, level, known in zip(frames[::-1], levels[::-1], follows, strict=True):
                future, scout = looking.look(frame, level, boost, known, scout)
            result = smoothing.smooth(frames[0], levels[0], boost, follows[0], state, future)
            results.append((*levels, *future, *scout, result.clean, result.level, *result.state))
        assert_near(*results)


def test_the_bands_of_a_frame_are_made_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = importlib.import_module("vidnoise.kernels.cuda_operations")
    made: list[Tensor] = []
    monkeypatch.setattr(operations, "rgb_to_bands", lambda image: made.append(image) or image * 2)
    monkeypatch.setattr(operations, "reset", lambda *_: None)
    monkeypatch.setattr(operations, "remove_noise", lambda *_, **__: (None, None))
    monkeypatch.setattr(operations, "bands_to_rgb", lambda *_, **__: None)
    fused = operations.CudaOperations()
    state, known = State(*torch.zeros(6, 1)), torch.ones(1, dtype=torch.bool)
    frame, other = torch.rand(2, 1)
    steps: list[tuple[tuple[Any, ...], Callable[[], object]]] = [
        ((state.memory, state.track), lambda: fused.remove_noise(*torch.zeros(4, 1))),
        ((Scout(*torch.zeros(2, 1)),), lambda: fused.bands_to_rgb(torch.zeros(1))),
        ((state.track,), lambda: fused.remove_noise(*torch.zeros(4, 1))),
    ]
    for count, (memories, end) in enumerate(steps, 1):
        frame += 1  # in place, as in a buffer
        for memory in memories:
            fused.reset_unless(memory, known)
            assert torch.equal(fused.rgb_to_bands(frame), frame * 2)
        assert torch.equal(fused.rgb_to_bands(other), other * 2)
        end()
        assert len(made) == 2 * count


def test_where_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    monkeypatch.delenv("VIDNOISE_KERNELS", raising=False)
    assert kernels.enabled(cuda)
    assert not kernels.enabled(cpu)
    monkeypatch.setenv("VIDNOISE_KERNELS", "off")
    assert not kernels.enabled(cuda)
    monkeypatch.setenv("VIDNOISE_KERNELS", "of")
    with pytest.raises(UsageError, match="VIDNOISE_KERNELS must be on or off, got 'of'"):
        kernels.enabled(cuda)
    assert kernels.takes(make_frame("yuv420p", 4, 4))
    assert not kernels.takes(make_frame("gbrpf32le", 4, 4))


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu() -> None:
    """The compiler needs no GPU, but a process in which the interpreter was never switched on."""
    program = TESTS / "support" / "compile_kernels.py"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, env=environment, timeout=110)
    assert done.returncode == 0, done.stderr
    names = {line.partition(":")[0] for line in done.stdout.splitlines()}
    pictures = {"_rgb_to_bands", "_bands_to_rgb", "_remove_noise", "_planes_to_rgb", "_apply"}
    assert names == pictures | {"_warp_bands", "_warp_ratio", "_reset"}
