"""Strength by plane, time and place: what is left alone is left alone exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import vidnoise
from support.clips import Clip
from support.streams import denoise, frames, values
from vidnoise.cli import main
from vidnoise.color import apply_correction, weigh_correction
from vidnoise.errors import FormatError, SourceOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.model import DenoiseNetwork
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.strength import Mask, Strength, parse_zones
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]
QUICK = ("--model", "fast", "--threads", "1", "--device", "cpu", "--codec", "ffv1", "-q")
INF = float("inf")


def planes(path: object) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(p.clone() for p in frame.planes) for frame in open_source(str(path))]


def run(source: object, out: Path, *options: object) -> list[tuple[torch.Tensor, ...]]:
    assert main([str(a) for a in (source, "-o", out, *options, *QUICK)]) == 0
    return planes(out)


# --- by plane ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["exact_yuv420p", "exact_yuv422p10le", "exact_yuv444p"])
@pytest.mark.parametrize(("option", "kept"), [("--luma", (0,)), ("--chroma", (1, 2))])
def test_a_plane_at_0_is_identical(clips: Clips, tmp_path, format, option, kept):
    before, after = planes(clips(format)), run(clips(format), tmp_path / "out.mkv", option, 0)
    for a, b in zip(before, after, strict=True):
        assert [i for i in range(3) if torch.equal(a[i], b[i])] == list(kept)


@pytest.mark.parametrize("family", ["rgb24", "gbrpf32le"])
def test_rgb_is_weighed_in_bt709(family):
    generator = torch.Generator().manual_seed(0)
    correction = torch.randn(1, 3, 8, 8, generator=generator)
    shape = (8, 8, 3) if family == "rgb24" else (8, 8)
    format = PIXEL_FORMATS[family]
    frame = Frame(tuple(torch.zeros(shape) for _ in format.layout), format)
    luma = torch.tensor((0.2126, 0.7152, 0.0722)).view(1, 3, 1, 1)
    colour_only = weigh_correction(frame, correction, 0, 1)
    assert torch.allclose((colour_only * luma).sum(1), torch.zeros(8, 8), atol=1e-6)
    lightness_only = weigh_correction(frame, correction, 1, 0)
    assert torch.allclose(lightness_only[0, 0], lightness_only[0, 2], atol=1e-6)
    assert torch.allclose(colour_only + lightness_only, correction, atol=1e-6)


@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_half_of_the_luma_is_half_of_its_correction(matrix):
    """In the picture's own matrix: the other planes do not notice."""
    format = PIXEL_FORMATS["yuv444p16le"]
    generator = torch.Generator().manual_seed(0)
    samples = tuple(torch.randint(20000, 40000, (8, 8), generator=generator).to(torch.uint16) for _ in range(3))
    frame = Frame(samples, format, ColorInfo(matrix=matrix))
    correction = 0.02 * torch.randn(1, 3, 8, 8, generator=generator)

    def change(luma: float, chroma: float) -> list[torch.Tensor]:
        after = apply_correction(frame, weigh_correction(frame, correction, luma, chroma), centred=True)
        return [a.int() - b.int() for a, b in zip(after.planes, samples, strict=True)]

    whole, half = change(1, 1), change(0.5, 1)
    assert (whole[0] - 2 * half[0]).abs().max() <= 2
    assert all((a - b).abs().max() <= 1 for a, b in zip(whole[1:], half[1:], strict=True))


# --- by time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        ("0-10:0.5", [(0, 10, 0.5)]),
        ("60-:0, -10:.5", [(0, 10, 0.5), (60, INF, 0)]),
        ("1:30-2:00:2", [(90, 120, 2)]),
        ("0.5-1.25:1", [(0.5, 1.25, 1)]),
    ],
)
def test_zones_are_read(text, zones):
    assert parse_zones(text) == zones


