"""Colour maths against independent float64 formulas, for every pixel format of the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from support import tolerances
from support.frames import make_frame
from vidnoise.color import apply_correction, centred, to_rgb
from vidnoise.color import samples as color_module
from vidnoise.color.chroma import downsample, upsample
from vidnoise.color.colorimetry import LUMA_WEIGHTS, resolve_color
from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, PixelFormat

# From the Recommendations, as (Kr, Kg, Kb).
LUMA = {1: (0.2126, 0.7152, 0.0722), 6: (0.299, 0.587, 0.114), 7: (0.212, 0.701, 0.087), 9: (0.2627, 0.6780, 0.0593)}


def component(frame: Frame, name: str) -> np.ndarray:
    for plane, names in zip(frame.planes, frame.format.layout, strict=True):
        if name in names:
            values = plane.numpy().astype(np.float64)
            values = values if values.ndim == 2 else values[..., names.index(name)]
            return values / (1 << frame.format.msb_shift)
    raise KeyError(name)


def reference_upsample(plane: np.ndarray, height: int, width: int, log2_w: int, log2_h: int, location: int):
    """Linear interpolation, written from the definition: each output's position on the axis of the chroma samples."""

    def axis(n_out: int, n_in: int, log2: int, first: bool, last: bool) -> np.ndarray:
        factor = 1 << log2
        offset = 0.0 if first else factor - 1.0 if last else (factor - 1) / 2
        matrix = np.zeros((n_out, n_in))
        for i in range(n_out):
            at = min(max((i - offset) / factor, 0.0), n_in - 1.0)
            low = min(int(np.floor(at)), n_in - 1)
            high = min(low + 1, n_in - 1)
            matrix[i, low] += 1 - (at - low)
            matrix[i, high] += at - low
        return matrix

    rows = axis(height, plane.shape[0], log2_h, location in (3, 4), location in (5, 6))
    columns = axis(width, plane.shape[1], log2_w, location in (1, 3, 5), False)
    return rows @ plane @ columns.T


def reference_rgb(frame: Frame) -> np.ndarray:
    """H.273's equations in float64."""
    format = frame.format
    color = resolve_color(frame.color, format, frame.height, frame.width)
    if format.is_float:
        scale, offset, chroma_scale, middle = 1.0, 0.0, 1.0, 0.0
    elif color.range == 1:
        unit = 2.0 ** (format.bit_depth - 8)
        scale, offset, chroma_scale, middle = 219 * unit, 16 * unit, 224 * unit, 128 * unit
    else:
        scale, offset = 2.0**format.bit_depth - 1, 0.0
        chroma_scale, middle = scale, 2.0 ** (format.bit_depth - 1)
    if format.family == "gray":
        y = (component(frame, "y") - offset) / scale
        return np.stack([y, y, y])
    if format.family == "rgb":
        return np.stack([(component(frame, c) - offset) / scale for c in "rgb"])
    kr, kg, kb = LUMA[color.matrix]
    y = (component(frame, "y") - offset) / scale
    size = (frame.height, frame.width, format.log2_chroma_w, format.log2_chroma_h, color.chroma_location)
    cb, cr = (reference_upsample((component(frame, c) - middle) / chroma_scale, *size) for c in "uv")
    r = y + 2 * (1 - kr) * cr
    b = y + 2 * (1 - kb) * cb
    return np.stack([r, (y - kr * r - kb * b) / kg, b])


@pytest.mark.parametrize("name", PIXEL_FORMATS)
@pytest.mark.parametrize("range_", [1, 2])
def test_to_rgb_is_the_formula(name, range_):
    for matrix in (1, 5, 6, 7, 9) if PIXEL_FORMATS[name].family == "yuv" else (2,):
        frame = make_frame(name, 13, 11, color=ColorInfo(matrix=matrix, range=range_))
        if matrix == 5:
            assert torch.equal(to_rgb(frame), to_rgb(replace(frame, color=ColorInfo(matrix=6, range=range_))))
            continue
        expected = reference_rgb(frame)
        np.testing.assert_allclose(to_rgb(frame)[0].double().numpy(), expected, atol=tolerances.COLOR_REFERENCE)


@pytest.mark.parametrize("location", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv440p", "yuv411p", "yuv410p", "nv12"])
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (1, 1), (2, 3), (5, 1)])
def test_every_siting_and_size(name, location, size):
    frame = make_frame(name, *size, color=ColorInfo(matrix=1, range=1, chroma_location=location))
    np.testing.assert_allclose(to_rgb(frame)[0].double().numpy(), reference_rgb(frame), atol=tolerances.COLOR_REFERENCE)


