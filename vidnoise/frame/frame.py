"""The data that travels through the pipeline: frames of unconverted samples, and the description of their stream."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from vidnoise.frame.passthrough import Passthrough

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Family = Literal["yuv", "rgb", "gray"]
FieldOrder = Literal["tff", "bff"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The layout of samples in planes, and their depth. Names are FFmpeg's.

    ``layout`` lists, plane by plane, the components in the order they lie in memory:
    ``(("y",), ("u", "v"))`` is nv12, ``(("r", "g", "b"),)`` is rgb24. ``"x"`` is padding and
    ``"a"`` alpha; both are passed through untouched.
    """

    name: str
    family: Family
    bit_depth: int
    """Significant bits of a sample; 32 means float in [0, 1]."""
    layout: tuple[tuple[str, ...], ...]
    log2_chroma_w: int = 0
    log2_chroma_h: int = 0
    msb_shift: int = 0
    """Samples are shifted left by this many bits in their 16-bit words (p010: 6)."""

    @property
    def is_float(self) -> bool:
        """Whether samples are floating-point numbers, nominally in [0, 1], rather than integer codes."""
        return self.bit_depth == 32

    @property
    def bytes_per_sample(self) -> int:
        """Bytes that a sample takes in memory: 1, 2 or 4."""
        return 4 if self.is_float else 1 if self.bit_depth <= 8 else 2

    @property
    def step_of_8_bits(self) -> float:
        """The difference of codes, or of float samples, that is one step of 8-bit samples: 4 for 10 bits."""
        return 1 / 255 if self.is_float else 2.0 ** (self.bit_depth - 8 + self.msb_shift)

    def plane_shape(self, index: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a plane's tensor: ``(H, W)``, or ``(H, W, C)`` where components are interleaved."""
        components = self.layout[index]
        if self.family == "yuv" and components[0] in "uv":
            # Chroma planes of odd-sized pictures are rounded up, as in FFmpeg.
            height = -(-height >> self.log2_chroma_h)
            width = -(-width >> self.log2_chroma_w)
        return (height, width) if len(components) == 1 else (height, width, len(components))


def _planar(components: str) -> tuple[tuple[str, ...], ...]:
    return tuple((c,) for c in components)


def _table() -> dict[str, PixelFormat]:
    rows: list[PixelFormat] = []
    chroma = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
    depths = {"": 8, "9le": 9, "10le": 10, "12le": 12, "14le": 14, "16le": 16}
    for name, (w, h) in chroma.items():
        for suffix, depth in depths.items():
            rows.append(PixelFormat(f"yuv{name}p{suffix}", "yuv", depth, _planar("yuv"), w, h))
            rows.append(PixelFormat(f"yuva{name}p{suffix}", "yuv", depth, _planar("yuva"), w, h))
        rows.append(PixelFormat(f"yuvj{name}p", "yuv", 8, _planar("yuv"), w, h))
    for suffix, depth in depths.items():
        rows.append(PixelFormat(f"gray{suffix}", "gray", depth, _planar("y")))
        rows.append(PixelFormat(f"gbrp{suffix}", "rgb", depth, _planar("gbr")))
        rows.append(PixelFormat(f"gbrap{suffix}", "rgb", depth, _planar("gbra")))
    for name, uv, w, h in (("nv12", "uv", 1, 1), ("nv21", "vu", 1, 1), ("nv16", "uv", 1, 0), ("nv24", "uv", 0, 0)):
        rows.append(PixelFormat(name, "yuv", 8, (("y",), tuple(uv)), w, h))
    for name, depth, w, h in (
        ("p010le", 10, 1, 1), ("p012le", 12, 1, 1), ("p016le", 16, 1, 1),
        ("p210le", 10, 1, 0), ("p410le", 10, 0, 0),
    ):  # fmt: skip
        rows.append(PixelFormat(name, "yuv", depth, (("y",), ("u", "v")), w, h, msb_shift=16 - depth))
    for order in ("rgb", "bgr"):
        rows.append(PixelFormat(f"{order}24", "rgb", 8, (tuple(order),)))
    for name, order in (
        ("rgba", "rgba"), ("bgra", "bgra"), ("argb", "argb"), ("abgr", "abgr"),
        ("rgb0", "rgbx"), ("bgr0", "bgrx"), ("0rgb", "xrgb"), ("0bgr", "xbgr"),
    ):  # fmt: skip
        rows.append(PixelFormat(name, "rgb", 8, (tuple(order),)))
    for name, order in (("rgb48le", "rgb"), ("bgr48le", "bgr"), ("rgba64le", "rgba"), ("bgra64le", "bgra")):
        rows.append(PixelFormat(name, "rgb", 16, (tuple(order),)))
    for name, depth in (("ya8", 8), ("ya16le", 16)):
        rows.append(PixelFormat(name, "gray", depth, (tuple("ya"),)))
    # Float formats come from EXR and TIFF files, and from the Python API (arrays and tensors).
    rows.append(PixelFormat("grayf32le", "gray", 32, _planar("y")))
    rows.append(PixelFormat("rgbf32le", "rgb", 32, (tuple("rgb"),)))
    rows.append(PixelFormat("bgrf32le", "rgb", 32, (tuple("bgr"),)))  # which FFmpeg does not have
    rows.append(PixelFormat("rgbaf32le", "rgb", 32, (tuple("rgba"),)))
    rows.append(PixelFormat("bgraf32le", "rgb", 32, (tuple("bgra"),)))  # nor this one
    rows.append(PixelFormat("gbrpf32le", "rgb", 32, _planar("gbr")))
    rows.append(PixelFormat("gbrapf32le", "rgb", 32, _planar("gbra")))
    return {row.name: row for row in rows}


PIXEL_FORMATS: dict[str, PixelFormat] = _table()
"""Every pixel format that vidnoise processes as it is, by FFmpeg's name."""


@dataclass(frozen=True, slots=True)
class ColorInfo:
    """Colour tags as ITU-T H.273 / FFmpeg codes; ``2`` (``0`` for range and location) is unspecified."""

    matrix: int = 2
    """0 RGB, 1 BT.709, 5 and 6 BT.601, 7 SMPTE 240M, 9 BT.2020 (non-constant luminance)."""
    range: int = 0
    """1 limited (16-235), 2 full (0-255)."""
    primaries: int = 2
    transfer: int = 2
    chroma_location: int = 0
    """0 unspecified, 1 left, 2 centre, 3 top left, 4 top, 5 bottom left, 6 bottom (FFmpeg's AVChromaLocation)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of another stream (audio, subtitles, data), carried untouched from source to sink."""

    stream_index: int
    """Index of its stream in the source."""
    data: Any
    """The packet object of the source's library (``av.Packet``)."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Description of a source's video stream, known before the first frame is read."""

    width: int
    height: int
    format: PixelFormat
    time_base: Fraction
    """Seconds per tick of ``Frame.pts``."""
    rate: Fraction | None = None
    """Average frames per second, if known."""
    color: ColorInfo = field(default_factory=ColorInfo)
    sample_aspect_ratio: Fraction | None = None
    rotation: int = 0
    """Rotation for display in degrees, counter-clockwise: 0, 90, 180 or 270."""
    field_order: FieldOrder | None = None
    """The field of an interlaced video that is shown first, top or bottom; None for progressive video."""
    n_frames: int | None = None
    duration_seconds: float | None = None
    is_live: bool = False
    is_still: bool = False
    """Whether the input is a single picture, rather than a video or a sequence."""
    codec: str | None = None
    """FFmpeg's name of the source's codec (``"h264"``)."""
    bit_rate: int | None = None
    passthrough: Passthrough = field(default_factory=Passthrough)
    """Streams and tags that are copied from the source to the sink, besides the pictures."""

    @property
    def estimated_frames(self) -> int | None:
        """Number of frames, as the source states it or as duration and rate suggest; None if unknown."""
        if self.n_frames is None and self.duration_seconds and self.rate:
            return round(self.duration_seconds * self.rate)
        return self.n_frames


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a video: its samples as stored, and the time at which it is shown.

    A frame is never changed in place; use :func:`dataclasses.replace`.
    """

    planes: tuple[Tensor, ...]
    """Source samples, unconverted, one tensor a plane: uint8, uint16 or float32, ``(H, W)`` or ``(H, W, C)``."""
    format: PixelFormat
    color: ColorInfo = field(default_factory=ColorInfo)
    pts: int | None = None
    """Presentation time in ``time_base`` ticks."""
    duration: int | None = None
    time_base: Fraction = Fraction(1, 1)
    index: int = 0
    """Position in the stream, from 0; dropped and corrupt frames count."""
    discontinuity: bool = False
    """Whether the picture does not continue the previous one, as after a seek, reconnect, drop, size change or cut."""
    sample_aspect_ratio: Fraction | None = None
    """Width of a sample relative to its height, if the source states it for each picture."""
    interlaced: bool = False
    """Whether the picture consists of two fields, taken at different times."""
    packets: tuple[Packet, ...] = ()
    """Packets of other streams that came since the previous frame."""
    arrived: float | None = None
    """Time at which the frame arrived at a live source, on the clock of ``time.monotonic()``."""
    side_data: Any = None
    """Data of this frame that the sink may store; opaque to everything in between."""

    @property
    def seconds(self) -> Fraction | None:
        """Presentation time, exact."""
        return None if self.pts is None else self.pts * self.time_base

    @property
    def height(self) -> int:
        """Height of the picture in pixels."""
        return self.planes[0].shape[0]

    @property
    def width(self) -> int:
        """Width of the picture in pixels."""
        return self.planes[0].shape[1]

    def to(self, device: torch.device | str) -> Frame:
        """Return the frame with its planes on ``device``; the frame itself if they are there already."""
        planes = tuple(plane.to(device) for plane in self.planes)
        return self if all(map(operator.is_, planes, self.planes)) else replace(self, planes=planes)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{tuple(p.shape)}" for p in self.planes)
        return f"Frame(#{self.index}, {self.format.name}, {shapes}, pts={self.pts}, {self.planes[0].dtype})"
