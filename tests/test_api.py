"""denoise() gives back the kind it was given; denoise_file() writes files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

import vidnoise
from support.clips import Clip
from vidnoise import Frame, RunStats
from vidnoise.errors import DeviceError, FormatError, SinkOpenError, UnknownModelError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo
from vidnoise.pictures import PictureAdapter

Clips = Callable[[str], Clip]
QUICK = {"model": "fast", "device": "cpu"}
SCALE = {np.uint8: 255, np.uint16: 65535, np.float32: 1}


def noisy_arrays(dtype, shape=(48, 64, 3), n=6, sigma=20 / 255) -> list[np.ndarray]:
    """A still gradient under Gaussian noise."""
    rng = np.random.default_rng(5)
    ramp = np.linspace(0.3, 0.7, shape[1])[None, :, None] * np.ones((shape[0], 1, 3))
    ramp = ramp if len(shape) == 3 else ramp[..., 0]
    pictures = []
    for _ in range(n):
        values = (ramp + sigma * rng.standard_normal(ramp.shape)) * SCALE[dtype]
        if dtype is not np.float32:
            values = values.round().clip(0, SCALE[dtype])
        pictures.append(values.astype(dtype))
    return pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64), (49, 65, 3)])
def test_arrays_come_back_as_they_were_and_cleaner(dtype, shape):
    noisy = noisy_arrays(dtype, shape)
    clean = list(vidnoise.denoise(noisy, **QUICK))
    assert [(c.dtype, c.shape) for c in clean] == [(n.dtype, n.shape) for n in noisy]
    before, after = (np.std(np.diff(x[-1].astype(np.float64), axis=0)) for x in (noisy, clean))
    assert after < 0.5 * before
    assert abs(clean[-1].mean() / SCALE[dtype] - 0.5) < 0.01


def test_all_kinds_of_the_same_picture_agree():
    """To within what their own rounding allows: half a code of 8 bits."""
    # On smooth ground many motions explain a noisy frame equally well; among squares one does.
    squares = np.kron(np.random.default_rng(2).integers(-60, 60, (8, 8, 3)), np.ones((6, 8, 1), int))
    base = [(a // 2 + 60 + squares).clip(0, 255).astype(np.uint8) for a in noisy_arrays(np.uint8)]
    of_uint8 = [c.astype(np.float64) / 255 for c in vidnoise.denoise(base, **QUICK, precision="fp32")]
    for convert, back in (
        (lambda a: a.astype(np.uint16) * 257, lambda c: c.astype(np.float64) / 65535),
        (lambda a: (a / 255).astype(np.float32), lambda c: c.astype(np.float64)),
        (lambda a: torch.from_numpy(a).permute(2, 0, 1), lambda c: c.permute(1, 2, 0).double().numpy() / 255),
    ):
        other = [back(c) for c in vidnoise.denoise([convert(a) for a in base], **QUICK, precision="fp32")]
        assert max(np.abs(a - b).max() for a, b in zip(of_uint8, other, strict=True)) < 0.502 / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_tensors(dtype):
    kind = {torch.uint8: np.uint8, torch.uint16: np.uint16, torch.float32: np.float32}[dtype]
    noisy = [torch.from_numpy(a).permute(2, 0, 1) for a in noisy_arrays(kind)]
    clean = list(vidnoise.denoise(noisy, **QUICK))
    assert all(c.dtype == dtype and c.shape == (3, 48, 64) and c.device.type == "cpu" for c in clean)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64)])
def test_strength_0_is_the_identity(dtype, shape):
    noisy = noisy_arrays(dtype, shape, n=2)
    for before, after in zip(noisy, vidnoise.denoise(noisy, strength=0, **QUICK), strict=True):
        assert np.array_equal(before, after)


def test_a_sample_that_is_no_number_does_not_spread():
    pictures = [np.full((48, 64, 3), 0.5, np.float32) for _ in range(3)]
    pictures[0][10, 20], pictures[1][30, 40] = np.nan, np.inf
    first, second, third = vidnoise.denoise(pictures, **QUICK)
    assert np.argwhere(~np.isfinite(first)).tolist() == [[10, 20, c] for c in range(3)]
    assert np.argwhere(~np.isfinite(second)).tolist() == [[30, 40, c] for c in range(3)]
    assert np.isfinite(third).all()


def test_float_pictures_are_not_clipped():
    noisy = [a * 3 - 1 for a in noisy_arrays(np.float32)]
    clean = list(vidnoise.denoise(noisy, strength=0.0, **QUICK))
    assert clean[0].min() < 0
    assert clean[0].max() > 1


@pytest.mark.parametrize("format", ["yuv420p", "yuv422p10le", "nv12", "rgb24", "gray", "yuyv422", "p010le"])
def test_av_frames_keep_format_time_and_colour(format):
    def make(i: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(noisy_arrays(np.uint8, n=1)[0], format="rgb24").reformat(format=format)
        frame.pts, frame.time_base = 1000 + 40 * i, Fraction(1, 1000)
        frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = 1, 1, 1, 13
        return frame

    def samples(frame: av.VideoFrame) -> list[np.ndarray]:
        """Bytes of each plane without the padding of its rows."""
        size = (2 if "10" in format else 1) * {"rgb24": 3, "yuyv422": 2}.get(format, 1)
        return [np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width * size] for p in frame.planes]

    given = [make(i) for i in range(3)]
    clean = list(vidnoise.denoise(given, **QUICK))
    same = list(vidnoise.denoise(given, strength=0, **QUICK))
    tags = ("colorspace", "color_range", "color_primaries", "color_trc")
    for before, after, copy in zip(given, clean, same, strict=True):
        for name in ("width", "height", "pts", "time_base", *tags):
            assert getattr(after, name) == getattr(before, name)
        assert after.format.name == format
        assert all(np.array_equal(a, b) for a, b in zip(samples(before), samples(copy), strict=True))
        assert not np.array_equal(samples(before)[0], samples(after)[0])


def test_our_own_frames_keep_everything():
    planes = tuple(torch.full(PIXEL_FORMATS["yuv420p"].plane_shape(i, 6, 8), 90, dtype=torch.uint8) for i in range(3))
    frame = Frame(planes, PIXEL_FORMATS["yuv420p"], ColorInfo(9, 1, 9, 16), 7, 1, Fraction(1, 25), 3, side_data="kept")
    (clean,) = vidnoise.denoise([frame], **QUICK)
    assert isinstance(clean, Frame)
    assert (clean.pts, clean.duration, clean.index, clean.side_data, clean.color) == (7, 1, 3, "kept", frame.color)
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(clean.planes, frame.planes, strict=True))


def test_what_is_handed_out_is_never_overwritten():
    noisy = noisy_arrays(np.uint8, n=8)
    kept, copies = [], []
    for clean in vidnoise.denoise(noisy, **QUICK):
        kept.append(clean)
        copies.append(clean.copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations([*kept, *noisy], 2))


def test_awkward_memory_is_taken_as_it_is():
    base = noisy_arrays(np.uint8, n=1)[0]
    read_only = base.copy()
    read_only.flags.writeable = False
    swapped = (base.astype(np.uint16) * 257).astype(">u2")
    for array in (base[::-1], base[:, ::-1], np.asfortranarray(base), read_only, swapped):
        (same,) = vidnoise.denoise([array], strength=0, **QUICK)
        assert np.array_equal(same, array)
        assert same.dtype == array.dtype


def test_pictures_are_taken_one_by_one():
    taken = 0

    def camera():
        nonlocal taken
        for array in itertools.cycle(noisy_arrays(np.uint8, n=2)):
            taken += 1
            yield array

    clean = vidnoise.denoise(camera(), **QUICK)
    for i in range(1, 6):
        next(clean)
        assert taken == i
    clean.close()


def test_nothing_in_nothing_out():
    assert list(vidnoise.denoise([], **QUICK)) == []


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 4, 3)), r"numpy array \(4, 4, 3\) of float64"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (torch.zeros(4, 4, 3), r"torch tensor \(4, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"\(1, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.float64), "float64"),
        (torch.zeros(3, 0, 4), "empty"),
        ("frame.png", "builtins.str"),
        (None, "NoneType"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_with_what_can(picture, says):
    with pytest.raises(FormatError, match=says) as caught:
        list(vidnoise.denoise([picture], **QUICK))
    if "empty" not in says:
        assert "frames may be" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_an_av_frame_in_a_format_that_is_not_video():
    with pytest.raises(FormatError, match="xyz12"):
        PictureAdapter().frame(av.VideoFrame(16, 16, "xyz12le"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sigma": -1}, UsageError),
        ({"strength": 3}, UsageError),
        ({"model": "nothing"}, UnknownModelError),
        ({"device": "cuda:99"}, DeviceError),
        ({"precision": "fp8"}, UsageError),
    ],
)
def test_bad_options_are_refused_at_the_call(options, error):
    with pytest.raises(error):
        vidnoise.denoise([], **options)


def test_denoise_file(clips: Clips, tmp_path):
    told = []
    out = tmp_path / "out.mkv"
    stats = vidnoise.denoise_file(clips("cfr"), out, progress=told.append, codec="ffv1", **QUICK)
    assert isinstance(stats, RunStats)
    assert stats.frames_out == 10
    assert told[-1].frames == 10
    source = vidnoise.open_source(out)
    assert len(list(source)) == 10
    with pytest.raises(SinkOpenError):
        vidnoise.denoise_file(clips("cfr"), out, **QUICK)
    assert vidnoise.denoise_file(clips("cfr"), out, overwrite=True, duration=0.12, **QUICK).frames_out == 3


def test_the_pieces_fit_together(clips: Clips, tmp_path):
    """Source, denoiser and sink in one's own loop, as the documentation shows it."""
    denoiser = vidnoise.Denoiser("fast", device="cpu", lookahead=8)
    source, sink = vidnoise.open_source(clips("cfr")), vidnoise.open_sink(tmp_path / "out.mkv", codec="ffv1")
    sink.open(source.info)
    for frame in denoiser(source):
        sink.write(frame)
    sink.close(source.trailing_packets)
    whole = tmp_path / "whole.mkv"
    vidnoise.denoise_file(clips("cfr"), whole, codec="ffv1", **QUICK)
    for a, b in zip(vidnoise.open_source(tmp_path / "out.mkv"), vidnoise.open_source(whole), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


@pytest.mark.needs_cuda
def test_tensors_on_the_gpu_stay_there():
    noisy = [torch.from_numpy(a).permute(2, 0, 1).cuda() for a in noisy_arrays(np.uint8)]
    clean = list(vidnoise.denoise(noisy, model="fast", device="cuda"))
    assert all(c.device == noisy[0].device for c in clean)
    host = list(vidnoise.denoise([n.cpu() for n in noisy], model="fast", device="cuda"))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(clean, host, strict=True))
