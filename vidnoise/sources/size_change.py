"""Pictures that change their size or format in the middle of a video."""

from __future__ import annotations

import math
from fractions import Fraction

import av

from vidnoise.errors import SizeChangeError
from vidnoise.frame import PixelFormat, StreamInfo


def is_same_format(first: PixelFormat, second: PixelFormat) -> bool:
    """Whether samples lie alike: a range that changes is a matter of the tags."""
    return _plain(first) == _plain(second)


def _plain(format: PixelFormat) -> str:
    """The name without the letter that old formats have for the full range."""
    return "yuv" + format.name[len("yuvj") :] if format.name.startswith("yuvj") else format.name


def change_refused(
    uri: str, info: StreamInfo, picture: av.VideoFrame, count: int, seconds: Fraction
) -> SizeChangeError:
    """The error for a video that cannot go into one output, with what helps.

    Args:
        uri: The input, for messages.
        info: Of the pictures before.
        picture: The first one that is another.
        count: Its number.
        seconds: Its time since the beginning of the input.
    """
    time = math.floor(seconds * 1000) / 1000  # rounded down, so that both parts are cut before this frame
    apart = f"process the parts apart (duration {time:.3f} for this one, start {time:.3f} for the next)"
    if time <= 0:  # streams that were put one behind the other, each with a clock of its own
        apart = "take the parts apart first, with the program that joined them: the clock begins anew there"
    return SizeChangeError(
        f"{uri}: frame {count} (at {time:.3f} s) changes from {info.width}x{info.height} "
        f"{info.format.name} to {picture.width}x{picture.height} {picture.format.name}; one output holds one size, "
        f'so {apart}; or give size_change="split" or "scale"'
    )
