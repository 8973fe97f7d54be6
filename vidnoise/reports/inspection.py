"""Facts about a video for ``vidnoise info``: its streams, its noise, and the effect of a run."""

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
from vidnoise.sinks.file import FileDestination
from vidnoise.sinks.stills import picture_sink
from vidnoise.sources import open_source
from vidnoise.stills.names import kind_of
from vidnoise.text import shown
from vidnoise.weights import ModelLike

POSITIONS = (0.1, 0.5, 0.9)
"""Positions at which the noise is measured, as fractions of the length."""

FRAMES = 5
"""Frames denoised at each position; the first ones only build up the network's state."""

MAX_SIZE = (544, 960)
"""Maximum height and width of the central part that is measured: enough data, and fast for large pictures."""

_MATRICES = {0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
_PRIMARIES = {1: "BT.709", 5: "BT.601 (625)", 6: "BT.601 (525)", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {
    1: "BT.709", 4: "gamma 2.2", 5: "gamma 2.8", 6: "BT.601", 8: "linear", 13: "sRGB", 14: "BT.2020", 15: "BT.2020",
    16: "PQ", 18: "HLG",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NoiseReport:
    """Noise of a video, in 8-bit units whatever its bit depth."""

    sigma: float
    """Standard deviation estimated by the network, mean over the picture and the positions."""
    planes: dict[str, float]
    """Standard deviation of the removed noise by component: ``y``, ``u``, ``v``, or ``r``, ``g``, ``b``."""
    seconds: list[float]
    """Positions of the measurements, in seconds."""
    sigmas: list[float]
    """Estimate at each position."""


@dataclass(frozen=True, slots=True)
class VideoReport:
    """A video, and what vidnoise would do with it."""

    path: str
    container: str
    video: dict[str, Any]
    color: dict[str, Any]
    """Colour tags as stored, and under ``taken_as`` how vidnoise interprets them."""
    others: list[dict[str, Any]]
    """Streams other than the video, which are copied."""
    chapters: int
    metadata: dict[str, str]
    encoding: dict[str, str] | None
    """Encoder and pixel format that a run would choose for the output; None without an output, or if none fits."""
    noise: NoiseReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, for JSON."""
        return asdict(self)


def inspect_video(
    path: str | os.PathLike[str], *, model: ModelLike = "standard", noise: bool = True, output: str | None = None
) -> VideoReport:
    """Inspect a video: its streams, its colours and, unless ``noise`` is false, its noise.

    Args:
        path: As for :func:`open_source`.
        model: Model to measure the noise with.
        noise: Whether to measure the noise.
        output: Where a run would write; nothing is written.

    Raises:
        SourceError, FormatError: The video cannot be read or processed.
        ModelError: There is no such model.
    """
    text = os.fspath(path)
    with contextlib.closing(open_source(text)) as source:
        info = source.info
        measured = None
        # A pipe, camera or stream can be read only once: there, the beginning has to suffice.
        positions = _positions(info) if os.path.isfile(text) else []
        if noise:
            first = Denoiser(model)
            denoiser = FieldDenoiser(first, Denoiser)
            measured = _measure(text, positions, denoiser) if positions else None
            measured = measured or _summary([_measure_at(iter(source), denoiser)], [0.0])
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
        options = SinkOptions(overwrite=True)
        if kind_of(output):
            sink = picture_sink(output, options)
        else:
            sink = ContainerSink(FileDestination(output, options), options)
        encoder, pixel_format = sink.plan(info)
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


def _positions(info: StreamInfo) -> list[float]:
    """Return the positions to measure at, in seconds; none for inputs that cannot be seeked."""
    if info.is_live or not info.duration_seconds or info.duration_seconds < 2:
        return []
    return [share * info.duration_seconds for share in POSITIONS]


def _measure(path: str, positions: list[float], denoiser: FieldDenoiser) -> NoiseReport | None:
    found: list[tuple[float, dict[str, float]]] = []
    for seconds in positions:
        try:
            with contextlib.closing(open_source(path, start=seconds, notify=silent)) as source:
                found.append(_measure_at(iter(source), denoiser))
        except VidnoiseError:  # the header promises more than there is; the caller measures at the beginning
            return None
    return _summary(found, positions)


def _measure_at(frames: Iterator[Frame], denoiser: FieldDenoiser) -> tuple[float, dict[str, float]]:
    """Return the estimated noise level at one position, and the removed noise by component; in 8-bit units."""
    denoiser.reset()
    levels: dict[str, float] = {}
    for frame in itertools.islice(frames, FRAMES):
        noisy = replace(_middle(frame), discontinuity=False)
        noisy = replace(noisy, planes=tuple(p.to(denoiser.device) for p in noisy.planes))
        (clean,) = denoiser.push(noisy)
        # The last frame counts: the network has built up its state by then.
        levels = {name: float(d.square().mean().sqrt()) for name, d in removed(noisy, clean).items()}
    return denoiser.estimated_sigma or 0.0, levels


def removed(noisy: Frame, clean: Frame) -> dict[str, Tensor]:
    """Return noisy - clean by component, float32, in 8-bit units (one code of an 8-bit picture)."""
    before, after = component_values(noisy), component_values(clean)
    return {name: before[name] - after[name] for name in before}


def _middle(frame: Frame) -> Frame:
    """Return the central part of a picture, at most :data:`MAX_SIZE`."""
    format = frame.format
    height, width = (min(a, b) for a, b in zip((frame.height, frame.width), MAX_SIZE, strict=True))
    top, left = ((frame.height - height) // 2 // 16 * 16, (frame.width - width) // 2 // 16 * 16)
    planes = []
    for i, plane in enumerate(frame.planes):
        h, w = format.plane_shape(i, height, width)[:2]
        y, x = format.plane_shape(i, top, left)[:2]  # whole samples in every format: top and left are multiples of 16
        planes.append(plane[y : y + h, x : x + w])
    return replace(frame, planes=tuple(planes))


def _summary(found: list[tuple[float, dict[str, float]]], positions: list[float]) -> NoiseReport:
    names = found[0][1]
    mean = {name: sum(levels.get(name, 0.0) for _, levels in found) / len(found) for name in names}
    sigmas = [round(sigma, 2) for sigma, _ in found]
    return NoiseReport(
        sigma=round(sum(sigmas) / len(sigmas), 2),
        planes={name: round(value, 2) for name, value in mean.items()},
        seconds=[round(s, 2) for s in positions],
        sigmas=sigmas,
    )