@pytest.mark.parametrize(
    ("text", "match"),
    [("5", "cannot be read"), ("0-10", "cannot be read"), ("a-b:1", "cannot be read"), ("0-10:3", "between 0 and 2"),
     ("10-5:1", "ends before"), ("0-10:1,5-15:0", "overlap at 5 s"), ("", "cannot be read")],
)  # fmt: skip
def test_zones_that_make_no_sense(text, match):
    with pytest.raises(UsageError, match=match):
        parse_zones(text)


def test_a_zone_of_0_is_identical_and_the_rest_is_not(clips: Clips, tmp_path):
    clip = clips("exact_yuv420p")  # 25 frames a second
    before, after = planes(clip), run(clip, tmp_path / "out.mkv", "--zones", "0.08-0.2:0")
    same = [all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)]
    assert same == [2 <= i < 5 for i in range(10)]


def test_zones_count_from_the_beginning_of_the_video_also_after_start(clips: Clips, tmp_path):
    clip = clips("exact_yuv420p")
    after = run(clip, tmp_path / "out.mkv", "--zones", "0.2-:0", "--start", 0.12)
    same = [torch.equal(a[0], b[0]) for a, b in zip(planes(clip)[3:], after, strict=True)]
    assert same == [i >= 2 for i in range(7)]


def test_frames_without_times_cannot_have_zones():
    pictures = [np.zeros((32, 32), np.uint8)]
    with pytest.raises(UsageError, match="zones need frames that have times"):
        list(vidnoise.denoise(pictures, model="fast", zones="0-1:0", device="cpu"))


def test_pictures_of_av_have_times(clips: Clips):
    import av

    with av.open(str(clips("exact_yuv420p"))) as container:
        pictures = list(container.decode(video=0))
    clean = list(vidnoise.denoise(pictures, model="fast", zones="0-0.2:0", device="cpu"))
    same = [np.array_equal(a.to_ndarray(), b.to_ndarray()) for a, b in zip(pictures, clean, strict=True)]
    assert same == [i < 5 for i in range(10)]


def test_a_zone_is_the_strength(network: DenoiseNetwork):
    stream = [replace(f, time_base=Fraction(1, 25)) for f in frames(4)]
    zoned = denoise(network, stream, strength=0.2, zones=[(0.08, INF, 0.7)])
    for i, strength in enumerate((0.2, 0.2, 0.7, 0.7)):
        assert torch.equal(zoned[i], denoise(network, stream, strength=strength)[i])


# --- by place ---------------------------------------------------------------------------------------------------------


