"""A filter for VapourSynth scripts: :func:`denoise` takes a clip and returns the clean one."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vidnoise.backends.device import resolve_device
from vidnoise.checked import takes
from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame, PixelFormat
from vidnoise.options import DenoiseOptions
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.fields import FieldDenoiser
from vidnoise.session.noise_region import parse_region
from vidnoise.weights import ModelLike, as_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vidnoise.option_keywords import DenoiseKeywords

WARM_UP_FRAMES = 16
"""Number of frames before the requested one that are denoised first after a jump, so that it has a past. Those of the
second half may be given out, too, as when going back frame by frame.
"""

SPARE_FRAMES = 8
"""Number of finished frames to keep beyond those that may be requested at the same time."""


@takes(DenoiseOptions)
def denoise(clip: Any, *, model: ModelLike = "standard", **options: Unpack[DenoiseKeywords]) -> Any:
    """Denoise a VapourSynth clip.

    The frames of a clip depend on those before them, so they are made one after the other, whatever the number of
    threads. Frames that are requested in about the order of the video, as by ``vspipe``, are the same as those of
    :func:`vidnoise.denoise`. After a jump (a seek in a previewer, ``clip[100:]`` does not count) the denoiser starts
    anew :data:`WARM_UP_FRAMES` frames before the one requested, which may differ a little from the one that would have
    been reached from the beginning. The last finished frames are kept: as many as VapourSynth has threads,
    ``lookahead`` and 8 more.

    Args:
        clip: A ``vapoursynth.VideoNode`` of constant format and size: GRAY or RGB with 8, 9, 10, 12, 14 or 16 bits or
            32-bit float, YUV with the same number of bits (not float). ``_Matrix``, ``_Range`` or ``_ColorRange``,
            ``_ChromaLocation`` and ``_FieldBased`` of each frame are respected; frames that are marked as interlaced
            are denoised by field.
        model: A name from :func:`vidnoise.list_models`, a ``.safetensors`` file, or the result of
            :func:`vidnoise.load_model`.
        options: See below, and :class:`vidnoise.options.DenoiseOptions`. ``zones`` need a constant frame rate.

    Returns:
        A ``vapoursynth.VideoNode`` of the same format and length, with the properties of the frames of ``clip``.

    Raises:
        UsageError: VapourSynth's Python module is not installed, an option is out of range or cannot be used with
            VapourSynth.
        FormatError: ``clip`` is no video, or its format is variable or not supported.
        UnknownModelError, WeightsError, DeviceError, BackendError: See :class:`vidnoise.Denoiser`.
    """
    chosen = DenoiseOptions.of("denoise", options)
    try:
        vapoursynth: Any = importlib.import_module("vapoursynth")
    except ImportError as ex:
        raise UsageError(f"VapourSynth's Python module cannot be imported: {ex}") from ex
    if not isinstance(clip, vapoursynth.VideoNode):
        raise FormatError(f"a clip must be a vapoursynth.VideoNode, got a {type(clip).__qualname__}")
    if chosen.grain_table is not None:
        raise UsageError("grain_table is written at the end of a video, which VapourSynth never tells", "grain_table")
    format = pixel_format(clip)
    loaded = as_model(model, resolve_device(chosen.device))
    region = None if chosen.noise_region is None else replace(parse_region(chosen.noise_region), lines=clip.height)
    given: dict[str, Any] = {**chosen.keywords(DenoiseOptions), "noise_region": region}
    with Denoiser(loaded, **given) as first:  # finds errors now, and opens the backend once
        given |= {"backend": first.backend, "max_memory": None}

    def start(frames: Iterator[Frame], begin: int) -> Iterator[Frame]:
        begin_seconds = float(begin / clip.fps) if clip.fps else 0.0
        make = functools.partial(Denoiser, begin_seconds=begin_seconds, **given)
        # The other field gets its grain from another seed.
        return FieldDenoiser(make(loaded), functools.partial(make, grain_seed=chosen.grain_seed + 1))(frames)

    n_kept = vapoursynth.core.num_threads + first.latency_frames + SPARE_FRAMES
    stream = _Stream(functools.partial(_frames, clip, format), start, clip.num_frames, n_kept)

    def finished(n: int, f: Any) -> Any:
        out = f.copy()
        for target, plane in zip(_in_order(out, format), stream.planes(n), strict=True):
            np.asarray(target)[:] = plane.numpy()
        return out

    return clip.std.ModifyFrame(clips=clip, selector=finished)


def pixel_format(clip: Any) -> PixelFormat:
    """Return the pixel format of a clip.

    Raises:
        FormatError: It is variable, or there is no such pixel format.
    """
    format = clip.format
    if format is None or not clip.width or not format.bits_per_sample:
        raise FormatError("the clip changes its format or size: convert it to one first, as by resize.Bicubic")
    family, bits = format.color_family.name, format.bits_per_sample
    is_float = format.sample_type.name == "FLOAT"
    wanted = (family.lower(), 32 if is_float else bits, 1 << format.subsampling_w, 1 << format.subsampling_h)
    for each in PIXEL_FORMATS.values():
        is_planar = all(len(components) == 1 for components in each.layout) and len(each.layout) == format.num_planes
        found = (each.family, each.bit_depth, 1 << each.log2_chroma_w, 1 << each.log2_chroma_h)
        if is_planar and found == wanted and not each.name.startswith("yuvj") and is_float == (bits == 32):
            return each
    raise FormatError(
        f"the clip's format {format.name} is not supported: convert it, as by resize.Bicubic(format=vs.YUV420P16)"
    )


class _Stream:
    """The clean frames of a clip in any order, made in the order of the video.

    Args:
        frames: Yields the noisy frames from one on.
        start: Denoises frames lazily, of which the first has the given number.
        length: Number of frames.
        n_kept: Number of finished frames to keep.
    """

    def __init__(
        self,
        frames: Callable[[int], Generator[Frame, None, None]],
        start: Callable[[Iterator[Frame], int], Iterator[Frame]],
        length: int,
        n_kept: int,
    ) -> None:
        self._frames, self._start, self._length, self._n_kept = frames, start, length, n_kept
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._next = length
        """Number of the next frame to finish; without a run that could finish it, the length."""
        self._first_good = 0
        """Number of the first frame of the run that has enough of a past to be given out."""
        self._run: Iterator[Frame] = iter(())

    def planes(self, n: int) -> tuple[Tensor, ...]:
        """Return the planes of clean frame ``n``. Thread-safe."""
        with self._lock:
            if n not in self._kept and not self._next <= n <= self._next + max(WARM_UP_FRAMES, self._n_kept):
                begin = max(0, n - WARM_UP_FRAMES)
                self._run = self._start(self._frames(begin), begin)
                self._next, self._first_good = begin, begin + WARM_UP_FRAMES // 2 if begin else 0
            while n not in self._kept:
                self._finish_next()
            return self._kept[n]

    def _finish_next(self) -> None:
        self._next, number = self._length, self._next  # as it stays if this fails
        frame = next(self._run)
        self._next = number + 1
        if number >= self._first_good:
            self._kept.setdefault(number, frame.planes)
        if len(self._kept) > self._n_kept:
            self._kept.pop(next(iter(self._kept)))  # the oldest one


def _frames(clip: Any, format: PixelFormat, begin: int) -> Generator[Frame, None, None]:
    """Yield the frames of a clip from number ``begin`` on, with memory of their own."""
    time_base = 1 / Fraction(clip.fps) if clip.fps else None
    for n in range(begin, clip.num_frames):
        with clip.get_frame(n) as f:
            planes = tuple(torch.from_numpy(np.array(plane)) for plane in _in_order(f, format))
            frame = Frame(planes, format, _color(f.props), index=n, interlaced=bool(f.props.get("_FieldBased", 0)))
        yield frame if time_base is None else replace(frame, pts=n, duration=1, time_base=time_base)


def _in_order(f: Any, format: PixelFormat) -> Iterator[Any]:
    """Yield the planes of a VapourSynth frame in the order of the pixel format: those of RGB are R, G and B there."""
    names = {"rgb": "rgb", "yuv": "yuv", "gray": "y"}[format.family]
    return (f[names.index(component)] for (component,) in format.layout)


def _color(props: Any) -> ColorInfo:
    """Return the colour tags of a frame from its properties; those that are missing are unspecified."""
    if "_Range" in props:
        range = 1 + int(props["_Range"])
    else:  # its older name, with the codes the other way round
        range = 2 - int(props["_ColorRange"]) if "_ColorRange" in props else 0
    return ColorInfo(
        matrix=int(props.get("_Matrix", 2)),
        range=range,
        primaries=int(props.get("_Primaries", 2)),
        transfer=int(props.get("_Transfer", 2)),
        chroma_location=1 + int(props.get("_ChromaLocation", -1)),
    )
