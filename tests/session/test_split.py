"""Two pictures in one: every format, every rotation, samples untouched beside the divider."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from support.frames import make_frame
from vidnoise.color import gray_codes
from vidnoise.errors import FormatError
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.session.split import divider_width, in_format_of, side_by_side, split

FORMATS = ["yuv420p", "yuv422p10le", "yuv410p", "nv12", "p010le", "gray", "rgb24", "bgra", "gbrp16le", "rgbf32le"]


def frame(format: str, height: int = 36, width: int = 50, seed: int = 0) -> Frame:
    return replace(make_frame(format, height, width, seed), pts=seed)


def turned(rotation: int, plane: torch.Tensor) -> torch.Tensor:
    """What one sees: counter-clockwise, as FFmpeg's display matrix has it."""
    plane = plane.to(torch.float64)  # torch turns few types of integers
    return torch.rot90(plane, rotation // 90, (0, 1))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_split_has_the_left_half_of_one_and_the_right_half_of_the_other(format, rotation):
    a, b = frame(format, seed=1), frame(format, seed=2)
    both = split(a, b, rotation=rotation)
    assert both.pts == 2
    for mixed, left, right in zip(both.planes, a.planes, b.planes, strict=True):
        mixed, left, right = (turned(rotation, p) for p in (mixed, left, right))
        width = mixed.shape[1]
        middle, margin = width // 2, 4
        assert torch.equal(mixed[:, : middle - margin], left[:, : middle - margin])
        assert torch.equal(mixed[:, middle + margin :], right[:, middle + margin :])


@pytest.mark.parametrize("format", FORMATS)
def test_the_divider_is_white(format):
    a = frame(format, width=48)
    both, white = split(a, a), gray_codes(a, 1.0)
    for i, plane in enumerate(both.planes):
        middle = plane[:, plane.shape[1] // 2].to(torch.float64)
        for j, name in enumerate(both.format.layout[i]):
            if name != "a":
                assert (middle if middle.ndim == 1 else middle[:, j]).unique().tolist() == [white[name]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_the_ends_there_is_one_picture_and_no_divider(share):
    a, b = frame("yuv420p", 35, 49, seed=1), frame("yuv420p", 35, 49, seed=2)
    both = split(a, b, share=share)
    assert all(torch.equal(x, y) for x, y in zip(both.planes, (b, a)[int(share)].planes, strict=True))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(36, 50), (35, 49)])
def test_side_by_side_has_both_whole(format, rotation, size):
    a, b = frame(format, *size, seed=1), frame(format, *size, seed=2)
    both = side_by_side(a, b, rotation=rotation)
    for i, plane in enumerate(both.planes):
        assert tuple(plane.shape) == both.format.plane_shape(i, both.height, both.width)
    seen, left, right = (turned(rotation, f.planes[0]) for f in (both, a, b))
    n = left.shape[1]
    places = [
        [i for i in range(seen.shape[1] - n + 1) if torch.equal(seen[:, i : i + n], part)] for part in (left, right)
    ]
    assert len(places[0]) == len(places[1]) == 1
    assert places[1][0] - places[0][0] >= n + 2
    assert seen.shape[1] >= 2 * left.shape[1] + 2


def test_another_format_is_converted_by_its_difference():
    a = frame("yuv420p", seed=1)
    assert in_format_of(a, a) is a
    high = Frame(tuple((p.to(torch.int32) * 4).to(torch.uint16) for p in a.planes), PIXEL_FORMATS["yuv420p10le"])
    back = in_format_of(high, a)
    assert back.format == a.format
    assert all(torch.equal(x, y) for x, y in zip(back.planes, a.planes, strict=True))


def test_other_sizes_are_refused():
    with pytest.raises(FormatError, match="differ in size: 50x36 and 64x36"):
        in_format_of(frame("yuv420p", 36, 64), frame("yuv420p"))


def test_the_divider_grows_with_the_picture():
    assert [divider_width(n, 2) for n in (64, 1280, 1920, 3840)] == [2, 2, 4, 8]
