"""``vidnoise info``: what it says of a video, and that it says it of any."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from support.clips import Clip, Recipe, write
from vidnoise.cli import main
from vidnoise.reports.inspection import inspect_video

Clips = Callable[[str], Clip]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["info", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_streams_colour_and_plan(clips: Clips, capsys):
    code, out, err = call(capsys, clips("everything"), "--model", "fast")
    assert (code, err) == (0, "")
    for text in ("h264, 64x48", "yuv420p (8 bit)", "audio     #1 aac, deu", "subtitle", "chapters  2", "matrix BT.709",
                 "pixels 16/11", "encode with libx264 as yuv420p", "range limited", "everything-clean"):  # fmt: skip
        assert text in out, out


def test_json_has_everything(clips: Clips, capsys):
    report = json.loads(call(capsys, clips("rotated"), "--model", "fast", "--json")[1])
    assert report["video"]["rotation"] in (90, 270)
    assert (report["video"]["width"], report["video"]["height"]) == (64, 48)
    assert report["color"]["matrix"] is None
    assert report["color"]["taken_as"] == {"matrix": "BT.601", "range": "limited"}
    assert set(report["noise"]["planes"]) == {"y", "u", "v"}
    assert report["would"]["command"].startswith("vidnoise ")
    assert report["encoding"] == {"encoder": "libx264", "pixel_format": "yuv420p"}


def test_a_long_clip_is_looked_at_in_three_places(tmp_path):
    recipe = Recipe(".mkv", "ffv1", {}, ticks=tuple(range(60)), time_base=Fraction(1, 25))
    report = inspect_video(write(tmp_path / "long.mkv", recipe), model="fast")
    assert report.noise is not None
    assert len(report.noise.sigmas) == 3


def test_what_there_is_to_say_of_a_clip_is_said_once(tmp_path, caplog):
    """Though it is opened again at each place."""
    caplog.set_level(logging.INFO, "vidnoise.sources")
    recipe = Recipe(".nut", "rawvideo", {}, pix_fmt="yuv420p16be", ticks=tuple(range(60)), time_base=Fraction(1, 25))
    report = inspect_video(write(tmp_path / "long.nut", recipe), model="fast")
    assert report.noise is not None
    assert len(report.noise.sigmas) == 3
    said = [record.getMessage() for record in caplog.records if "is processed as yuv420p16le" in record.getMessage()]
    assert len(said) == 1


@pytest.mark.parametrize("format", ["yuv420p", "gray", "bgr0", "yuv420p10le"])
def test_the_noise_of_each_plane_is_about_what_was_added(tmp_path, format):
    """A flat picture under noise of standard deviation 10 in every component."""
    import av

    path = tmp_path / "flat.nut"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, format
        scale = 4 if format.endswith("10le") else 1
        for _ in range(6):
            frame = av.VideoFrame(96, 64, format)
            for plane in frame.planes:
                values = np.clip(rng.normal(128, 10, plane.buffer_size // (2 if scale > 1 else 1)) * scale, 0, 1023)
                plane.update(values.astype(np.uint16 if scale > 1 else np.uint8).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    report = inspect_video(path, model="standard")
    assert report.noise is not None
    # Between chroma samples lies what nobody measured, so of 4:2:0 chroma the network takes less away.
    for name, value in report.noise.planes.items():
        assert (3 if name in "uv" else 6) < value < 13, report.noise


def test_without_noise_no_model_is_needed(clips: Clips, capsys):
    code, out, _ = call(capsys, clips("cfr"), "--no-noise", "--model", "none such")
    assert code == 0
    assert "estimated" not in out


@pytest.mark.parametrize(("args", "exit_code"), [(("missing.mp4",), 3), (("lavfi:testsrc2", "--model", "nosuch"), 6)])
def test_errors_are_one_line(capsys, args, exit_code):
    code, out, err = call(capsys, *args)
    assert (code, out, err.count("\n")) == (exit_code, "", 1)