@pytest.mark.parametrize(
    ("matrix", "exact", "swscale"),
    [(6, (236.01, 77.45, 44.44), (235, 76, 44)), (1, (250.17, 90.83, 40.82), (250, 90, 40))],
)
def test_known_values(matrix, exact, swscale):
    """Y, U, V = 120, 90, 200 worked out by hand, and as swscale's integer tables have it."""
    planes = tuple(torch.full((2, 2), value, dtype=torch.uint8) for value in (120, 90, 200))
    frame = Frame(planes, PIXEL_FORMATS["yuv444p"], ColorInfo(matrix=matrix, range=1))
    values = to_rgb(frame)[0, :, 0, 0] * 255
    np.testing.assert_allclose(values.numpy(), exact, atol=0.01)
    np.testing.assert_allclose(values.numpy(), swscale, atol=tolerances.SWSCALE_CODES)


@pytest.mark.parametrize("name", PIXEL_FORMATS)
@pytest.mark.parametrize("size", [(16, 16), (13, 11), (1, 1)])
def test_zero_correction_is_the_identity(name, size):
    for range_ in (0, 1, 2):
        frame = make_frame(name, *size, color=ColorInfo(range=range_))
        dither = torch.rand(size) * 0.998 - 0.499
        for noise in (None, dither):
            out = apply_correction(frame, torch.zeros(1, 3, *size), noise)
            assert out.pts == 7
            for before, after in zip(frame.planes, out.planes, strict=True):
                assert before.dtype == after.dtype
                assert torch.equal(before, after)


def test_zero_correction_keeps_bits_below_a_shifted_sample():
    frame = make_frame("p010le", 4, 4)
    frame = replace(frame, planes=tuple((p.to(torch.int32) | 0x3F).to(torch.uint16) for p in frame.planes))
    out = apply_correction(frame, torch.zeros(1, 3, 4, 4))
    assert all(torch.equal(a, b) for a, b in zip(frame.planes, out.planes, strict=True))


def _mid_frame(format: PixelFormat, height: int, width: int, color: ColorInfo) -> Frame:
    """A picture far from the ends of the code, so that nothing clips."""
    frame = make_frame(format.name, height, width, color=color)
    planes = []
    for plane in frame.planes:
        if format.is_float:
            planes.append(plane * 0.2 + 0.4)
            continue
        middle, spread = 1 << (format.bit_depth - 1), 1 << (format.bit_depth - 4)
        codes = (plane.to(torch.int32) >> format.msb_shift) % spread + middle
        planes.append((codes << format.msb_shift).to(plane.dtype))
    return replace(frame, planes=tuple(planes))


@pytest.mark.parametrize("name", PIXEL_FORMATS)
@pytest.mark.parametrize("range_", [1, 2])
def test_a_constant_correction_moves_the_picture_by_it(name, range_):
    format = PIXEL_FORMATS[name]
    for matrix in (1, 6, 7, 9):
        frame = _mid_frame(format, 9, 11, ColorInfo(matrix=matrix, range=range_))
        wanted = torch.tensor([0.05, -0.08, 0.03] if format.family != "gray" else [0.06] * 3).view(1, 3, 1, 1)
        correction = wanted.expand(1, 3, 9, 11)
        moved = to_rgb(apply_correction(frame, correction)) - to_rgb(frame)
        if format.is_float:
            tolerance = tolerances.COLOR_REFERENCE
        else:
            codes = (219 if range_ == 1 and not name.startswith("yuvj") else 255) * 2.0 ** (format.bit_depth - 8)
            tolerance = tolerances.CONSTANT_CORRECTION_CODES / codes
        assert (moved - wanted).abs().max() <= tolerance


@pytest.mark.parametrize("name", ["yuva420p", "gbrap10le", "rgba", "0rgb", "bgra64le"])
def test_alpha_and_padding_are_untouched(name):
    frame = make_frame(name, 8, 8)
    out = apply_correction(frame, torch.full((1, 3, 8, 8), 0.1))
    changed = False
    for before, after, names in zip(frame.planes, out.planes, frame.format.layout, strict=True):
        for i, component_name in enumerate(names):
            a, b = (p if len(names) == 1 else p[..., i] for p in (before, after))
            if component_name in "ax":
                assert torch.equal(a, b)
            else:
                changed |= not torch.equal(a, b)
    assert changed


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "p010le", "rgb24", "gray16le"])
def test_corrections_are_clamped_to_the_code(name):
    frame = make_frame(name, 8, 8)
    for value in (5.0, -5.0):
        out = apply_correction(frame, torch.full((1, 3, 8, 8), value))
        luma = out.planes[0].to(torch.int32) >> frame.format.msb_shift
        assert torch.all(luma == (0 if value < 0 else (1 << frame.format.bit_depth) - 1))


def test_float_samples_are_not_clipped():
    frame = make_frame("rgbf32le", 4, 4)
    out = apply_correction(frame, torch.full((1, 3, 4, 4), 3.0))
    assert torch.allclose(out.planes[0], frame.planes[0] + 3.0)


