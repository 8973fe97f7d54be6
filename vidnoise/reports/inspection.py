"""What a video is, how noisy it is, and what a run would do with it: the facts behind ``vidnoise info``."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from vidnoise.color import component_values
from vidnoise.color.colorimetry import FULL, resolve_color
from vidnoise.errors import VidnoiseError
from vidnoise.frame import ColorInfo, Frame, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.notices import silent
from vidnoise.options import SinkOptions
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.stills import picture_sink
from vidnoise.sources import open_source
from vidnoise.stills.names import kind_of
from vidnoise.text import shown

PLACES = (0.1, 0.5, 0.9)
"""Where in a video the noise is looked at, as shares of its length."""

FRAMES = 5
"""Frames denoised at each place; the first ones only teach the network the past."""

LARGEST = (544, 960)
"""Height and width of the middle part that is looked at: enough to measure, and quick for large pictures."""

_MATRICES = {0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
_PRIMARIES = {1: "BT.709", 5: "BT.601 (625)", 6: "BT.601 (525)", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {
    1: "BT.709", 4: "gamma 2.2", 5: "gamma 2.8", 6: "BT.601", 8: "linear", 13: "sRGB", 14: "BT.2020", 15: "BT.2020",
    16: "PQ", 18: "HLG",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NoiseReport:
    """How noisy a video is, in 8-bit units whatever its bit depth."""

    sigma: float
    """Standard deviation that the network estimates, mean over the picture and the places."""
    planes: dict[str, float]
    """By component (``y``, ``u``, ``v``, or ``r``, ``g``, ``b``): standard deviation of what would be removed."""
    seconds: list[float]
    """Where it was looked at."""
    sigmas: list[float]
    """The estimate at each place."""


@dataclass(frozen=True, slots=True)
class VideoReport:
    """A video, and what vidnoise would do with it."""

    path: str
    container: str
    video: dict[str, Any]
    color: dict[str, Any]
    """The tags as they are, and under ``taken_as`` what vidnoise makes of them."""
    others: list[dict[str, Any]]
    """Streams that are copied."""
    chapters: int
    metadata: dict[str, str]
    encoding: dict[str, str] | None
    """Encoder and pixel format that a run to the output asked about would choose; None if none was, or none can."""
    noise: NoiseReport | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return asdict(self)


def inspect_video(
    path: str | os.PathLike[str], *, model: str = "standard", noise: bool = True, output: str | None = None
) -> VideoReport:
    """Look at a video: its streams, colour, and (unless ``noise`` is false) how noisy it is.

    Args:
        path: as for :func:`open_source`.
        model: what measures the noise.
        noise: whether to measure it.
        output: where a run would write; nothing is written there.

    Raises:
        SourceError, FormatError: it cannot be read or processed.
        ModelError: there is no such model.
    """
    text = os.fspath(path)
    with contextlib.closing(open_source(text)) as source:
        info = source.info
        measured = None
        # A pipe, camera or stream can be read once: there the beginning has to do.
        places = _places(info) if os.path.isfile(text) else []
        if noise:
            first = Denoiser(model)
            denoiser = FieldDenoiser(first, Denoiser)
            measured = _measure(text, places, denoiser) if places else None
            measured = measured or _summary([_look(iter(source), denoiser)], [0.0])
    copies = info.passthrough
    return VideoReport(
        path=shown(text),
        container=copies.container,
        video=_video(info),
        color=_color(info, copies),
        others=[
            {"index": s.index, "kind": s.kind, "codec": s.codec, "language": s.metadata.get("language")}
            for s in copies.streams
        ],
        chapters=len(copies.chapters),
        metadata=dict(copies.metadata),
        encoding=None if output is None else _encoding(info, output),
        noise=measured,
    )


def _encoding(info: StreamInfo, output: str) -> dict[str, str] | None:
    try:
        make = picture_sink if kind_of(output) else ContainerSink
        encoder, pixel_format = make(output, SinkOptions(overwrite=True)).plan(info)
    except VidnoiseError:
        return None
    return {"encoder": encoder, "pixel_format": pixel_format}


def _video(info: StreamInfo) -> dict[str, Any]:
    return {
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "pixel_format": info.format.name,
        "bit_depth": info.format.bit_depth,
        "rate": None if info.rate is None else round(float(info.rate), 3),
        "duration_seconds": info.duration_seconds,
        "n_frames": info.n_frames,
        "bit_rate": info.bit_rate,
        "rotation": info.rotation,
        "sample_aspect_ratio": None if info.sample_aspect_ratio is None else str(info.sample_aspect_ratio),
        "field_order": info.field_order,
        "is_live": info.is_live,
        "is_still": info.is_still,
    }


def _color(info: StreamInfo, copies: Passthrough) -> dict[str, Any]:
    resolved = resolve_color(info.color, info.format, info.height, info.width)
    names = _color_names(info.color)
    taken_as = {key: value for key, value in _color_names(resolved).items() if key in ("matrix", "range")}
    return {**names, "hdr": sorted(copies.hdr), "taken_as": taken_as}


def _color_names(color: ColorInfo) -> dict[str, str | None]:
    def name(table: dict[int, str], code: int) -> str | None:
        return None if code in (2, 3) else table.get(code, f"code {code}")

    return {
        "matrix": name(_MATRICES, color.matrix),
        "range": {1: "limited", FULL: "full"}.get(color.range),
        "primaries": None if color.primaries == 0 else name(_PRIMARIES, color.primaries),
        "transfer": None if color.transfer == 0 else name(_TRANSFERS, color.transfer),
    }


def _places(info: StreamInfo) -> list[float]:
    """Seconds at which to look; none for what cannot be entered in the middle."""
    if info.is_live or not info.duration_seconds or info.duration_seconds < 2:
        return []
    return [share * info.duration_seconds for share in PLACES]


def _measure(path: str, places: list[float], denoiser: FieldDenoiser) -> NoiseReport | None:
    found: list[tuple[float, dict[str, float]]] = []
    for seconds in places:
        try:
            with contextlib.closing(open_source(path, start=seconds, notify=silent)) as source:
                found.append(_look(iter(source), denoiser))
        except VidnoiseError:  # a header that promises more than there is; the caller looks at the beginning
            return None
    return _summary(found, places)


def _look(frames: Iterator[Frame], denoiser: FieldDenoiser) -> tuple[float, dict[str, float]]:
    """The estimated noise level at one place, and by component what is removed there; 8-bit units."""
    denoiser.reset()
    levels: dict[str, float] = {}
    for frame in itertools.islice(frames, FRAMES):
        noisy = replace(_middle(frame), discontinuity=False)
        noisy = replace(noisy, planes=tuple(p.to(denoiser.device) for p in noisy.planes))
        (clean,) = denoiser.push(noisy)
        # The last frame tells most: the network knows the past by then.
        levels = {name: float(d.square().mean().sqrt()) for name, d in removed(noisy, clean).items()}
    return denoiser.estimated_sigma or 0.0, levels


def removed(noisy: Frame, clean: Frame) -> dict[str, Tensor]:
    """Noisy - clean by component, float32, in 8-bit units (one code of an 8-bit picture)."""
    before, after = component_values(noisy), component_values(clean)
    return {name: before[name] - after[name] for name in before}


def _middle(frame: Frame) -> Frame:
    """The middle part of a picture, at most :data:`LARGEST`."""
    format = frame.format
    height, width = (min(a, b) for a, b in zip((frame.height, frame.width), LARGEST, strict=True))
    top, left = ((frame.height - height) // 2 // 16 * 16, (frame.width - width) // 2 // 16 * 16)
    planes = []
    for i, plane in enumerate(frame.planes):
        h, w = format.plane_shape(i, height, width)[:2]
        y, x = format.plane_shape(i, top, left)[:2]  # whole samples in every format: top and left are multiples of 16
        planes.append(plane[y : y + h, x : x + w])
    return replace(frame, planes=tuple(planes))


def _summary(found: list[tuple[float, dict[str, float]]], places: list[float]) -> NoiseReport:
    names = found[0][1]
    mean = {name: sum(levels.get(name, 0.0) for _, levels in found) / len(found) for name in names}
    sigmas = [round(sigma, 2) for sigma, _ in found]
    return NoiseReport(
        sigma=round(sum(sigmas) / len(sigmas), 2),
        planes={name: round(value, 2) for name, value in mean.items()},
        seconds=[round(s, 2) for s in places],
        sigmas=sigmas,
    )
