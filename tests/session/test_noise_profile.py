"""The noise as measured in a region or a part of the video: its level, its place, and what it is used for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import vidnoise
from support.clips import Clip
from vidnoise.cli import main
from vidnoise.errors import UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.kernels.conversion import to_network
from vidnoise.options import FileOptions
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser
from vidnoise.session.noise_profile import MEMORY, RegionNoise
from vidnoise.session.noise_region import LEAST, Region, parse_region
from vidnoise.session.noise_span import measure_frames, parse_span
from vidnoise.session.sample_noise import sample_noise

Clips = Callable[[str], Clip]
WIDTH, HEIGHT = 160, 96
PATCH = (16, 16, 64, 64)
"""Flat part of the scene."""
YUV, RGB = PIXEL_FORMATS["yuv420p"], PIXEL_FORMATS["rgb24"]
BT709 = ColorInfo(matrix=1, range=1)
QUICK = ("--model", "fast", "--threads", "1", "--device", "cpu", "--lookahead", "0")


def scene(index: int) -> list[np.ndarray]:
    """Planes of a picture that sparkles like noise of sigma 20, new in each frame, around a patch with a gradient."""
    rng = np.random.default_rng(100 + index)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    luma = 110 + rng.normal(0, 20, (HEIGHT, WIDTH))
    chroma = [128 + rng.normal(0, 10, (HEIGHT // 2, WIDTH // 2)) for _ in range(2)]
    left, top, width, height = PATCH
    luma[top : top + height, left : left + width] = (90 + 0.2 * x + 0.1 * y)[top : top + height, left : left + width]
    for plane, code in zip(chroma, (120, 134), strict=True):
        plane[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2] = code
    return [luma, *chroma]


def shoot(sigmas: Sequence[float], n: int = 4, make: Callable[[int], list[np.ndarray]] = scene) -> list[Frame]:
    """Return frames of a scene with white noise of another sigma in each plane."""
    rng = np.random.default_rng(0)
    stream = []
    for i in range(n):
        planes = [p + rng.normal(0, s, p.shape) for p, s in zip(make(i), sigmas, strict=True)]
        codes = (torch.from_numpy(p.round().clip(0, 255).astype(np.uint8)) for p in planes)
        stream.append(Frame(tuple(codes), YUV, BT709, index=i, pts=i, time_base=Fraction(1, 25)))
    return stream


def write(path: Path, frames: Sequence[Frame], rotation: int = 0) -> Path:
    """Write frames without loss."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame(frame.width, frame.height, "yuv420p")
            for plane, samples in zip(picture.planes, frame.planes, strict=True):
                lines = np.zeros((plane.height, plane.line_size), np.uint8)
                lines[:, : plane.width] = samples.numpy()
                plane.update(lines)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def levels(sigmas: Sequence[float]) -> torch.Tensor:
    """Return the true levels: luma and chroma noise fall into channels of their own."""
    gains = sample_noise(shoot([0, 0, 0], 1)[0])
    luma, chroma = sigmas[0], sigmas[1]
    return torch.tensor([[gain * (luma if i % 3 == 0 else chroma) for i, gain in enumerate(gains)]])


# --- the level --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmas", [(10, 10, 10), (25, 25, 25), (6, 12, 12)])
def test_the_level_of_a_patch_is_within_6_percent_in_every_channel_and_band(sigmas) -> None:
    profile = measure_frames(shoot(sigmas), parse_region(PATCH), 0)
    assert profile is not None
    assert torch.allclose(profile.level, levels(sigmas), rtol=0.06)
    assert (profile.luma, profile.chroma) == (pytest.approx(sigmas[0], rel=0.05), pytest.approx(sigmas[1], rel=0.05))
    assert profile.n_frames == 4


def test_without_a_region_the_flat_part_is_found() -> None:
    profile = measure_frames(shoot((6, 12, 12)), None, 0)
    assert profile is not None
    assert torch.allclose(profile.level, levels((6, 12, 12)), rtol=0.15)


def test_bars_and_highlights_do_not_count_in_a_whole_picture() -> None:
    def with_bars(index: int) -> list[np.ndarray]:
        planes = scene(index)
        planes[0][:16], planes[0][-16:] = 16, 900  # noise of the highlight is clipped
        return planes

    stream = shoot((6, 12, 12), make=with_bars)
    for frame in stream:
        frame.planes[0][:16] = 16
        for plane in frame.planes[1:]:
            plane[:8] = 128
    profile = measure_frames(stream, None, 0)
    assert profile is not None
    assert profile.luma == pytest.approx(6, rel=0.1)


