"""The compiled kernels for the CPU equal the plain operations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support import tolerances
from support.networks import noisy_frames
from vidnoise.backends.eager import Eager
from vidnoise.kernels import library as libraries
from vidnoise.kernels.compile import CompileError, compile_kernels, library_name
from vidnoise.kernels.convolution import is_suitable, weights_of
from vidnoise.kernels.cpu_operations import CpuOperations
from vidnoise.kernels.library import Library, library
from vidnoise.kernels.native_operations import FORMS, NativeOperations, operations_for_cpu
from vidnoise.model.fusion import TemporalFusion, filtered, misalignment_evidence, smoothed
from vidnoise.model.network import LOCAL, core_input, remaining_level
from vidnoise.model.noise_level import NoiseLevel, affine_level, noise_evidence
from vidnoise.model.operations import Operations, Window
from vidnoise.weights import load_model

KERNELS = library()
needs_kernels = pytest.mark.skipif(
    KERNELS is None, reason="no compiled kernels: no C compiler at installation, or no AVX2"
)
SIZES = [(16, 24), (56, 72), (48, 200)]
"""Heights and widths of bands: below one block of pixels, not a multiple of it, and several."""


@pytest.fixture(params=SIZES, ids=str)
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    torch.manual_seed(0)
    return request.param


def compared(work: Callable[[Operations], Tensor | Sequence[Tensor]], atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Compare what ``work`` returns with plain operations and with the kernels, on one thread and on two."""
    assert KERNELS is not None
    threads = torch.get_num_threads()
    with torch.inference_mode():
        expected = work(Operations())
        for n in (1, 2):
            torch.set_num_threads(n)
            try:
                found = work(NativeOperations(KERNELS))
            finally:
                torch.set_num_threads(threads)
            for a, b in zip(*((t,) if isinstance(t, Tensor) else t for t in (found, expected)), strict=True):
                torch.testing.assert_close(a, b, atol=atol, rtol=rtol, check_stride=False)


@needs_kernels
def test_bands(size: tuple[int, int]) -> None:
    h, w = size
    rgb, bands, fused = torch.rand(2, 3, 2 * h, 2 * w), torch.randn(2, 12, h, w), torch.randn(2, 12, h, w)
    remaining = torch.rand(2, 6, h, w)
    residual = torch.randn(2, h, w, 12).permute(0, 3, 1, 2)  # as convolutions return it
    compared(lambda o: o.rgb_to_bands(rgb))
    compared(lambda o: o.bands_to_rgb(bands))
    compared(lambda o: o.brightness(rgb))
    for dtype in (torch.float32, torch.bfloat16):
        found = residual.to(dtype)
        compared(lambda o, found=found: o.remove_noise(bands, remaining, found, fused))


