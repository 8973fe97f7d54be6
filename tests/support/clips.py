"""Tiny video files of every awkward kind, made with av alone (no ffmpeg program, no network).

``build(name, folder)`` makes the clip ``name`` of :data:`CLIPS`; tests take it from the ``clips`` fixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidnoise.sinks.scheduling import preserve_scheduling

N_FRAMES = 10
VFR_TICKS = (0, 3754, 11261, 15015, 22523, 26276, 41291, 45045, 52553, 71321)
"""Uneven times in 1/90000 s: 0, 0.0417, 0.1251, ... as of a telecined or phone video."""


@dataclass(frozen=True)
class Recipe:
    """What goes into a clip."""

    extension: str = ".mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "crf": "18"})
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 48
    ticks: tuple[int, ...] = tuple(3600 * i for i in range(N_FRAMES))
    """Presentation times in ``time_base``."""
    durations: tuple[int, ...] | None = None
    time_base: Fraction = Fraction(1, 90000)
    rate: Fraction = Fraction(25)
    color: tuple[int, int, int, int] = (2, 0, 2, 2)
    """matrix, range, primaries, transfer"""
    sample_aspect_ratio: Fraction | None = None
    rotation: int = 0
    audio: tuple[tuple[str, str], ...] = ()
    """(encoder, language) of each audio track."""
    subtitles: bool = False
    chapters: bool = False
    attachment: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    gop: int = 12


@dataclass(frozen=True)
class Clip:
    """A finished file and what it was made from."""

    path: Path
    recipe: Recipe

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def seconds(self) -> list[Fraction]:
        return [t * self.recipe.time_base for t in self.recipe.ticks]


def picture(recipe: Recipe, index: int) -> av.VideoFrame:
    """Frame ``index``: a gradient that moves, and noise, in the samples of the format itself."""
    frame = av.VideoFrame(recipe.width, recipe.height, recipe.pix_fmt)
    rng = np.random.default_rng(1000 + index)
    depth = max(c.bits for c in frame.format.components)
    shift = 16 - depth if recipe.pix_fmt.startswith(("p010", "p012", "p016")) else 0
    for plane in frame.planes:
        wide = depth > 8
        row = abs(plane.line_size) // (2 if wide else 1)
        y, x = np.mgrid[: plane.buffer_size // abs(plane.line_size), :row]
        ramp = (x * 2 + y * 3 + index * 5) * (1 << (depth - 8))
        noise = rng.integers(0, 1 << (depth - 3), ramp.shape)
        top = (1 << depth) - 1
        samples = ((ramp % (top * 3 // 4)) + noise).clip(0, top).astype(np.uint16 if wide else np.uint8)
        plane.update((samples << shift if shift else samples).astype(samples.dtype).tobytes())
    return frame


def _audio_frames(stream: Any, seconds: float, tone: float) -> list[av.AudioFrame]:
    context = stream.codec_context
    size = context.frame_size or 1024
    frames = []
    for start in range(0, math.ceil(seconds * context.sample_rate), size):
        t = (np.arange(start, start + size) / context.sample_rate).astype(np.float64)
        wave = 0.3 * np.sin(2 * np.pi * tone * t)
        fmt = context.format.name
        if fmt.startswith("flt"):
            samples = np.stack([wave, wave]).astype(np.float32)
        else:
            samples = np.stack([wave, wave] * 1)
            samples = (samples * 30000).astype(np.int32 if fmt.startswith("s32") else np.int16)
        if not fmt.endswith("p"):
            samples = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format=fmt, layout="stereo")
        frame.sample_rate = context.sample_rate
        frame.pts, frame.time_base = start, Fraction(1, context.sample_rate)
        frames.append(frame)
    return frames


def write(path: Path, recipe: Recipe) -> Clip:
    """Encode a clip."""
    end = (recipe.ticks[-1] * recipe.time_base) + 1 / recipe.rate
    # SVT-AV1 would leave the tests after it in real time.
    with preserve_scheduling(), av.open(str(path), "w") as container:
        video = container.add_stream(
            recipe.codec, rate=recipe.rate, time_base=recipe.time_base, options=dict(recipe.options)
        )
        context = video.codec_context
        context.width, context.height, context.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
        context.gop_size = recipe.gop
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = recipe.color
        if recipe.sample_aspect_ratio:
            context.sample_aspect_ratio = recipe.sample_aspect_ratio
        if recipe.rotation:
            video.set_display_rotation(recipe.rotation)
        tracks = []
        for encoder, language in recipe.audio:
            track = container.add_stream(encoder, rate=48000)
            track.codec_context.layout = "stereo"
            track.metadata["language"] = language
            tracks.append(track)
        titles = None
        if recipe.subtitles:
            titles = container.add_mux_stream("subrip")
            titles.metadata["language"] = "fra"
            titles.time_base = Fraction(1, 1000)
        if recipe.attachment:
            container.add_attachment("note.txt", "text/plain", b"attached bytes")
        container.metadata.update(recipe.metadata)
        if recipe.chapters:
            half = round(end * 500)
            container.set_chapters([
                {"id": 1, "start": 0, "end": half, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
                {"id": 2, "start": half, "end": 2 * half, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
            ])  # fmt: skip
        container.start_encoding()
        packets: list[av.Packet] = []
        for i, tick in enumerate(recipe.ticks):
            frame = picture(recipe, i)
            frame.pts, frame.time_base = tick, recipe.time_base
            if recipe.durations:
                frame.duration = recipe.durations[i]
            elif i + 1 < len(recipe.ticks):
                frame.duration = recipe.ticks[i + 1] - tick
            else:
                frame.duration = round(1 / recipe.rate / recipe.time_base)
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in packets:
            if recipe.durations:  # encoders forget how long the last frame is shown
                packet.duration = recipe.durations[recipe.ticks.index(packet.pts)]
            container.mux(packet)
        for number, track in enumerate(tracks):
            for frame in _audio_frames(track, float(end), 330 * (number + 1)):
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
        if titles is not None:
            for i, text in enumerate((b"Hello", b"there")):
                packet = av.Packet(text)
                packet.stream, packet.time_base = titles, Fraction(1, 1000)
                packet.pts = packet.dts = 40 + 160 * i
                packet.duration = 120
                container.mux(packet)
    return Clip(path, recipe)


_B_FRAMES = {"preset": "fast", "bf": "2", "b_strategy": "0", "crf": "18"}
_FFV1 = Recipe(".mkv", "ffv1", {}, time_base=Fraction(1, 1000), ticks=tuple(40 * i for i in range(N_FRAMES)),
               gop=1)  # fmt: skip
_TONE = ("aac", "deu")

CLIPS: dict[str, Recipe] = {
    "cfr": Recipe(metadata={"title": "A clip"}),
    "cfr_mkv": Recipe(".mkv", time_base=Fraction(1, 1000), ticks=tuple(40 * i for i in range(N_FRAMES))),
    "vfr": Recipe(ticks=VFR_TICKS, options=_B_FRAMES),
    "vfr_mkv": Recipe(
        ".mkv", options=_B_FRAMES, time_base=Fraction(1, 1000), ticks=(0, 42, 125, 167, 250, 292, 459, 500, 584, 792)
    ),
    "long_last_frame": Recipe(durations=(3600,) * 9 + (36000,)),
    "ntsc": Recipe(
        ".mov", time_base=Fraction(1, 30000), rate=Fraction(30000, 1001), ticks=tuple(1001 * i for i in range(N_FRAMES))
    ),
    "late_start": Recipe(ticks=tuple(45000 + 3600 * i for i in range(N_FRAMES)), audio=(_TONE,)),
    "late_start_ts": Recipe(".ts", ticks=tuple(900000 + 3600 * i for i in range(N_FRAMES))),
    "b_frames": Recipe(options=_B_FRAMES),
    "b_frames_avi": Recipe(
        ".avi", "mpeg4", {"qscale": "2", "bf": "2"}, time_base=Fraction(1, 25), ticks=tuple(range(N_FRAMES))
    ),
    "even_66x50": replace(_FFV1, width=66, height=50),
    "odd_65x49": replace(_FFV1, width=65, height=49),
    "ten_bit": Recipe(pix_fmt="yuv420p10le"),
    "full_range": Recipe(color=(1, 2, 1, 1)),
    "bt601": Recipe(color=(6, 1, 6, 6)),
    "bt709": Recipe(color=(1, 1, 1, 1)),
    "bt2020": Recipe(".mkv", pix_fmt="yuv420p10le", color=(9, 1, 9, 16), time_base=Fraction(1, 1000),
                     ticks=tuple(40 * i for i in range(N_FRAMES))),
    "rotated": Recipe(rotation=90),
    "rotated_mkv": Recipe(".mkv", rotation=270, time_base=Fraction(1, 1000),
                          ticks=tuple(40 * i for i in range(N_FRAMES))),
    "sar_4_3": Recipe(sample_aspect_ratio=Fraction(4, 3)),
    "audio": Recipe(audio=(_TONE,), options=_B_FRAMES),
    "pcm_audio": Recipe(".mov", audio=(("pcm_s16le", "eng"),)),
    "two_languages": Recipe(audio=(_TONE, ("aac", "eng")), chapters=True, metadata={"title": "Two", "artist": "Some"}),
    "everything": Recipe(
        ".mkv", audio=(("aac", "deu"), ("flac", "eng")), subtitles=True, chapters=True, attachment=True,
        metadata={"title": "All", "DIRECTOR": "Somebody"}, sample_aspect_ratio=Fraction(16, 11), color=(1, 1, 1, 1),
        time_base=Fraction(1, 1000), ticks=tuple(40 * i for i in range(N_FRAMES)),
    ),
    "gops": Recipe(gop=5, ticks=tuple(3600 * i for i in range(30)), audio=(_TONE,), options=_B_FRAMES, chapters=True),
    "gops_ts": Recipe(".ts", gop=5, ticks=tuple(90000 + 3600 * i for i in range(30)), options=_B_FRAMES,
                      audio=(("mp2", "eng"),)),
}  # fmt: skip
"""Whole clips; damaged ones are made from them by the functions below."""

EXACT_FORMATS = (
    "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray", "gray10le", "bgr0",
    "yuva420p", "gbrp10le",
)  # fmt: skip
"""Formats in which FFV1 stores a clip as it is."""


def build(name: str, folder: Path) -> Clip:
    """Make the clip ``name`` of :data:`CLIPS`, or ``exact_<pix_fmt>`` for a lossless one in that format."""
    exact = name.startswith("exact_")
    recipe = replace(_FFV1, pix_fmt=name[len("exact_") :]) if exact else CLIPS[name]
    return write(folder / (name + recipe.extension), recipe)


def remux(source: Path, target: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """Copy a clip's video packets, each through ``change(number, data)``."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        output = writer.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(p for p in reader.demux(stream) if p.size):
            copy = av.Packet(change(number, bytes(packet)))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.stream = packet.time_base, output
            copy.is_keyframe = packet.is_keyframe
            writer.mux(copy)
    return target


def damage(source: Path, target: Path, numbers: Sequence[int]) -> Path:
    """Overwrite the packets ``numbers`` of a clip with rubbish of the same length."""
    rng = np.random.default_rng(7)

    def change(number: int, data: bytes) -> bytes:
        return rng.integers(0, 256, len(data), dtype=np.uint8).tobytes() if number in numbers else data

    return remux(source, target, change)


def truncate(source: Path, target: Path, share: float) -> Path:
    """The first ``share`` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def join_ts(parts: Sequence[Path], target: Path) -> Path:
    """Transport streams one behind the other, as a recorder writes them when the camera changes its mind."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def pictures(path: str | Path) -> list[tuple[int | None, list[np.ndarray]]]:
    """What av itself reads from a file: times, and planes without row padding, for comparison."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            size = 2 if max(c.bits for c in frame.format.components) > 8 else 1
            planes = []
            for number, plane in enumerate(frame.planes):
                channels = sum(c.plane == number for c in frame.format.components)
                if frame.format.name.endswith("0"):  # bgr0: the fourth byte is no component
                    channels = 4
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
                planes.append(rows[:, : plane.width * size * channels].copy())
            found.append((frame.pts, planes))
    return found
