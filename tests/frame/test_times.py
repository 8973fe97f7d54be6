"""Times: of frames, of packets, and as people write them."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from vidnoise.frame import PIXEL_FORMATS, Frame, StreamInfo
from vidnoise.frame.clock import parse_clock
from vidnoise.frame.stamps import decoded_at, shift_stamps, shown_at

GRAY = PIXEL_FORMATS["gray"]


def test_a_frame_knows_its_time_exactly():
    assert Frame((), GRAY, pts=1001, time_base=Fraction(1, 30000)).seconds == Fraction(1001, 30000)
    assert Frame((), GRAY).seconds is None


@pytest.mark.parametrize(
    ("n_frames", "duration", "rate", "expected"),
    [
        (7, 2.0, Fraction(25), 7),
        (None, 2.0, Fraction(25), 50),
        (None, 2.0, None, None),
        (None, None, Fraction(25), None),
    ],
)
def test_the_number_of_frames_is_told_or_estimated(n_frames, duration, rate, expected):
    info = StreamInfo(8, 6, GRAY, Fraction(1, 25), rate, n_frames=n_frames, duration_seconds=duration)
    assert info.estimated_frames == expected


@pytest.mark.parametrize(
    ("pts", "dts", "shown", "decoded"), [(5, 3, 5, 3), (None, 3, 3, 3), (5, None, 5, 5), (0, 3, 0, 3)]
)
def test_either_time_stamp_stands_in_for_the_other(pts, dts, shown, decoded):
    packet = av.Packet(b"x")
    packet.pts, packet.dts = pts, dts
    assert (shown_at(packet), decoded_at(packet)) == (shown, decoded)
    shift_stamps(packet, -2)
    assert (packet.pts, packet.dts) == (None if pts is None else pts - 2, None if dts is None else dts - 2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1:30", 90),
        ("0:01:30.5", 90.5),
        ("7.", 7),
        (".5", 0.5),
        ("1:.5", 60.5),
        (".", None),
        ("", None),
        ("1:", None),
        ("-1", None),
        ("1:2:3:4", None),
    ],
)
def test_clock_times(text, seconds):
    assert parse_clock(text) == seconds
