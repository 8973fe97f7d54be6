"""Tiles: as good as the whole picture, seams and motion across them included, in less memory."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support import tolerances
from support.paths import ROOT
from vidnoise.backends.eager import Eager
from vidnoise.backends.tiled import Tiled, choose_tile, step_bytes
from vidnoise.backends.tiling import spans
from vidnoise.backends.window import Window
from vidnoise.errors import UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

CPU = torch.device("cpu")
SAMPLE = ROOT / "samples" / "city-night.mp4"
HEIGHT, WIDTH = 352, 640
SEAMS = slice(160, 480)
"""Columns around the seams of tiles of 256; the picture's own borders left out."""


@pytest.fixture(scope="module")
def network() -> DenoiseNetwork:
    return load_model("fast").network


def real_frames(n: int) -> list[Tensor]:
    video = cv2.VideoCapture(str(SAMPLE))
    pictures = [video.read()[1][:HEIGHT, :, ::-1] for _ in range(n)]
    video.release()
    return [torch.from_numpy(p.astype(np.float32) / 255).permute(2, 0, 1)[None] for p in pictures]


def panned(n: int, speed: int) -> list[Tensor]:
    """The sample's first picture, larger and moving, so that everything crosses the seams; with noise."""
    still = F.interpolate(real_frames(1)[0], size=(480, 900), mode="bicubic")
    generator = torch.Generator().manual_seed(0)
    noise = (0.1 * torch.randn(1, 3, HEIGHT, WIDTH, generator=generator) for _ in range(n))
    return [still[..., 40 : 40 + HEIGHT, speed * i : speed * i + WIDTH] + e for i, e in enumerate(noise)]


def tiled(network: DenoiseNetwork, tile: tuple[int, int] = (256, 256), **options: Any) -> Tiled:
    backend = Tiled(network, device=CPU, dtype=torch.float32, max_memory=1e6, **options)
    backend._tiles[1, HEIGHT, WIDTH] = tile
    return backend


def run(backend: Any, frames: list[Tensor], **given: Any) -> tuple[list[Tensor], list[float]]:
    state = backend.initial_state(1, *frames[0].shape[-2:])
    clean, levels = [], []
    for i, frame in enumerate(frames):
        keep = torch.tensor([given.get("cut") != i], device=frame.device)
        out, level, state = backend.step(frame, given.get("sigma"), given.get("boost", 1.0), keep, state)
        clean.append(out.clone())
        levels.append(float(level))
    return clean, levels


