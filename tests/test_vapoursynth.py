"""The filter for VapourSynth: any order of requests, formats, colours. Without VapourSynth, a part is skipped."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vidnoise
from support.paths import ROOT
from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.vapoursynth import WARM_UP_FRAMES, _color, _Stream, denoise, pixel_format

LENGTH = 100
OPTIONS: Any = {"model": "fast", "device": "cpu", "precision": "fp32", "backend": "eager"}


# --- the order of requests --------------------------------------------------------------------------------------------


class Recorder:
    """A stand-in for the denoiser: each frame becomes its number, then that of the first frame of its run."""

    def __init__(self, n_kept: int = 12, delay: int = 0) -> None:
        self.begins: list[int] = []
        self.n_finished = 0
        self.fails_at: int | None = None
        self._delay = delay
        self.stream = _Stream(self._frames, self._start, LENGTH, n_kept)

    def _frames(self, begin: int) -> Generator[Frame, None, None]:
        for n in range(begin, LENGTH):
            if n == self.fails_at:
                raise ValueError("no such frame")
            yield Frame((torch.tensor([n]),), PIXEL_FORMATS["gray"])

    def _start(self, frames: Iterator[Frame], begin: int) -> Iterator[Frame]:
        self.begins.append(begin)
        waiting = []
        for frame in frames:
            waiting.append(frame)
            if len(waiting) > self._delay:
                yield self._finish(waiting.pop(0), begin)
        for frame in waiting:
            yield self._finish(frame, begin)

    def _finish(self, frame: Frame, begin: int) -> Frame:
        self.n_finished += 1
        return replace(frame, planes=(*frame.planes, torch.tensor([begin])))

    def ask(self, *numbers: int) -> list[int]:
        """Request frames; returns the first frames of their runs."""
        found = [self.stream.planes(n) for n in numbers]
        assert [int(planes[0]) for planes in found] == list(numbers)
        return [int(planes[1]) for planes in found]


@pytest.mark.parametrize("delay", [0, 5])
def test_frames_in_order_are_made_once(delay: int) -> None:
    recorder = Recorder(delay=delay)
    assert set(recorder.ask(*range(LENGTH))) == {0}
    assert (recorder.begins, recorder.n_finished) == ([0], LENGTH)


def test_threads_that_ask_a_little_out_of_order_get_the_frames_of_one_run() -> None:
    recorder = Recorder()
    order = [n ^ 3 for n in range(LENGTH)]  # 3, 2, 1, 0, 7, 6, ...
    assert set(recorder.ask(*order)) == {0}
    assert recorder.n_finished == LENGTH


def test_a_jump_starts_a_stated_number_of_frames_before() -> None:
    recorder = Recorder()
    assert recorder.ask(0, 1, 80, 81, 40) == [0, 0, 80 - WARM_UP_FRAMES, 80 - WARM_UP_FRAMES, 40 - WARM_UP_FRAMES]
    assert recorder.ask(5) == [0]


def test_a_short_step_ahead_goes_on() -> None:
    recorder = Recorder()
    assert recorder.ask(0, 1 + WARM_UP_FRAMES) == [0, 0]


def test_going_back_frame_by_frame_starts_anew_only_now_and_then() -> None:
    recorder = Recorder(n_kept=20)
    begins = recorder.ask(*range(90, 40, -1))
    assert all(n - begin >= WARM_UP_FRAMES // 2 for n, begin in zip(range(90, 40, -1), begins, strict=True))
    assert len(recorder.begins) <= 50 // (WARM_UP_FRAMES // 2) + 1


def test_few_frames_are_kept() -> None:
    recorder = Recorder(n_kept=12)
    recorder.ask(*range(LENGTH), 50, 20)
    assert len(recorder.stream._kept) <= 12


def test_after_an_error_the_next_request_starts_anew() -> None:
    recorder = Recorder()
    recorder.fails_at = 3
    with pytest.raises(ValueError, match="no such frame"):
        recorder.ask(0, 1, 2, 3)
    recorder.fails_at = None
    assert recorder.ask(3, 4) == [0, 0]
    assert recorder.begins == [0, 0]


# --- formats and colours ----------------------------------------------------------------------------------------------


def clip_of(family: str, bits: int, kind: str = "INTEGER", w: int = 0, h: int = 0, width: int = 64) -> Any:
    format = SimpleNamespace(
        color_family=SimpleNamespace(name=family), bits_per_sample=bits, sample_type=SimpleNamespace(name=kind),
        subsampling_w=w, subsampling_h=h, num_planes=1 if family == "GRAY" else 3, name=f"{family}{bits}",
    )  # fmt: skip
    return SimpleNamespace(format=format, width=width)


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        (clip_of("YUV", 8, w=1, h=1), "yuv420p"), (clip_of("YUV", 10, w=1), "yuv422p10le"),
        (clip_of("YUV", 16), "yuv444p16le"), (clip_of("YUV", 8, w=2), "yuv411p"), (clip_of("YUV", 8, h=1), "yuv440p"),
        (clip_of("RGB", 8), "gbrp"), (clip_of("RGB", 12), "gbrp12le"), (clip_of("RGB", 32, "FLOAT"), "gbrpf32le"),
        (clip_of("GRAY", 8), "gray"), (clip_of("GRAY", 14), "gray14le"), (clip_of("GRAY", 32, "FLOAT"), "grayf32le"),
    ],
)  # fmt: skip
def test_formats(clip: Any, name: str) -> None:
    assert pixel_format(clip).name == name


@pytest.mark.parametrize(
    "clip",
    [clip_of("YUV", 32, "FLOAT"), clip_of("RGB", 16, "FLOAT"), clip_of("YUV", 11), clip_of("GRAY", 32),
     clip_of("YUV", 8, w=3)],
)  # fmt: skip
def test_formats_without_a_match_are_refused(clip: Any) -> None:
    with pytest.raises(FormatError, match="is not supported: convert it"):
        pixel_format(clip)


@pytest.mark.parametrize("clip", [SimpleNamespace(format=None, width=64), clip_of("YUV", 8, width=0)])
def test_clips_that_change_are_refused(clip: Any) -> None:
    with pytest.raises(FormatError, match="changes its format or size"):
        pixel_format(clip)


def test_colours_are_those_of_the_properties() -> None:
    props = {"_Matrix": 9, "_ColorRange": 1, "_Primaries": 9, "_Transfer": 16, "_ChromaLocation": 2}
    assert _color(props) == ColorInfo(matrix=9, range=1, primaries=9, transfer=16, chroma_location=3)
    assert _color({}) == ColorInfo()
    assert [_color({"_ColorRange": code}).range for code in (0, 1)] == [2, 1]
    assert [_color({"_Range": code}).range for code in (0, 1)] == [1, 2]


def test_without_vapoursynth_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "vapoursynth", None)
    with pytest.raises(UsageError, match="VapourSynth's Python module cannot be imported"):
        denoise(clip_of("YUV", 8), **OPTIONS)


# --- with VapourSynth -------------------------------------------------------------------------------------------------


@pytest.fixture
def vs() -> Any:
    return pytest.importorskip("vapoursynth")


def noisy_clip(vs: Any, name: str, n: int = 30, *, width: int = 64, height: int = 48, **props: Any) -> Any:
    """Return a clip of noise around middle gray, other in each frame, that has a brighter square."""
    format = getattr(vs, name)
    blank = vs.core.std.BlankClip(format=format, width=width, height=height, length=n, fpsnum=25, fpsden=1)
    unit = 1 / 255 if blank.format.sample_type == vs.FLOAT else 1 << (blank.format.bits_per_sample - 8)

    def filled(n: int, f: Any) -> Any:
        out, rng = f.copy(), np.random.default_rng(n)
        for i in range(blank.format.num_planes):
            plane = np.asarray(out[i])
            values = 110 + rng.normal(0, 12, plane.shape)
            values[8:20, 8 + n % 4 : 20] += 40
            plane[:] = (values * unit).astype(plane.dtype)
        for key, value in props.items():
            out.props[key] = value
        return out

    return blank.std.ModifyFrame(clips=blank, selector=filled)


def arrays(frame: Any) -> list[np.ndarray]:
    return [np.array(frame[i]) for i in range(frame.format.num_planes)]


def ours(clip: Any, name: str, numbers: range, color: ColorInfo, **options: Any) -> list[list[np.ndarray]]:
    """Return the same frames denoised by :func:`vidnoise.denoise`, with planes in the order of VapourSynth."""
    order = [1, 2, 0] if name.startswith("gbr") else [0, 1, 2]
    frames = []
    for n in numbers:
        planes = arrays(clip.get_frame(n))
        planes = [planes[i] for i in order[: len(planes)]]
        frames.append(
            Frame(tuple(map(torch.from_numpy, planes)), PIXEL_FORMATS[name], color, pts=n, time_base=Fraction(1, 25))
        )
    back = [2, 0, 1] if name.startswith("gbr") else [0, 1, 2]
    return [
        [frame.planes[i].numpy() for i in back[: len(frame.planes)]]
        for frame in vidnoise.denoise(frames, **OPTIONS, **options)
    ]


def assert_equal(clean: Any, expected: list[list[np.ndarray]]) -> None:
    for frame, planes in zip(clean.frames(), expected, strict=True):
        for a, b in zip(arrays(frame), planes, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("theirs", "name"),
    [("YUV420P8", "yuv420p"), ("YUV422P10", "yuv422p10le"), ("YUV444P16", "yuv444p16le"), ("RGB24", "gbrp"),
     ("RGBS", "gbrpf32le"), ("GRAY8", "gray"), ("GRAY16", "gray16le"), ("GRAYS", "grayf32le")],
)  # fmt: skip
def test_a_clip_becomes_what_denoise_makes_of_its_frames(vs: Any, theirs: str, name: str) -> None:
    clip = noisy_clip(vs, theirs, 4)
    clean = denoise(clip, **OPTIONS)
    assert (clean.format, clean.num_frames, clean.fps) == (clip.format, 4, clip.fps)
    assert_equal(clean, ours(clip, name, range(4), ColorInfo()))


def test_lookahead_and_many_threads(vs: Any) -> None:
    clip = noisy_clip(vs, "YUV420P8", 30)
    assert_equal(denoise(clip, lookahead=4, **OPTIONS), ours(clip, "yuv420p", range(30), ColorInfo(), lookahead=4))


def test_properties_are_kept_and_determine_the_colours(vs: Any) -> None:
    clip = noisy_clip(vs, "YUV420P8", 2, _Matrix=9, _ColorRange=0, _ChromaLocation=2)
    clean = denoise(clip, sigma=12, **OPTIONS)
    color = ColorInfo(matrix=9, range=2, chroma_location=3)
    assert_equal(clean, ours(clip, "yuv420p", range(2), color, sigma=12))
    assert int(clean.get_frame(1).props["_Matrix"]) == 9
    untagged = ours(clip, "yuv420p", range(2), ColorInfo(), sigma=12)
    assert not np.array_equal(arrays(clean.get_frame(1))[0], untagged[1][0])


def test_a_seek_differs_little_from_a_run_from_the_beginning(vs: Any) -> None:
    clip = noisy_clip(vs, "YUV420P8", 60)
    through = ours(clip, "yuv420p", range(51), ColorInfo(), sigma=12)[50]
    sought = arrays(denoise(clip, sigma=12, **OPTIONS).get_frame(50))
    difference = np.abs(sought[0].astype(int) - through[0].astype(int))
    assert difference.max() <= 9
    assert np.sqrt((difference**2).mean()) < 1
    cut = arrays(denoise(clip[50:], sigma=12, **OPTIONS).get_frame(0))  # without a past, as a control
    assert np.abs(cut[0].astype(int) - through[0].astype(int)).mean() > 2 * difference.mean()


def test_zones_have_the_times_of_the_clip_also_after_a_seek(vs: Any) -> None:
    clip = noisy_clip(vs, "GRAY8", 60)
    clean = denoise(clip, zones="0-2:0", **OPTIONS)
    for n, is_same in ((55, False), (49, True), (50, False), (0, True)):
        assert np.array_equal(arrays(clean.get_frame(n))[0], arrays(clip.get_frame(n))[0]) == is_same


def test_interlaced_frames_are_denoised_by_field_in_which_a_region_has_half_the_lines(vs: Any) -> None:
    clip = noisy_clip(vs, "YUV420P8", 3, _FieldBased=2)
    interlaced, whole = (
        arrays(denoise(c, sigma=12, **OPTIONS).get_frame(2))[0]
        for c in (clip, noisy_clip(vs, "YUV420P8", 3, _FieldBased=0))
    )
    assert not np.array_equal(interlaced, whole)
    clip = noisy_clip(vs, "YUV420P8", 3, _FieldBased=2)
    denoise(clip, noise_region=(32, 16, 32, 32), **OPTIONS).get_frame(2)  # reaches down to line 48


def test_the_script_of_the_documentation_runs(vs: Any) -> None:
    text = (ROOT / "docs/EDITORS.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    source = 'core.bs.VideoSource("night.mkv")'
    assert source in script
    exec(script.replace(source, "source"), {"source": noisy_clip(vs, "YUV420P8", 3)})
    assert len(list(vs.get_output(0).clip.frames())) == 3
    vs.clear_outputs()


def test_what_cannot_be_is_said_at_the_call(vs: Any, tmp_path: Any) -> None:
    clip = noisy_clip(vs, "YUV420P8", 2)
    with pytest.raises(FormatError, match=r"must be a vapoursynth\.VideoNode, got a str"):
        denoise("a.mkv")
    with pytest.raises(UsageError, match="grain_table is written at the end"):
        denoise(clip, grain_table=tmp_path / "a.tbl", **OPTIONS)
    with pytest.raises(UsageError, match="strength must be between"):
        denoise(clip, strength=3, **OPTIONS)
    with pytest.raises(FormatError, match="is not supported"):
        denoise(noisy_clip(vs, "YUV444PS", 2), **OPTIONS)
