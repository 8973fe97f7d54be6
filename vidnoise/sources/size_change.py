"""Videos whose pictures change size or format midway."""

from __future__ import annotations

import math
from fractions import Fraction

import av

from vidnoise.errors import SizeChangeError
from vidnoise.frame import PixelFormat, StreamInfo


def is_same_format(first: PixelFormat, second: PixelFormat) -> bool:
    """Whether two formats have the same sample layout; a different range is a matter of tags."""
    return _plain(first) == _plain(second)


def _plain(format: PixelFormat) -> str:
    """Return the name of a format without the letter for full range in deprecated names."""
    return "yuv" + format.name[len("yuvj") :] if format.name.startswith("yuvj") else format.name


def size_change_error(
    uri: str, info: StreamInfo, picture: av.VideoFrame, count: int, seconds: Fraction
) -> SizeChangeError:
    """Make the error for a video that cannot be written to one output, with advice.

    Args:
        uri: The input's name in messages.
        info: Description of the pictures before the change.
        picture: The first picture after the change.
        count: Number of that picture.
        seconds: Its time from the beginning of the input.
    """
    time = math.floor(seconds * 1000) / 1000  # rounded down, so that both parts are cut before this frame
    apart = f"process the parts apart (duration {time:.3f} for this one, start {time:.3f} for the next)"
    if time <= 0:  # concatenated streams, each with its own clock
        apart = "take the parts apart first, with the program that joined them: the clock begins anew there"
    return SizeChangeError(
        f"{uri}: frame {count} (at {time:.3f} s) changes from {info.width}x{info.height} "
        f"{info.format.name} to {picture.width}x{picture.height} {picture.format.name}; one output holds one size, "
        f'so {apart}; or give size_change="split" or "scale"'
    )