def test_gray_noise_has_no_chroma() -> None:
    stream = [replace(f, planes=f.planes[:1], format=PIXEL_FORMATS["gray"]) for f in shoot((9, 0, 0))]
    profile = measure_frames(stream, parse_region(PATCH), 0)
    assert profile is not None
    assert (profile.luma, profile.chroma) == (pytest.approx(9, rel=0.06), 0)


def test_a_part_without_noise_is_an_error() -> None:
    with pytest.raises(UsageError, match="exactly flat"):
        measure_frames([Frame((torch.full((48, 64, 3), 77, dtype=torch.uint8),), RGB)], None, 0)


def test_texture_that_looks_like_noise_misleads_the_estimate_but_not_the_region() -> None:
    """Where the picture sparkles, the estimate removes it; what was measured in the patch leaves it."""
    sigmas = (4, 4, 4)
    stream = shoot(sigmas)

    def run(**options: Any) -> tuple[float, float]:
        denoiser = Denoiser("fast", device="cpu", precision="fp32", **options)
        found = [denoiser.push(frame)[0] for frame in stream]
        clean = torch.from_numpy(scene(3)[0])
        outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
        outside[PATCH[1] : PATCH[1] + PATCH[3], PATCH[0] : PATCH[0] + PATCH[2]] = False
        error = (found[-1].planes[0] - clean)[outside].square().mean().sqrt()
        level = denoiser._level
        assert level is not None
        return float(level), float(error)

    (blind, blind_error), (measured, error) = run(), run(noise_region=PATCH)
    uniform = float((levels(sigmas).square() @ torch.tensor([1, 1, 1, 3, 3, 3.0]) / 12).sqrt())
    assert measured == pytest.approx(uniform, rel=0.05)
    assert blind > 1.5 * uniform
    assert error < 0.9 * blind_error


# --- frame by frame ---------------------------------------------------------------------------------------------------


def test_a_region_is_followed_over_several_frames_and_from_the_start_after_a_cut() -> None:
    noise = RegionNoise(parse_region(PATCH), 0)
    goes_on, cut = torch.tensor([True]), torch.tensor([False])
    quiet, loud = ([to_network(f, 16) for f in shoot((s, s, s), 8)] for s in (5, 20))

    def relative(frame: torch.Tensor, continues: torch.Tensor) -> float:
        return float((noise.levels(frame, continues) / levels((20, 20, 20))).mean())

    assert relative(quiet[0], cut) == pytest.approx(0.25, rel=0.1)
    for i in range(1, MEMORY):
        assert relative(quiet[i], goes_on) == pytest.approx(0.25, rel=0.08)
    assert 0.3 < relative(loud[0], goes_on) < 0.6  # one of eight
    assert relative(loud[1], cut) == pytest.approx(1, rel=0.08)
    black = torch.zeros_like(loud[0])
    assert relative(black, goes_on) == relative(black, cut) == pytest.approx(1, rel=0.08)
    assert not noise.is_flat


def test_a_region_that_is_always_flat_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    flat = np.full((48, 64, 3), 99, np.uint8)
    with caplog.at_level(logging.WARNING):
        (clean,) = vidnoise.denoise([flat], model="fast", device="cpu", noise_region=(0, 0, 32, 32))
    assert np.array_equal(clean, flat)
    assert "noise_region holds no noise" in caplog.text


def test_a_region_that_is_not_flat_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    stream = shoot((4, 4, 4))
    list(vidnoise.denoise(stream, model="fast", device="cpu", noise_region=PATCH))
    assert not caplog.text
    list(vidnoise.denoise(stream, model="fast", device="cpu", noise_region=(90, 0, 64, 64)))
    assert caplog.text.count("noise_region 90,0,64,64 is hardly flat: what varies in it is 5 times") == 1
    caplog.clear()
    measure_frames(stream, parse_region((90, 0, 64, 64)), 0)
    assert caplog.text.count("is hardly flat") == 1


def test_a_sigma_of_one_frame_takes_precedence() -> None:
    (frame,) = shoot((4, 4, 4), 1)
    denoiser = Denoiser("fast", device="cpu", noise_region=PATCH)
    denoiser.push(frame, sigma=33)
    assert denoiser.estimated_sigma == pytest.approx(33)
    denoiser.push(frame)
    assert denoiser.estimated_sigma == pytest.approx(float(levels((4, 4, 4)).mean()) * 255, rel=0.3)