def differences(found: list[Tensor], expected: list[Tensor]) -> list[Tensor]:
    """In 8-bit units."""
    return [(a - b).abs() * 255 for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("content", ["real", "panned by 20 pixels a frame"])
def test_seams_are_invisible(network: DenoiseNetwork, content: str) -> None:
    frames = real_frames(5) if content == "real" else panned(5, 20)
    expected, levels = run(Eager(network, device=CPU, dtype=torch.float32), frames)
    found, tiled_levels = run(tiled(network), frames)
    for difference in differences(found, expected):
        assert float(difference.mean()) < tolerances.TILE_MEAN
        # Where tiles meet: by row and column, so that a line would show.
        assert float(difference[..., SEAMS].mean((0, 1, 2)).max()) < tolerances.TILE_SEAM
        assert float(difference.mean((0, 1, 3)).max()) < tolerances.TILE_SEAM
    assert tiled_levels == pytest.approx(levels, rel=1e-3)


def test_nothing_goes_to_the_device_once_it_is_cut(network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, numbers that go there are waited for, at every tile."""
    frames = real_frames(2)
    backend = tiled(network)
    keep = torch.tensor([True])
    state = backend.step(frames[0], None, 1.0, keep, backend.initial_state(1, HEIGHT, WIDTH)).state
    made: list[Any] = []
    monkeypatch.setattr(torch, "tensor", lambda *given, **_: made.append(given))
    backend.step(frames[1], None, 1.0, keep, state)
    assert not made


@pytest.mark.needs_cuda
@pytest.mark.parametrize("kernels", ["off", "on"])
def test_seams_are_invisible_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    monkeypatch.setenv("VIDNOISE_KERNELS", kernels)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    device = torch.device("cuda:0")
    network = load_model("fast", device).network
    frames = [frame.to(device) for frame in panned(4, 20)]
    expected, _ = run(Eager(network, device=device, dtype=torch.float32), frames)
    backend = Tiled(network, device=device, dtype=torch.float32, max_memory=1e6)
    backend._tiles[1, HEIGHT, WIDTH] = 256, 256
    for difference in differences(run(backend, frames)[0], expected):
        assert float(difference.mean()) < tolerances.TILE_MEAN
        assert float(difference[..., SEAMS].mean((0, 1, 2)).max()) < tolerances.TILE_SEAM


def test_without_overlap_seams_would_be_seen(network: DenoiseNetwork) -> None:
    frames = panned(5, 20)
    expected, _ = run(Eager(network, device=CPU, dtype=torch.float32), frames)
    worst = differences(run(tiled(network, overlap=0), frames)[0], expected)[-1]
    assert float(worst[..., SEAMS].mean((0, 1, 2)).max()) > 5 * tolerances.TILE_SEAM


def test_told_levels_boosts_and_cuts(network: DenoiseNetwork) -> None:
    frames = panned(3, 8)
    for given in ({"sigma": 0.1, "cut": 1}, {"sigma": torch.tensor([0.1]), "boost": torch.tensor([[1.5, 1.2]])}):
        expected, _ = run(Eager(network, device=CPU, dtype=torch.float32), frames, **given)
        for difference in differences(run(tiled(network), frames, **given)[0], expected):
            assert float(difference.mean()) < tolerances.TILE_MEAN


def test_both_ways(network: DenoiseNetwork) -> None:
    frames = panned(4, 8)

    def looked(backend: Any) -> list[Tensor]:
        window: Window[int] = Window(backend, 3)
        keeps = [torch.tensor([i not in (0, 2)]) for i in range(4)]
        steps = [window.push(i, f, None, 1.0, k) for i, (f, k) in enumerate(zip(frames, keeps, strict=True))]
        return [done.clean.clone() for step in [*steps, window.flush()] for _, done in step]

    expected, found = (looked(b) for b in (Eager(network, device=CPU, dtype=torch.float32), tiled(network)))
    assert len(found) == 4
    for difference in differences(found, expected):
        assert float(difference.mean()) < tolerances.TILE_MEAN
        assert float(difference[..., SEAMS].mean((0, 1, 2)).max()) < tolerances.TILE_SEAM


@pytest.mark.parametrize("size", [256, 272, 640, 1088, 2160, 3840])
@pytest.mark.parametrize("tile", [256, 512, 1920])
def test_weights_add_up_to_one(size: int, tile: int) -> None:
    size = -(-size // 16) * 16
    total = np.zeros(size // 8)
    found = spans(size, tile)
    for span in found:
        assert span.start % 16 == 0
        assert 0 <= span.start <= max(0, size - tile)
        total[span.start // 8 : span.start // 8 + len(span.weights)] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-9)
    for a, b in itertools.pairwise(found):
        assert a.start + tile - b.start >= 128  # they share what they are meant to


def test_the_cap_chooses_the_tile(network: DenoiseNetwork) -> None:
    whole = choose_tile(network, 1, 1088, 1920, 1e12)
    assert whole == (1088, 1920)
    areas = []
    for megabytes in (1200, 600):
        height, width = choose_tile(network, 1, 1088, 1920, megabytes * 2**20)
        areas.append(height * width)
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] < 1088 * 1920
    with pytest.raises(
        UsageError, match=r"max_memory 50 MB is too little for 1920x1088; it takes at least (\d+) MB"
    ) as ex:
        choose_tile(network, 1, 1088, 1920, 50 * 2**20)
    least = int(re.search(r"at least (\d+)", str(ex.value)).group(1))
    assert min(choose_tile(network, 1, 1088, 1920, least * 2**20)) <= 256


def test_out_of_memory_goes_on_with_smaller_tiles(
    network: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames = real_frames(2)
    backend = tiled(network, (352, 640))
    calls: list[tuple[int, ...]] = []
    smooth = backend._smoothed

    def limited(cut: Any, noisy: Tensor, *rest: Any) -> Any:
        calls.append(cut._tile)
        if cut._tile[1] > 400:
            raise torch.OutOfMemoryError("no memory")
        return smooth(cut, noisy, *rest)

    monkeypatch.setattr(backend, "_smoothed", limited)
    found, _ = run(backend, frames)
    assert calls == [(352, 640), (352, 320), (352, 320)]
    assert "going on with 320x352" in caplog.text
    expected, _ = run(Eager(network, device=CPU, dtype=torch.float32), frames)
    assert float(differences(found, expected)[-1].mean()) < tolerances.TILE_MEAN

    monkeypatch.setattr(backend, "_smoothed", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        run(backend, frames)


PEAK = """
import re, sys, torch
torch.set_num_threads(1)
from vidnoise.backends.eager import Eager
from vidnoise.backends.tiled import Tiled
from vidnoise.weights import load_model
network, cap = load_model("fast").network, float(sys.argv[1])
options = dict(device=torch.device("cpu"), dtype=torch.float32)
backend = Tiled(network, max_memory=cap, **options) if cap else Eager(network, **options)
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
small = torch.rand(1, 3, 64, 64)
Eager(network, **options).step(small, None, 1.0, torch.ones(1, dtype=torch.bool), network.initial_state(1, 64, 64))
before = peak()
noisy = torch.rand(1, 3, 1088, 1920)
state = backend.initial_state(1, 1088, 1920)
for _ in range(2):
    _, _, state = backend.step(noisy, None, 1.0, torch.ones(1, dtype=torch.bool), state)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_under_the_cap(network: DenoiseNetwork) -> None:
    """Measured: a process of its own for each, as its peak never falls again."""

    def peak(cap: float) -> float:
        # glibc keeps what it has freed in its own arenas, which is no tensor's memory any more.
        environment = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["env", *(f"{k}={v}" for k, v in environment.items()), sys.executable, "-c", PEAK, str(cap)],
            capture_output=True, text=True, timeout=110, check=True,
        )  # fmt: skip
        return float(done.stdout)

    whole, capped = peak(0), peak(500)
    assert whole > 550
    assert capped < 500
    # What is counted without memory is what is taken.
    assert whole == pytest.approx(step_bytes(network, 1, 1088, 1920) / 2**20, rel=0.35)


def test_a_session_with_a_cap(network: DenoiseNetwork) -> None:
    frame = Frame(tuple(torch.randint(0, 255, (600, 800), dtype=torch.uint8) for _ in range(3)), PIXEL_FORMATS["gbrp"])
    options: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
    whole = Denoiser(network, backend="eager", **options)
    small = Denoiser(network, max_memory=170, **options)
    for _ in range(2):
        expected, found = whole.push(frame)[0], small.push(frame)[0]
        for a, b in zip(expected.planes, found.planes, strict=True):
            assert float((a.float() - b.float()).abs().mean()) < tolerances.TILE_MEAN
    assert max(small.backend._tiles[1, 608, 800]) < 800
    with pytest.raises(UsageError, match="goes with the backend eager"):
        Denoiser(network, max_memory=100, backend="cuda-graph", **options)
    with pytest.raises(UsageError, match="more than 0 MB, got -1"):
        Denoiser(network, max_memory=-1, **options)
    with pytest.raises(UsageError, match="max_memory 20 MB is too little for 800x608"):
        Denoiser(network, max_memory=20, **options).push(frame)
