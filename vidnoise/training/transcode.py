"""Transcoding of clips by real encoders, as used by cameras, discs and streams.

The encoders are driven by PyAV directly rather than by a sink: footage comes at starved bit rates, with odd tunes and
in old codecs, none of which our own outputs should offer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import torch
from torch import Tensor

from vidnoise.color import apply_correction, to_rgb
from vidnoise.errors import EncodeError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.frame.av_planes import plane_views

RATE = 25
"""Frames per second, to which bit rates refer."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to encode a clip."""

    encoder: str
    """FFmpeg's name of the encoder."""
    decoder: str
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None
    """Bits per second at :data:`RATE`; ``None``: the options set the quality."""
    pix_fmt: str = "yuv420p"
    matrix: int = 6
    """Matrix coefficients, as in :class:`~vidnoise.frame.ColorInfo`."""
    range: int = 1


def draw_encoding(rng: np.random.Generator, pixels: int) -> Encoding:
    """Draw an encoding that is typical of footage, for frames with a number of pixels.

    More than half are H.264, at crf 14 to 35 or 0.044 to 1 bits per pixel; the others are HEVC, MPEG-2, MPEG-4 part 2,
    JPEG and VP9.
    """
    matrix = int(rng.choice([1, 6]))
    bit_rate = int(2 ** rng.uniform(-4.5, 0) * pixels * RATE)  # from 0.044 bits per pixel: 2.3 Mbit/s at 1080p
    starved = rng.random() < 0.35
    step = str(round(2 ** rng.uniform(1, 4)))
    quantiser = {"qmin": step, "qmax": step}  # for encoders without crf: 2 to 16, near-transparent to blocky
    codec = rng.choice(["h264", "hevc", "mpeg2", "mpeg4", "jpeg", "vp9"], p=[0.54, 0.18, 0.08, 0.04, 0.07, 0.09])
    if codec == "h264":
        options = {}  # half with the encoder's defaults, which most people use
        if rng.random() < 0.5:
            presets = ["ultrafast", "superfast", "veryfast", "faster", "fast"]
            options |= {"preset": str(rng.choice(presets)), "g": str(rng.choice([12, 50, 250]))}
            tune = str(rng.choice(["", "grain", "zerolatency", "film"], p=[0.3, 0.15, 0.4, 0.15]))
            options |= {"tune": tune} if tune else {}
        if starved:
            return Encoding("libx264", "h264", options, bit_rate, matrix=matrix)
        return Encoding("libx264", "h264", options | {"crf": f"{rng.uniform(14, 35):.1f}"}, matrix=matrix)
    if codec == "hevc":
        options = {"preset": str(rng.choice(["superfast", "veryfast", "fast", "medium"]))}
        options |= {"x265-params": "log-level=none:pools=none:frame-threads=1"}
        options |= {"tune": "grain"} if rng.random() < 0.12 else {}
        if starved:
            return Encoding("libx265", "hevc", options, bit_rate, matrix=matrix)
        return Encoding("libx265", "hevc", options | {"crf": f"{rng.uniform(15, 35):.1f}"}, matrix=matrix)
    if codec == "mpeg2":
        options = {"g": "12", "bf": str(rng.choice([0, 2]))}
        if starved:
            return Encoding("mpeg2video", "mpeg2video", options, 2 * bit_rate, matrix=matrix)
        return Encoding("mpeg2video", "mpeg2video", options | quantiser, matrix=matrix)
    if codec == "mpeg4":
        return Encoding("mpeg4", "mpeg4", {"g": str(rng.choice([12, 250]))} | quantiser, matrix=6)
    if codec == "jpeg":
        pix_fmt = str(rng.choice(["yuvj420p", "yuvj422p"]))
        return Encoding("mjpeg", "mjpeg", quantiser, pix_fmt=pix_fmt, matrix=6, range=2)
    live = rng.random() < 0.5
    options = {"row-mt": "0", "deadline": "realtime" if live else "good", "cpu-used": "7" if live else "5"}
    if starved:
        return Encoding("libvpx-vp9", "vp9", options, bit_rate, matrix=matrix)
    return Encoding("libvpx-vp9", "vp9", options | {"crf": str(rng.integers(16, 52)), "b": "0"}, matrix=matrix)


def as_stored(clip: Tensor, encoding: Encoding) -> list[Frame]:
    """Convert a clip ``(T, 3, H, W)`` in [0, 1] to 8-bit planes in the encoding's pixel format, before any codec."""
    _, _, height, width = clip.shape
    form = PIXEL_FORMATS[encoding.pix_fmt]
    color = ColorInfo(matrix=encoding.matrix, range=encoding.range)
    planes = tuple(torch.full(form.plane_shape(i, height, width), 128, dtype=torch.uint8) for i in range(3))
    canvas = Frame(planes, form, color)
    gray = to_rgb(canvas)
    return [apply_correction(canvas, picture[None] - gray) for picture in clip]


def transcode(frames: list[Frame], encoding: Encoding) -> list[Frame]:
    """Encode frames and decode them again.

    Raises:
        EncodeError: This build of FFmpeg has no such encoder, or the number of frames has changed.
    """
    first = frames[0]
    try:
        encoder = av.CodecContext.create(encoding.encoder, "w")
        decoder = av.CodecContext.create(encoding.decoder, "r")
    except (ValueError, av.error.FFmpegError) as ex:
        raise EncodeError(f"this build of FFmpeg has no {encoding.encoder}: {ex}") from ex
    assert isinstance(encoder, av.VideoCodecContext)
    assert isinstance(decoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, encoding.pix_fmt
    encoder.framerate, encoder.time_base = Fraction(RATE), Fraction(1, RATE)
    encoder.colorspace, encoder.color_range = encoding.matrix, encoding.range
    encoder.thread_count = decoder.thread_count = 1
    if encoding.bit_rate is not None:
        encoder.bit_rate = encoding.bit_rate
    encoder.options = encoding.options
    packets = []
    for pts, frame in enumerate(frames):
        picture = av.VideoFrame(frame.width, frame.height, encoding.pix_fmt)
        for view, plane in zip(plane_views(picture, frame.format), frame.planes, strict=True):
            view.copy_(plane)
        picture.pts = pts
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    pictures = [picture for packet in [*packets, None] for picture in decoder.decode(packet)]
    if len(pictures) != len(frames):
        raise EncodeError(f"{encoding.encoder} made {len(pictures)} frames of {len(frames)}")
    decoded = [tuple(view.clone() for view in plane_views(picture, first.format)) for picture in pictures]
    return [replace(frame, planes=planes) for frame, planes in zip(frames, decoded, strict=True)]


def record(path: Path, pictures: Iterable[np.ndarray], options: dict[str, str], *, exact: bool = False) -> None:
    """Write pictures ``(H, W, 3)`` uint8 RGB as a video that OpenCV reads: H.264 in 4:4:4, or ``exact``.

    Args:
        path: An ``.mkv`` file.
        pictures: All of one even size.
        options: Options of x264.
        exact: Encode losslessly in RGB.
    """
    encoder, pix_fmt = ("libx264rgb", "rgb24") if exact else ("libx264", "yuv444p")
    options = {**options, "qp": "0"} if exact else options
    with av.open(path, "w") as container:
        stream = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(encoder, RATE, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