def test_tiles_lookahead_and_batches_use_it_too() -> None:
    stream = shoot((8, 8, 8), 3)
    options: Any = {"noise_region": PATCH, "detect_cuts": False}
    plain = list(Denoiser("fast", device="cpu", precision="fp32", **options)(stream))
    with vidnoise.StreamBatch("fast", device="cpu", precision="fp32") as batch:
        sessions = [batch.open(**options), batch.open(sigma=8, detect_cuts=False)]
        together = [batch.push(dict.fromkeys(sessions, frame))[sessions[0]][0] for frame in stream]
    for a, b in zip(plain, together, strict=True):
        assert (a.planes[0].int() - b.planes[0].int()).abs().max() <= 1
    ahead = Denoiser("fast", device="cpu", precision="fp32", lookahead=2, **options)
    assert len(list(ahead(stream))) == 3
    assert ahead.estimated_sigma == pytest.approx(float(levels((8, 8, 8)).mean()) * 255, rel=0.3)
    tiled = Denoiser("fast", device="cpu", precision="fp32", max_memory=400, **options)
    for a, b in zip(plain, tiled(stream), strict=True):
        assert (a.planes[0].int() - b.planes[0].int()).abs().max() <= 2


# --- the place --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_region_is_of_the_picture_as_shown(rotation: int) -> None:
    stored = np.zeros((50, 70))
    shown = np.rot90(stored, rotation // 90)
    marked = np.zeros(shown.shape)
    marked[4:36, 2:34] = 1
    stored = np.rot90(marked, -rotation // 90)
    rows, columns = Region(2, 4, 32, 32).place(70, 50, rotation)
    found = np.zeros(stored.shape)
    found[rows, columns] = 1
    assert np.array_equal(found, stored)


def test_an_odd_region_takes_in_whole_pairs_of_lines() -> None:
    assert Region(1, 3, 33, 32).place(67, 35, 0) == (slice(2, 34), slice(0, 34))


def test_in_a_field_a_region_has_half_the_lines() -> None:
    region = Region(0, 20, 64, 32, lines=96)
    assert region.place(64, 48, 0) == (slice(10, 26), slice(0, 64))
    assert region.place(64, 96, 0) == (slice(20, 52), slice(0, 64))


def test_interlaced_video_is_measured_by_field() -> None:
    def combed(index: int) -> list[np.ndarray]:
        planes = scene(index)
        planes[0][::2] += 15  # the fields differ in brightness, which is no noise
        return planes

    stream = [replace(frame, interlaced=True) for frame in shoot((7, 7, 7), make=combed)]
    region = replace(parse_region(PATCH), lines=HEIGHT)
    profile = measure_frames(stream, region, 0)
    assert profile is not None
    assert profile.luma == pytest.approx(7, rel=0.08)
    options: Any = {"device": "cpu", "noise_region": region}
    denoiser = FieldDenoiser(Denoiser("fast", **options), lambda model: Denoiser(model, **options))
    assert len(list(denoiser(stream))) == 4
    assert denoiser.estimated_sigma == pytest.approx(float(levels((7, 7, 7)).mean()) * 255, rel=0.3)


# --- the options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("16,40,128", "must be X,Y,W,H in whole pixels"),
        ("a,b,c,d", "must be X,Y,W,H in whole pixels"),
        ((1.5, 2, 40, 40), "must be X,Y,W,H in whole pixels"),
        ("-1,0,64,64", "begins outside"),
        ((0, 0, 31, 64), f"at least {LEAST}x{LEAST} pixels"),
    ],
)
def test_regions_that_cannot_be_are_refused_at_the_call(given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        vidnoise.denoise([], model="fast", noise_region=given)
    assert caught.value.options == ("noise_region",)


def test_a_region_outside_of_the_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="reaches outside of the picture, which is 160x96"):
        Denoiser("fast", device="cpu", noise_region=(100, 0, 64, 64)).push(shoot((1, 1, 1), 1)[0])


@pytest.mark.parametrize("given", ["2", "2-", "a-b", (1,), (0, "x")])
def test_a_span_that_cannot_be_read_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="noise_from must be START-END"):
        parse_span(given)


@pytest.mark.parametrize("given", ["3-2", (2, 2), (-1, 2), (0, float("inf"))])
def test_a_span_without_a_length_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="ends before it begins"):
        parse_span(given)