@needs_kernels
@pytest.mark.parametrize("part", [slice(None), slice(1, 2), slice(0, 1)], ids=["batch", "second", "first"])
def test_remembered_pictures_are_warped_from_where_they_were_left(part: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result as copies of them; what only looks like them is copied."""
    h, w = 22, 50
    ratio, flow = torch.rand(2, 4, h, w)[part], 3 * torch.randn(2, 2, h, w)[part]
    ran: list[str] = []
    run = KERNELS.run if KERNELS else None
    monkeypatch.setattr(KERNELS, "run", lambda name, *a, **k: ran.append(name) or run(name, *a, **k))  # type: ignore[misc]
    operations = NativeOperations(KERNELS)  # type: ignore[arg-type]
    inputs = torch.randn(2, 12, h, w), torch.rand(2, 6, h, w), torch.randn(2, h, w, 12).permute(0, 3, 1, 2)
    clean, fused, previous = (p[part] for p in operations.remove_noise(*inputs, torch.randn(2, 12, h, w)))
    scout = operations.bands_to_rgb(torch.randn(2, 12, h, w))[part]
    assert torch.equal(clean, previous)
    assert torch.equal(operations.brightness(previous), operations.brightness(clean))
    for pictures in ((fused, previous), (scout,)):
        ran.clear()
        found, _ = operations.warp_state(pictures, ratio, flow)
        assert not any(name.startswith("interleave") for name in ran)
        expected, _ = operations.warp_state([p.contiguous() for p in pictures], ratio, flow)
        assert f"interleave_{len(pictures)}" in ran
        assert all(map(torch.equal, found, expected))
    for pictures in ((previous, fused), (fused, clean), (fused, fused), (scout, scout), (fused,), (previous,)):
        ran.clear()
        found, _ = operations.warp_state(pictures, ratio, flow)
        assert any(name.startswith("interleave") for name in ran)
        expected, _ = operations.warp_state([p.contiguous() for p in pictures], ratio, flow)
        assert all(map(torch.equal, found, expected))


LAYERS = [nn.Conv2d(45, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(8, 40, 3, padding=1, bias=False)]


@needs_kernels
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.in_channels}-{layer.out_channels}")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels-last", "planar"])
@pytest.mark.parametrize("place", [(0, 0), (1, 3)], ids=["whole-tiles", "parts-of-tiles"])
def test_convolutions(
    size: tuple[int, int], layer: nn.Conv2d, layout: torch.memory_format, place: tuple[int, int]
) -> None:
    h, w = size[0] - place[0], size[1] - place[1]
    x = torch.randn(2, layer.in_channels, h, w).contiguous(memory_format=layout)
    added = torch.randn(2, layer.out_channels, h, w).contiguous(memory_format=layout)
    for rectified, summand in ((False, None), (True, None), (False, added), (True, added)):
        compared(
            lambda o, r=rectified, s=summand: o.convolve(layer, x, rectified=r, added=s),
            atol=tolerances.WINOGRAD,
            rtol=0,
        )


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_to_twice_the_resolution(size: tuple[int, int], dtype: torch.dtype) -> None:
    h, w = size[0] // 2 - 1, size[1] // 2 - 3
    layer = nn.Conv2d(24, 40, 1).to(dtype)
    x, added = torch.randn(2, 24, h, w, dtype=dtype), torch.randn(2, 10, 2 * h, 2 * w, dtype=dtype)
    for rectified, summand in ((False, None), (True, None), (False, added), (True, added)):
        compared(lambda o, r=rectified, s=summand: o.convolve(layer, x, shuffled=True, rectified=r, added=s))


@needs_kernels
def test_convolutions_use_the_weights_of_today() -> None:
    layer, x = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 24, 24)
    for _ in range(2):
        compared(lambda o: o.convolve(layer, x), atol=tolerances.WINOGRAD, rtol=0)
        with torch.no_grad():
            layer.weight.mul_(3)
    assert weights_of(layer) is weights_of(layer)


OTHER_LAYERS = {
    "1x1": nn.Conv2d(16, 16, 1), "2x2": nn.Conv2d(16, 16, 2, 2),
    "5x5": nn.Conv2d(16, 16, 5, padding=2), "strided": nn.Conv2d(16, 16, 3, 2, padding=1),
    "dilated": nn.Conv2d(16, 16, 3, padding=2, dilation=2), "unpadded": nn.Conv2d(16, 16, 3),
    "grouped": nn.Conv2d(16, 16, 3, padding=1, groups=2), "few channels": nn.Conv2d(4, 16, 3, padding=1),
    "reflecting": nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
    "two layers": nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)),
    "halves": nn.Conv2d(16, 16, 3, padding=1).bfloat16(),
}  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("layer", OTHER_LAYERS.values(), ids=OTHER_LAYERS)
def test_other_convolutions_are_those_of_pytorch(layer: nn.Module) -> None:
    first = next(layer.modules() if isinstance(layer, nn.Conv2d) else layer.children())
    assert isinstance(first, nn.Conv2d)
    x = torch.randn(2, first.in_channels, 24, 40, dtype=first.weight.dtype)
    assert not is_suitable(layer)
    compared(lambda o: o.convolve(layer, x, rectified=True))


@needs_kernels
def test_flat_places(size: tuple[int, int]) -> None:
    h, w = size
    rgb = torch.rand(2, 3, 2 * h, 2 * w)
    rgb[0, :, :16, :20] = 0.25
    plain = Operations()
    compared(lambda o: o.flat_mask(plain.rgb_to_bands(rgb)), atol=0, rtol=0)
    assert plain.flat_mask(plain.rgb_to_bands(rgb))[0].any()


@needs_kernels
@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("speed", [0.0, 3.0, 1e9], ids=["still", "moving", "absurd"])
def test_warped_state(size: tuple[int, int], pictures: int, speed: float) -> None:
    h, w = size
    remembered = [torch.rand(2, 3, 2 * h, 2 * w) for _ in range(pictures)]
    ratio, flow = torch.rand(2, 4, h, w), torch.randn(2, 2, h, w) * speed

    def warped(operations: Operations) -> list[Tensor]:
        bands, moved = operations.warp_state(remembered, ratio, flow)
        return [*bands, moved]

    compared(warped, atol=tolerances.REMAP)


@needs_kernels
@pytest.mark.parametrize(
    "window", [Window(4, 1, 0.1, doubt=8.0), Window(2, 1, 0.3, doubt=8.0), Window(1, 2, 0.5)], ids=str
)
def test_motion_search(size: tuple[int, int], window: Window) -> None:
    h, w = size
    noisy, previous = torch.rand(2, 2, 1, h, w).unbind(0)
    variance, flow = torch.rand(2, 1, h, w) * 0.01 + 1e-4, torch.randn(2, 2, h, w) * 3
    compared(lambda o: o.flow_terms(noisy, previous, flow, variance, window), atol=1e-4)
    terms = Operations().flow_terms(noisy, previous, flow, variance, window)
    for radius in (1, 2, 3):  # the last is left to PyTorch
        compared(lambda o, radius=radius: o.solve_flow(terms, radius, 0.3, 2.0), atol=1e-4)
    for factor in (2, 4):
        compared(lambda o, factor=factor: o.upsample_flow(flow, factor, 2.0))
    compared(lambda o: o.motion_evidence(noisy, previous, flow, variance), atol=1e-2, rtol=1e-4)
    compared(lambda o: o.trusted_flow(noisy, flow, 0.4, 0.1))


def inputs(h: int, w: int) -> dict[object, list[Tensor]]:
    """Return arguments for each of the pointwise functions that have a kernel."""
    bands = [torch.randn(2, 12, h, w) for _ in range(3)]
    ratio, other = (torch.rand(2, 4, h, w) * 2 + 0.01 for _ in range(2))
    level, remaining = (torch.rand(2, 6, h, w) * 0.1 + 1e-3 for _ in range(2))
    mask, known = (torch.rand(2, 1, h, w) > 0.2).float(), torch.ones(2, 1, 1, 1).expand(-1, -1, h, w)
    misalignment = (torch.randn(2, h, w, 4) * 4).permute(0, 3, 1, 2)
    return {
        noise_evidence: [bands[0], bands[1], known, mask],
        affine_level: [torch.randn(2, 12, h // 4, w // 4) - 3, bands[0], mask],
        misalignment_evidence: [bands[0], bands[1], bands[2][:, :3], level, ratio],
        filtered: [bands[0], bands[1], ratio, misalignment],
        smoothed: [bands[0], ratio, bands[1], other],
        remaining_level: [ratio, level],
        core_input: [*bands, torch.rand(2, 1, h, w), remaining, level, torch.rand(2, 3, h // LOCAL, w // LOCAL)],
    }


@needs_kernels
@pytest.mark.parametrize("width", [8, 16, 6], ids=["8-wide", "16-wide", "left-to-pytorch"])
@pytest.mark.parametrize("place", [(0, 0), (11, 7)], ids=["as-it-is", "a-few-rows"])
def test_fusion(size: tuple[int, int], width: int, place: tuple[int, int]) -> None:
    h, w = size[0] - place[0], size[1] - place[1]
    given = inputs(h, w)[misalignment_evidence]
    fusion = TemporalFusion(width).requires_grad_(False)
    for layer in fusion.misalignment.children():
        if isinstance(layer, nn.Conv2d):
            layer.bias.normal_(std=0.3)  # type: ignore[union-attr]
    compared(lambda o: fusion(*given, o), atol=1e-4)
    compared(lambda o: fusion.bfloat16()(*given, o), atol=0.1, rtol=0.1)


@needs_kernels
@pytest.mark.parametrize(
    "width", [8, 16, 12, 6, 52], ids=["8-wide", "16-wide", "12-wide", "left-to-pytorch", "too-wide"]
)
@pytest.mark.parametrize("place", [(0, 0), (11, 7), (10, 7), (11, 6)], ids=["as-it-is", "odd", "odd-wide", "odd-high"])
def test_the_first_layer_of_the_noise_estimator(size: tuple[int, int], width: int, place: tuple[int, int]) -> None:
    h, w = size[0] - place[0], size[1] - place[1]
    given = inputs(h, w)[noise_evidence]
    layer = NoiseLevel(width).encoder[0].requires_grad_(False)
    compared(lambda o: o.first_layer(noise_evidence, given, layer), atol=1e-4)
    compared(lambda o: o.first_layer(noise_evidence, given, layer.bfloat16()), atol=0.05, rtol=0.05)
    other = nn.Conv2d(35, 16, 3, padding=1)  # of another stride
    compared(lambda o: o.first_layer(noise_evidence, given, other), atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("function", FORMS, ids=lambda f: f.__name__)
def test_pointwise_functions(size: tuple[int, int], function: Callable[..., tuple[Tensor, ...]]) -> None:
    given = inputs(*size)[function]
    if function in (noise_evidence, misalignment_evidence, core_input):
        compared(lambda o: o.pointwise_input(function, given, nn.Conv2d(1, 1, 1)), atol=1e-4)
        half = nn.Conv2d(1, 1, 1).bfloat16()
        compared(lambda o: o.pointwise_input(function, given, half), atol=1e-2, rtol=1e-2)
    else:
        compared(lambda o: o.pointwise(function, given))


@needs_kernels
def test_other_functions_and_resolutions_go_without_a_kernel() -> None:
    x, small = torch.rand(1, 3, 16, 24), torch.rand(1, 12, 8, 12)
    compared(lambda o: o.pointwise(lambda a: (a * 2,), (x,)))
    bands, mask = torch.randn(1, 12, 16, 24), torch.ones(1, 1, 16, 24)
    compared(lambda o: o.pointwise(affine_level, (small, bands, mask)))  # at half the resolution, not a quarter


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stream(dtype: torch.dtype) -> None:
    """Blind, through moving frames; a random network's flow and levels would jump at the slightest rounding."""
    network, frames = load_model("fast").network, noisy_frames(4, 96, 144)
    pictures = {}
    for name, operations in (("plain", Operations()), ("native", operations_for_cpu())):
        backend = Eager(network, device=torch.device("cpu"), dtype=dtype)
        assert isinstance(backend.network.operations, NativeOperations)
        backend.network.operations = operations
        state, clean = backend.initial_state(1, 96, 144), []
        for i, frame in enumerate(frames):
            step = backend.step(frame, None, 1.0, torch.tensor([i > 0]), state)
            state = step.state
            clean.append(step.clean)
        pictures[name] = torch.cat(clean)
    difference = (pictures["native"] - pictures["plain"]).abs()
    if dtype is torch.float32:
        assert difference.max() < tolerances.BACKEND_FP32
    else:  # roundings differ; and a pixel here and there, at the border, follows another of two equally good motions
        assert difference.mean() < 0.25 / 255
        assert difference.flatten().quantile(0.99) < 1.5 / 255


@pytest.mark.slow  # a wheel is compiled by the checks of releases, too
def test_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if KERNELS is not None and KERNELS.path.name != library_name(None):  # one level of two: each takes seconds
        monkeypatch.setattr("vidnoise.kernels.compile.LEVELS", (KERNELS.path.stem.removeprefix("libvidnoise-"),))
    try:
        paths = compile_kernels(tmp_path)
    except CompileError as ex:
        pytest.skip(str(ex))
    assert {path.parent for path in paths} == {tmp_path}
    assert len(list(tmp_path.iterdir())) == len(paths)
    assert (KERNELS is None) or KERNELS.path.name in {path.name for path in paths}


def test_without_a_compiler_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "missing"))
    with pytest.raises(CompileError, match=r"^.*missing: No such file or directory$"):
        compile_kernels(tmp_path)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match="no C compiler"):
        compile_kernels(tmp_path)
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: of its own' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(CompileError, match="broken: error: of its own"):
        compile_kernels(tmp_path)
    assert list(tmp_path.iterdir()) == [broken]


