"""What is known to end the process in a library is never asked of it; each of these was a segmentation fault."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, StreamInfo
from vidnoise.sinks import open_sink


def test_avif_is_refused(tmp_path: Path) -> None:
    script = (
        "from vidnoise.sinks import open_sink; from vidnoise.errors import VidnoiseError\n"
        "avif = {'format': 'avif'}\n"
        "for name, options in (('x.avif', {}), ('x.AVIF', {}), ('x.mkv', avif), ('-', avif)):\n"
        "    try: open_sink(name, **options)\n"
        "    except VidnoiseError as ex: print(type(ex).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout.split()) == (0, ["FormatError"] * 2 + ["UsageError"] * 2), done.stderr


@pytest.mark.parametrize("width", [34, 40, 48])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p10le"])
def test_x265_is_not_asked_for_widths_at_which_it_crashes(tmp_path: Path, width: int, pix_fmt: str) -> None:
    info = StreamInfo(width, 32, PIXEL_FORMATS[pix_fmt], Fraction(1, 25), Fraction(25), codec="hevc")
    assert open_sink(tmp_path / "a.mkv").plan(info)[0] == "libx264"  # type: ignore[attr-defined]
    with pytest.raises(FormatError, match="libx265 takes no"):
        open_sink(tmp_path / "b.mkv", codec="hevc").plan(info)  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [32, 50, 64])
def test_control_x265_takes_other_widths(tmp_path: Path, width: int) -> None:
    info = StreamInfo(width, 32, PIXEL_FORMATS["yuv420p10le"], Fraction(1, 25), Fraction(25), codec="hevc")
    assert open_sink(tmp_path / "a.mkv").plan(info)[0] == "libx265"  # type: ignore[attr-defined]


def test_an_encoder_that_knows_old_names_only_is_used(tmp_path: Path) -> None:
    """RoQ takes yuvj444p and nothing else, which was an internal error."""
    info = StreamInfo(96, 64, PIXEL_FORMATS["yuv420p"], Fraction(1, 25), Fraction(25))
    assert open_sink(tmp_path / "a.roq").plan(info) == ("roqvideo", "yuvj444p")  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        open_sink(tmp_path / "b.roq", pix_fmt="nonsense")
