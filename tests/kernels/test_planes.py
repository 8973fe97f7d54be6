"""The kernels between planes and the network's pictures, compiled ones and Triton's, against :mod:`vidnoise.color`.

Without a GPU, Triton's interpreter runs its kernels on the CPU (see conftest.py).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from support import tolerances
from support.frames import make_frame
from support.planes import assert_same_codes
from vidnoise.color import apply_correction, to_rgb
from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.kernels import conversion, native_planes
from vidnoise.kernels.conversion import extended
from vidnoise.kernels.library import library

CPU, CUDA = torch.device("cpu"), torch.cuda.is_available()


class Planes(NamedTuple):
    """An implementation."""

    to_rgb: Callable[..., Tensor]
    apply_correction: Callable[..., Frame]
    device: torch.device

    def frame(self, frame: Frame) -> Frame:
        return replace(frame, planes=tuple(p.to(self.device) for p in frame.planes))

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(self.device)


@pytest.fixture(params=["compiled", "triton"])
def planes(request: pytest.FixtureRequest) -> Planes:
    if request.param == "compiled":
        kernels = library()
        if kernels is None:
            pytest.skip("no compiled kernels: no C compiler at installation, or no AVX2")
        functions = (partial(f, kernels) for f in (native_planes.to_rgb, native_planes.apply_correction))
        return Planes(*functions, torch.device("cpu"))
    pytest.importorskip("triton")
    planes_in, planes_out = (importlib.import_module(f"vidnoise.kernels.{n}") for n in ("planes_in", "planes_out"))
    return Planes(planes_in.to_rgb, planes_out.apply_correction, torch.device("cuda" if CUDA else "cpu"))


FORMATS = (
    "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuvj420p", "nv12", "nv21", "nv16",
    "yuv420p10le", "yuv422p12le", "yuv444p16le", "p010le", "p210le", "rgb24", "bgra", "bgr0", "gbrp", "gbrp10le",
    "rgb48le", "gray", "gray12le",
)  # fmt: skip
"""Every layout: planar, half interleaved, interleaved, with alpha or padding; 8 to 16 bits, at either end of words."""

DIFFERENT = {"yuv420p", "yuv411p", "yuva420p", "nv21", "yuv422p12le", "p010le", "rgb24", "bgr0", "gbrp10le", "gray12le"}
"""One of each kind, which the interpreter tests by default; a GPU tests all."""

EACH_FORMAT = pytest.mark.parametrize(
    "name",
    [n if n in DIFFERENT or CUDA else pytest.param(n, marks=pytest.mark.slow) for n in FORMATS],
)

SIZE, BLOCKS = (7, 21), 8
"""Odd, reflected at the bottom and on the right to multiples of these, and a single program's work: the interpreter
takes its time for each."""


@EACH_FORMAT
def test_planes_to_rgb(planes: Planes, name: str) -> None:
    frame = planes.frame(make_frame(name, *SIZE))
    expected = extended(to_rgb(frame, centred=True), BLOCKS)
    torch.testing.assert_close(planes.to_rgb(frame, BLOCKS), expected, rtol=0, atol=tolerances.KERNEL_RGB)


@pytest.mark.parametrize("name", ["yuv420p", "gbrp"])
def test_pictures_of_several_programs(planes: Planes, name: str) -> None:
    frame = planes.frame(make_frame(name, 13, 141))
    expected = extended(to_rgb(frame, centred=True), 16)
    torch.testing.assert_close(planes.to_rgb(frame, 16), expected, rtol=0, atol=tolerances.KERNEL_RGB)
    correction = 0.05 * planes.noise(1, 3, 13, 141)
    assert_same_codes(planes.apply_correction(frame, correction), apply_correction(frame, correction, centred=True))


@pytest.mark.parametrize("location", range(7))
@pytest.mark.parametrize(
    "name", ["yuv420p", *(pytest.param(n, marks=pytest.mark.slow) for n in ("yuv422p10le", "yuv410p"))]
)
def test_siting_range_and_matrix(planes: Planes, name: str, location: int) -> None:
    color = ColorInfo(matrix=(1, 5, 7, 9)[location % 4], range=1 + location % 2, chroma_location=location)
    frame = planes.frame(make_frame(name, *SIZE, color=color))
    expected = extended(to_rgb(frame, centred=True), BLOCKS)
    torch.testing.assert_close(planes.to_rgb(frame, BLOCKS), expected, rtol=0, atol=tolerances.KERNEL_RGB)
    correction = 0.05 * planes.noise(1, 3, *SIZE)
    assert_same_codes(planes.apply_correction(frame, correction), apply_correction(frame, correction, centred=True))


def test_a_picture_too_small_to_be_reflected_repeats_its_border(planes: Planes) -> None:
    frame = planes.frame(make_frame("yuv420p", 3, 5))
    found = planes.to_rgb(frame, 16)
    assert found.shape == (1, 3, 16, 16)
    torch.testing.assert_close(found, extended(to_rgb(frame, centred=True), 16), rtol=0, atol=tolerances.KERNEL_RGB)


def test_a_given_buffer_is_filled(planes: Planes) -> None:
    frame = planes.frame(make_frame("nv12", 32, 48))
    buffer = torch.empty(1, 3, 32, 48, device=planes.device)
    assert planes.to_rgb(frame, 16, rgb=buffer).data_ptr() == buffer.data_ptr()
    torch.testing.assert_close(buffer, to_rgb(frame, centred=True), rtol=0, atol=tolerances.KERNEL_RGB)


@EACH_FORMAT
def test_correction_onto_planes(planes: Planes, name: str) -> None:
    frame = planes.frame(make_frame(name, *SIZE))
    x = extended(to_rgb(frame, centred=True), BLOCKS)
    clean = x + 0.04 * planes.noise(*x.shape)
    correction = (clean - x)[..., : SIZE[0], : SIZE[1]] * 0.7
    assert_same_codes(planes.apply_correction(frame, clean, x, 0.7), apply_correction(frame, correction, centred=True))
    assert_same_codes(planes.apply_correction(frame, correction), apply_correction(frame, correction, centred=True))


@EACH_FORMAT
def test_nothing_to_correct_is_bit_exact(planes: Planes, name: str) -> None:
    frame = planes.frame(make_frame(name, *SIZE))
    x = planes.to_rgb(frame, BLOCKS)
    for clean, strength in ((x, 1.0), (x + planes.noise(*x.shape), 0.0)):
        out = planes.apply_correction(frame, clean, x, strength)
        for before, after in zip(frame.planes, out.planes, strict=True):
            assert torch.equal(before.cpu(), after.cpu())


def test_wild_corrections_are_clamped(planes: Planes) -> None:
    frame = planes.frame(make_frame("yuv420p16le", 18, 20))
    correction = 1e6 * planes.noise(1, 3, 18, 20)
    assert_same_codes(planes.apply_correction(frame, correction), apply_correction(frame, correction, centred=True))


def test_ties_are_rounded_to_even(planes: Planes) -> None:
    frame = planes.frame(
        Frame((torch.full((4, 64), 100, dtype=torch.uint8),), PIXEL_FORMATS["gray"], ColorInfo(range=2))
    )
    steps = torch.arange(-32, 32) / 2
    correction = (steps / 255).expand(1, 3, 4, 64).contiguous()
    out = planes.apply_correction(frame, correction.to(planes.device)).planes[0][0].cpu()
    codes = correction[0].mean(0).mul_(255).round_()[0]  # as color.apply_correction does it
    assert out.tolist() == (100 + codes).int().tolist()


def test_pictures_that_do_not_fit_are_refused(planes: Planes) -> None:
    frame = planes.frame(make_frame("gray", 16, 20))
    with pytest.raises(FormatError, match="smaller than the frame"):
        planes.apply_correction(frame, torch.zeros(1, 3, 16, 16, device=planes.device))


def test_pictures_without_dense_rows(planes: Planes) -> None:
    """The compiled kernels rearrange them; Triton's, which the session gives none, refuse."""
    frame, correction = planes.frame(make_frame("gray", 16, 20)), 0.05 * planes.noise(1, 3, 20, 16).transpose(2, 3)
    if planes.device == CPU and isinstance(planes.to_rgb, partial):
        found = planes.apply_correction(frame, correction)
        assert_same_codes(found, apply_correction(frame, correction, centred=True))
        return
    with pytest.raises(FormatError, match="dense rows"):
        planes.apply_correction(frame, correction)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["yuv420p", "yuv410p", "nv12", "yuv422p10le", "rgb24", "gray"])
def test_compiled_kernels_in_place_of_operations(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a picture of several blocks and threads, in all that a session asks of them."""
    if library() is None:
        pytest.skip("no compiled kernels")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    frame, results = make_frame(name, 137, 263), []
    noise = 0.04 * torch.randn(1, 3, 144, 272, generator=torch.Generator().manual_seed(1))
    for wish in ("off", "on"):
        monkeypatch.setenv("VIDNOISE_KERNELS", wish)
        noisy = conversion.to_network(frame, 16)
        correction = conversion.difference(frame, noisy + noise, noisy, 0.6)
        pictures = (
            conversion.from_network(frame, noisy + noise, noisy, 0.6),
            conversion.add_correction(frame, correction),
        )
        results.append((noisy, *pictures))
    (expected, *plain), (found, *fused) = results
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerances.KERNEL_RGB)
    for a, b in zip(fused, plain, strict=True):
        assert_same_codes(a, b)