def halves(height: int = 48, width: int = 64) -> np.ndarray:
    """The left half black, the right half white."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    return mask


def test_a_black_mask_pixel_is_identical(clips: Clips, tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), halves())
    clip = clips("exact_yuv444p")
    before, masked = planes(clip), run(clip, tmp_path / "a.mkv", "--mask", tmp_path / "mask.png")
    whole = run(clip, tmp_path / "b.mkv")
    for source, after, clean in zip(before, masked, whole, strict=True):
        for a, b, c in zip(source, after, clean, strict=True):
            assert torch.equal(a[:, :32], b[:, :32])
            assert torch.equal(c[:, 32:], b[:, 32:])


def test_gray_is_in_between(network: DenoiseNetwork):
    stream = frames(2)
    gray = torch.full((32, 48), 0.25)
    for a, b in zip(denoise(network, stream, mask=gray), denoise(network, stream, strength=0.25), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.fixture
def moving(tmp_path) -> Path:
    """A mask video of 10 frames, 25 a second: frame ``i`` is uniformly ``20 i``."""
    import av

    path = tmp_path / "moving.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for i in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64), 20 * i, np.uint8), format="gray")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def frame_at(pts: int | None, time_base: Fraction = Fraction(1, 25)) -> Frame:
    return Frame((torch.zeros(48, 64),), PIXEL_FORMATS["grayf32le"], pts=pts, time_base=time_base)


def levels(strength: Strength, stream: list[Frame]) -> list[int]:
    maps = [strength.at(frame).map for frame in stream]
    strength.close()
    return [round(255 * float(m[0, 0])) // 20 for m in maps if m is not None]


def test_a_mask_video_goes_by_time(moving):
    assert levels(Strength(mask=moving), [frame_at(i + 7) for i in range(4)]) == [0, 1, 2, 3]
    half_rate = [frame_at(i, Fraction(2, 25)) for i in range(7)]
    assert levels(Strength(mask=moving), half_rate) == [0, 2, 4, 6, 8, 9, 9]  # the last one holds
    double_rate = [frame_at(i, Fraction(1, 50)) for i in range(5)]
    assert levels(Strength(mask=moving), double_rate) == [0, 0, 1, 1, 2]
    assert levels(Strength(mask=moving, begin_seconds=0.2), [frame_at(i) for i in range(3)]) == [5, 6, 7]


def test_frames_without_times_go_picture_by_picture(moving):
    assert levels(Strength(mask=moving), [frame_at(None) for _ in range(4)]) == [0, 1, 2, 3]


def test_another_size_is_scaled_with_a_message(caplog):
    mask = Mask(halves(24, 32))
    weights = mask.at(None, frame_at(0))
    assert weights.shape == (48, 64)
    assert (weights[:, :30] == 0).all()
    assert (weights[:, 34:] == 1).all()
    assert "is 32x24 and is scaled to the video's 64x48" in caplog.text


def test_other_proportions_are_refused():
    with pytest.raises(FormatError, match="is 48x48, which are other proportions than the video's 64x48"):
        Mask(halves(48, 48)).at(None, frame_at(0))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_mask_is_taken_as_one_sees_it(rotation):
    seen = torch.zeros(64, 48) if rotation != 180 else torch.zeros(48, 64)
    seen[0, 0] = 1  # top left, as one sees it
    stored = Mask(seen, rotation=rotation).at(None, frame_at(0))
    assert torch.equal(torch.rot90(stored, rotation // 90, (0, 1)), seen)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int64), np.full((4, 4), 2, "f4")])
def test_arrays_that_are_no_mask(bad):
    with pytest.raises(FormatError, match="mask"):
        Mask(bad)


def test_a_missing_mask_is_noticed_at_once(network: DenoiseNetwork):
    with pytest.raises(SourceOpenError, match="missing"):
        Denoiser(network, device="cpu", mask="missing.png")


@pytest.mark.parametrize("option", ["luma", "chroma"])
def test_shares_beyond_2_are_refused(network: DenoiseNetwork, option):
    with pytest.raises(UsageError, match=f"{option} must be between 0 and 2"):
        Denoiser(network, device="cpu", **{option: 2.5})


def test_more_of_luma_or_chroma_takes_their_noise_to_be_stronger(network: DenoiseNetwork):
    (frame,) = frames(1, 48, 64)

    def boost(**options) -> list[float]:
        found = Denoiser(network, device="cpu", **options).prepare(frame).sigma_scale
        return found.flatten().tolist() if isinstance(found, torch.Tensor) else [found]

    assert boost() == boost(luma=0.5, chroma=0.2, strength=0.7) == [1.0]
    assert boost(strength=1.5) == boost(luma=1.5, chroma=1.5) == [1.5]
    assert boost(chroma=2.0) == [1.0, 2.0]
    assert boost(luma=2.0, strength=1.5, chroma=0.5) == [3.0, 1.5]
    plain, more = (denoise(network, [frame], sigma=10, luma=1.0, chroma=c)[0] for c in (1.0, 2.0))
    assert not torch.equal(plain, more)


def test_strength_0_stays_identical_with_everything_on(network: DenoiseNetwork, moving):
    stream = [replace(f, time_base=Fraction(1, 25)) for f in frames(3, 48, 64)]
    out = denoise(network, stream, strength=0, luma=0.3, chroma=0.8, mask=moving, zones="0-1:0")
    assert all(torch.equal(values(a), b) for a, b in zip(stream, out, strict=True))