def test_samples_are_rounded_to_nearest_never_truncated():
    frame = Frame((torch.full((1, 4), 100, dtype=torch.uint8),), PIXEL_FORMATS["gray"], ColorInfo(range=2))
    correction = (torch.tensor([0.4, 0.6, -0.4, -0.6]) / 255).expand(1, 3, 1, 4)
    assert apply_correction(frame, correction).planes[0].tolist() == [[100, 101, 100, 99]]


def test_dither_carries_the_mean_below_one_code():
    frame = Frame((torch.full((64, 64), 100, dtype=torch.uint8),), PIXEL_FORMATS["gray"], ColorInfo(range=2))
    correction = torch.full((1, 3, 64, 64), 0.3 / 255)
    dither = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) * 0.999 - 0.4995
    assert apply_correction(frame, correction).planes[0].float().mean() == 100
    # 4096 draws of variance 0.21: three standard deviations are 0.021.
    assert apply_correction(frame, correction, dither).planes[0].float().mean() == pytest.approx(100.3, abs=0.03)


@pytest.mark.parametrize("location", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(("log2_w", "log2_h"), [(1, 1), (1, 0), (0, 1), (2, 0), (2, 2)])
def test_downsampling_is_centred_on_the_sample(log2_w, log2_h, location):
    """On a ramp, a symmetric average returns the ramp's value at the sample's own position."""
    height, width = 24, 32
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    ramp = 3 * rows + 5 * columns
    small = downsample(ramp, log2_w, log2_h, location)
    assert small.shape == (height >> log2_h, width >> log2_w)
    x = 0.0 if location in (1, 3, 5) else ((1 << log2_w) - 1) / 2
    last = (1 << log2_h) - 1
    y = 0.0 if location in (3, 4) else last if location in (5, 6) else last / 2
    expected = 3 * (rows[: height >> log2_h, : width >> log2_w] * (1 << log2_h) + y) + 5 * (
        columns[: height >> log2_h, : width >> log2_w] * (1 << log2_w) + x
    )
    torch.testing.assert_close(small[1:-1, 1:-1], expected[1:-1, 1:-1])
    back = upsample(small, height, width, log2_w, log2_h, location)
    torch.testing.assert_close(back[8:-8, 8:-8], ramp[8:-8, 8:-8])


@pytest.mark.parametrize("location", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 5), (3, 2)])
def test_resampling_keeps_constants_at_odd_sizes(size, location):
    plane = torch.full(size, 0.7)
    for log2_w, log2_h in ((1, 1), (2, 2), (2, 0), (0, 1)):
        small = downsample(plane, log2_w, log2_h, location)
        assert small.shape == (-(-size[0] >> log2_h), -(-size[1] >> log2_w))
        torch.testing.assert_close(small, torch.full_like(small, 0.7))
        torch.testing.assert_close(upsample(small, *size, log2_w, log2_h, location), plane)


def test_a_pixels_correction_reaches_its_chroma_samples_weighted():
    """Centre-sited 4:2:0: (-1, 3, 3, -1)/4 each way is what undoes linear interpolation with the least noise."""
    frame = Frame(
        tuple(torch.full(s, 32768, dtype=torch.uint16) for s in ((8, 8), (4, 4), (4, 4))),
        PIXEL_FORMATS["yuv420p16le"],
        ColorInfo(matrix=1, range=2, chroma_location=2),
    )
    correction = torch.zeros(1, 3, 8, 8)
    correction[0, 2, 2, 2] = 0.1  # blue
    out = apply_correction(frame, correction)
    kb = 0.0722
    blue = 65535 * 0.1 * (1 - kb) / (2 * (1 - kb))
    u = out.planes[1].to(torch.int32) - 32768
    weights = (-1 / 4, 3 / 4, 0, 0)
    assert u.tolist() == [[round(blue * down * across) for across in weights] for down in weights]


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "yuv444p", "nv12"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_centred_rgb_keeps_planes_apart(name, matrix):
    """A change of Cb and Cr alone leaves the mean of the channels, and back; either way about RGB's grays."""
    frame = make_frame(name, 16, 32, color=ColorInfo(matrix=matrix, range=1))
    other = make_frame(name, 16, 32, seed=1, color=frame.color)
    chroma_noise = replace(frame, planes=(frame.planes[0], *other.planes[1:]))
    before, after = to_rgb(frame, centred=True), to_rgb(chroma_noise, centred=True)
    torch.testing.assert_close(before.mean(1), after.mean(1), atol=1e-5, rtol=0)
    plain = to_rgb(frame)
    torch.testing.assert_close(centred(plain, *LUMA_WEIGHTS[matrix]), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        before - before.mean(1, keepdim=True), plain - plain.mean(1, keepdim=True), atol=1e-5, rtol=0
    )
    out = apply_correction(frame, after - before, centred=True)
    for found, true in zip(out.planes, chroma_noise.planes, strict=True):
        assert torch.equal(found, true)