def test_spans_are_written_as_times_are() -> None:
    assert parse_span("1:03-1:05.5") == (63, 65.5)
    assert parse_span((0, 2)) == parse_span(" 0 - 2") == (0, 2)


@pytest.mark.parametrize("name", ["noise_region", "noise_from"])
def test_sigma_goes_with_neither(name: str) -> None:
    with pytest.raises(UsageError, match=f"sigma gives the noise level that {name} would measure"):
        FileOptions(sigma=3, **{name: "0-2"})


# --- files ------------------------------------------------------------------------------------------------------------


def run(*args: object) -> int:
    return main([*map(str, args), *QUICK])


def test_a_file_is_measured_in_a_region_during_a_span(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second half is noisier, but only the first is measured."""
    path = write(tmp_path / "in.mkv", [*shoot((5, 5, 5), 5), *shoot((20, 20, 20), 5)])
    region = ",".join(map(str, PATCH))
    assert run(path, "-o", tmp_path / "a.mkv", "--noise-from", "0-0.2", "--noise-region", region, "-v") == 0
    text = capsys.readouterr().err
    assert f"measured in the region {region} of 5 frames" in text
    luma = float(text.partition("noise level: luma ")[2].partition("/")[0])
    assert luma == pytest.approx(5, rel=0.05)
    later = vidnoise.denoise_file(path, tmp_path / "b.mkv", model="fast", lookahead=0, noise_from=(0.2, 0.4))
    first = vidnoise.denoise_file(path, tmp_path / "c.mkv", model="fast", lookahead=0, noise_from=(0, 0.2), start=0.2)
    assert later.sigma_mean is not None
    assert first.sigma_mean is not None
    assert later.sigma_mean / first.sigma_mean == pytest.approx(4, rel=0.25)  # the times are those of the file


def test_a_region_alone_is_measured_in_each_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.mkv", shoot((5, 5, 5)))
    assert run(path, "-o", tmp_path / "a.mkv", "--noise-region", "16,16,64,64", "-v") == 0
    assert "measured in the region 16,16,64,64, in each frame" in capsys.readouterr().err


def test_a_resumed_run_must_measure_at_the_same_place(tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.mkv", shoot((5, 5, 5), 10)), tmp_path / "a.mkv"
    given: Any = {
        "model": "fast", "device": "cpu", "lookahead": 0, "resume": True, "segment_seconds": 0.2, "noise_from": "0-0.2",
    }  # fmt: skip
    stops = iter([False] * 12)  # five of them while the noise is measured
    vidnoise.denoise_file(path, out, **given, should_stop=lambda: next(stops, True))
    assert not out.exists()
    with pytest.raises(UsageError, match=r"other settings \(noise_region none, now 16,16,64,64\)"):
        vidnoise.denoise_file(path, out, **given, noise_region="16,16,64,64")
    stats = vidnoise.denoise_file(path, out, **given)
    assert out.exists()
    assert stats.frames_kept > 0
    assert stats.frames_kept + stats.frames_out == 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--noise-from", "10-12"), "--noise-from 10-12 is outside of"),
        (("--noise-from", "0-0.1", "--live"), "--noise-from needs a file"),
        (("--noise-from", "0-x"), "--noise-from must be START-END"),
        (("--noise-region", "100,0,64,64"), "--noise-region 100,0,64,64 reaches outside"),
        (("--noise-from", "0-1", "--sigma", "4"), "--sigma gives the noise level that --noise-from would measure"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path, capsys, options, says) -> None:
    path = write(tmp_path / "in.mkv", shoot((5, 5, 5), 3))
    assert run(path, "-o", tmp_path / "a.mkv", *options) == 2
    text = capsys.readouterr().err.strip()
    assert says in text
    assert "\n" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_a_picture_has_a_region_but_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    rng = np.random.default_rng(0)
    picture = rng.normal(120, 10, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    assert run(tmp_path / "in.png", "-o", tmp_path / "a.png", "--noise-from", "0-1") == 2
    assert "is one picture" in capsys.readouterr().err
    assert run(tmp_path / "in.png", "-o", tmp_path / "a.png", "--noise-region", "0,0,64,64", "-q") == 0
    clean = vidnoise.denoise_image(picture, model="fast", device="cpu", noise_region=(0, 0, 64, 64))
    assert clean.std() < 0.5 * picture.std()