def test_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDNOISE_KERNELS", "off")
    assert type(operations_for_cpu()) is CpuOperations
    monkeypatch.setenv("VIDNOISE_KERNELS", "on")
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    library.cache_clear()
    try:
        assert type(operations_for_cpu()) is CpuOperations
        for level in ("", "-x86-64-v3", "-x86-64-v4"):
            (tmp_path / f"libvidnoise{level}.so").write_bytes(b"not a library")
        library.cache_clear()
        assert type(operations_for_cpu()) is CpuOperations
    finally:
        library.cache_clear()


@needs_kernels
def test_they_run_on_the_threads_of_pytorch() -> None:
    """The library brings no OpenMP runtime of its own, whose threads would compete with PyTorch's."""
    assert KERNELS is not None
    script = (
        "import os, torch; from vidnoise.kernels.library import library; torch.set_num_threads(2)\n"
        "x = torch.rand(3, 512, 512); torch.rand(2048, 2048).sqrt(); before = len(os.listdir('/proc/self/task'))\n"
        "library().run('rgb_to_bands', [x], [torch.empty(12, 256, 256)], (256, 256))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    if not Path("/proc/self/task").is_dir():
        pytest.skip("no /proc")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"


@needs_kernels
def test_a_library_that_lacks_a_kernel_says_which(size: tuple[int, int]) -> None:
    assert KERNELS is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        Library(KERNELS.path).run("nothing_like_it", [], [], size)