@pytest.mark.parametrize("location", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(("log2_w", "log2_h"), [(1, 1), (1, 0), (0, 1), (2, 0), (2, 2)])
def test_downsampling_undoes_upsampling(log2_w, log2_h, location):
    """To the picture's edges; noise of chroma planes that the network has found is taken away whole."""
    small = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    large = upsample(small, 5 << log2_h, 7 << log2_w, log2_w, log2_h, location)
    torch.testing.assert_close(downsample(large, log2_w, log2_h, location), small, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["yuv420p10le", "yuv422p10le", "yuv411p", "yuv410p", "nv12"])
def test_noise_of_chroma_planes_is_taken_away_whole(name):
    """A network that knows the clean picture leaves no noise, though it works at the luma's resolution."""
    noisy, clean = make_frame(name, 16, 32), make_frame(name, 16, 32)
    clean = replace(clean, planes=tuple(torch.full_like(p, 100) for p in clean.planes))
    out = apply_correction(noisy, to_rgb(clean) - to_rgb(noisy))
    for found, true in zip(out.planes, clean.planes, strict=True):
        assert torch.equal(found, true)


def test_sixteen_bit_words_survive_the_way_through_int32():
    """The path for devices that hardly know uint16."""
    words = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(256, 256)
    floats = color_module._uint16_to_float(words)
    assert torch.equal(floats, torch.arange(65536, dtype=torch.float32).view(256, 256))
    assert torch.equal(color_module._float_to_uint16(floats), words)


@pytest.mark.parametrize(
    ("name", "size", "tags", "expected"),
    [
        ("yuv420p", (480, 640), {}, (6, 1, 1)),
        ("yuv420p", (720, 960), {}, (1, 1, 1)),
        ("yuv420p", (544, 1280), {}, (1, 1, 1)),
        ("yuv420p", (2160, 3840), {"matrix": 9}, (9, 1, 1)),
        ("yuv420p", (480, 640), {"matrix": 0}, (6, 1, 1)),
        ("yuv420p10le", (2160, 3840), {"matrix": 14}, (9, 1, 1)),
        ("yuvj420p", (480, 640), {}, (6, 2, 2)),
        ("yuvj420p", (480, 640), {"range": 1}, (6, 2, 2)),
        ("yuv420p", (480, 640), {"range": 2, "chroma_location": 3}, (6, 2, 3)),
        ("rgb24", (480, 640), {"matrix": 1}, (0, 2, 1)),
        ("gbrp", (480, 640), {"range": 1}, (0, 1, 1)),
        ("gray", (480, 640), {}, (0, 2, 1)),
        ("grayf32le", (480, 640), {"range": 1}, (0, 2, 1)),
    ],
)
def test_what_untagged_video_is_taken_for(name, size, tags, expected):
    color = resolve_color(ColorInfo(primaries=9, transfer=16, **tags), PIXEL_FORMATS[name], *size)
    assert (color.matrix, color.range, color.chroma_location) == expected
    assert (color.primaries, color.transfer) == (9, 16)


def test_a_correction_of_the_wrong_size_is_refused():
    with pytest.raises(FormatError, match=r"\(1, 3, 4, 6\)"):
        apply_correction(make_frame("gray", 4, 6), torch.zeros(1, 3, 4, 4))


def test_the_input_is_not_changed():
    frame = make_frame("nv12", 8, 8)
    kept = [p.clone() for p in frame.planes]
    correction = torch.full((1, 3, 8, 8), 0.1)
    apply_correction(frame, correction)
    to_rgb(frame)
    assert all(torch.equal(a, b) for a, b in zip(kept, frame.planes, strict=True))
    assert torch.equal(correction, torch.full((1, 3, 8, 8), 0.1))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "p010le", "nv12", "rgba64le", "gbrpf32le"])
def test_cuda_gives_the_same_samples(name):
    frame = make_frame(name, 13, 11)
    correction = torch.randn(1, 3, 13, 11, generator=torch.Generator().manual_seed(1)) * 0.1
    there = replace(frame, planes=tuple(p.cuda() for p in frame.planes))
    torch.testing.assert_close(to_rgb(there).cpu(), to_rgb(frame), atol=tolerances.COLOR_REFERENCE, rtol=0)
    for a, b in zip(
        apply_correction(there, correction.cuda()).planes, apply_correction(frame, correction).planes, strict=True
    ):
        torch.testing.assert_close(a.cpu().double(), b.double(), atol=1 << frame.format.msb_shift, rtol=0)
