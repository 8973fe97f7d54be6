"""Picture files: one, or a sequence of them by number or by glob."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import av.error
import torch

from vidnoise.errors import DecodeError, FormatError, SizeChangeError, SourceError, SourceOpenError, UsageError
from vidnoise.frame import PIXEL_FORMATS, Frame, Packet, PixelFormat, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.notices import Notify
from vidnoise.option_values import MAX_PIXELS
from vidnoise.options import SourceOptions
from vidnoise.sources.picture import PictureReader
from vidnoise.sources.protocol import ClosedAfterUse
from vidnoise.sources.raw import DEFAULT_RATE, frames_per_second
from vidnoise.stills import jpeg, webp
from vidnoise.stills.fields import PictureFile, PictureTags
from vidnoise.stills.names import is_sequence, sequence_files
from vidnoise.stills.tags import kind_by_content, read_tags, rotation_of
from vidnoise.text import shown

logger = logging.getLogger(__name__)

_DECODERS = {"bmp": "bmp", "exr": "exr", "jpeg": "mjpeg", "png": "png", "tiff": "tiff", "webp": "webp"}

_STRICT = ("jpeg", "png", "webp")
"""Kinds whose decoders refuse damaged files on request. The others do so anyway, or would refuse good files as well."""

_CENTRE = 2
"""Chroma location of both JPEG and WebP."""

_MAYBE_OPAQUE = ("pal8", "argb")
"""Formats that decoders return for palettes and for lossless WebP, with or without transparency."""


class StillsSource(ClosedAfterUse):
    """Reads picture files once, in order; each is one frame. Not thread-safe, except for :meth:`stop`.

    Args:
        uri: A path, a numbered pattern (``frame%04d.png``) or a glob (``shots/*.png``).
        options: The options of an input.
        notify: Called with notices about the input.

    Raises:
        SourceOpenError: There is no such file, it is not a picture, or a number is missing in the sequence.
        DecodeError: The first picture is damaged.
        FormatError: Its samples cannot be processed without loss, or it is too large.
        UsageError: ``rate`` is not a frame rate, or ``start`` is after the end.
    """

    info: StreamInfo
    trailing_packets: tuple[Packet, ...] = ()

    def __init__(self, uri: str, options: SourceOptions, *, notify: Notify = logger.log) -> None:
        self.uri = shown(uri)
        self._threads = options.threads
        self._max_pixels = options.max_pixels or MAX_PIXELS
        self._notify = notify
        self._reader = PictureReader(self.uri, notify)
        self._lock = threading.Lock()
        self._closed = self._started = self._stopped = False
        self.n_corrupt = 0
        rate = frames_per_second(options.rate or DEFAULT_RATE, "rate")
        self._files = _trimmed(_files(uri), rate, options, self.uri)
        picture, tags = self._decode(self._files[0][1])
        first = replace(self._frame(picture, tags, 0, None), time_base=1 / rate)
        self._first: Frame | None = first
        is_still = not is_sequence(uri)
        self.info = StreamInfo(
            width=first.width, height=first.height, format=first.format, time_base=1 / rate,
            rate=None if is_still else rate, color=first.color, rotation=rotation_of(tags),
            n_frames=len(self._files), duration_seconds=None if is_still else float(len(self._files) / rate),
            is_still=is_still, codec=_DECODERS[tags.kind],
            passthrough=Passthrough(
                uri=uri, container=tags.kind, tags=tags, pictures=tuple(path for _, path in self._files)
            ),
        )  # fmt: skip

    def stop(self) -> None:
        """End the iteration before the next picture. Thread-safe."""
        self._stopped = True

    def close(self) -> None:
        """End the iteration; no file is open between two pictures. Idempotent."""
        with self._lock:
            self._closed = True

    def __iter__(self) -> Iterator[Frame]:
        if self._started:
            raise SourceError(f"{self.uri}: a source can be read only once; open it again", self.uri)
        self._started = True
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        try:
            for index, (_, path) in enumerate(self._files):
                with self._lock:
                    if self._closed or self._stopped:
                        return
                    frame, self._first = self._first, None
                    if frame is None:
                        frame = self._frame(*self._decode(path), index, self.info)
                yield frame
        finally:
            self.close()

    def _frame(self, picture: av.VideoFrame, tags: PictureTags, index: int, info: StreamInfo | None) -> Frame:
        number, path = self._files[index]
        picture = _without_redundant_channels(picture, None if info is None else info.format)
        format, planes = self._reader.read(picture)
        self._reader.chroma_location = _CENTRE if format.log2_chroma_w or format.log2_chroma_h else 0
        color = self._reader.color_of(picture, format, None)
        if format.family != "yuv":
            color = replace(color, matrix=0 if format.family == "rgb" else color.matrix, range=2)
        if info is not None and (picture.width, picture.height) != (info.width, info.height):
            raise SizeChangeError(
                f"{path}: is {picture.width}x{picture.height}, but the sequence began with {info.width}x{info.height}"
            )
        if info is not None and format != info.format:
            raise SizeChangeError(
                f"{path}: holds {format.name}, but the sequence began with {info.format.name}; "
                "name the files one by one, or a folder, to denoise them as separate pictures"
            )
        return Frame(
            planes=planes, format=format, color=color, pts=index, duration=1,
            time_base=Fraction(1) if info is None else info.time_base, index=index,
            side_data=PictureFile(number, tags),
        )  # fmt: skip

    def _decode(self, path: str) -> tuple[av.VideoFrame, PictureTags]:
        """Return the picture in a file, and its tags."""
        name = shown(path)
        data = _read(path)
        kind = kind_by_content(data)
        if kind is None:
            raise SourceOpenError(f"{name}: is no picture (PNG, JPEG, TIFF, WebP, EXR and BMP are read)", path)
        if kind == "webp" and webp.is_animated(data):
            raise SourceOpenError(
                f"{name}: is an animated WebP, which FFmpeg cannot decode; convert it to an animated PNG first, "
                "for example with ImageMagick: magick IN.webp apng:OUT.apng", path,
            )  # fmt: skip
        tags = read_tags(data)
        if tags.channels == 4:
            raise FormatError(f"{name}: is in CMYK for printing; convert it to RGB first")
        if tags.size and tags.size[0] * tags.size[1] > self._max_pixels:
            raise FormatError(
                f"{name}: is {tags.size[0]}x{tags.size[1]}, which is more than {self._max_pixels} pixels; "
                "max_pixels=N allows larger pictures"
            )
        picture = self._picture(data, kind, strict=True)
        if picture is None and kind == "jpeg" and not jpeg.is_cut_off(data):
            picture = self._picture(data, kind, strict=False)
            if picture is not None:
                self.n_corrupt += 1
                self._notify(logging.WARNING, "%s: is damaged in places", name)
        if picture is None:
            raise DecodeError(
                f"{name}: cannot be decoded: it is damaged or cut off, or a kind of {kind.upper()} that FFmpeg "
                "does not know", path,
            )  # fmt: skip
        return picture, tags

    def _picture(self, data: bytes, kind: str, *, strict: bool) -> av.VideoFrame | None:
        decoder = cast(av.VideoCodecContext, av.CodecContext.create(_DECODERS[kind], "r"))
        detect = {"err_detect": "explode"} if strict and kind in _STRICT else {}
        decoder.options = {"max_pixels": str(self._max_pixels), **detect}
        decoder.thread_count = self._threads
        try:
            found = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        except av.error.FFmpegError:
            return None
        return found[0] if found and not found[0].is_corrupt else None


def _files(uri: str) -> list[tuple[int, str]]:
    if is_sequence(uri):
        return sequence_files(uri)
    return [(1, uri)]


def _trimmed(files: list[tuple[int, str]], rate: Fraction, options: SourceOptions, name: str) -> list[tuple[int, str]]:
    begin = -int(-(options.start or 0) * rate // 1)
    if begin >= len(files):
        raise UsageError(f"{name}: start {options.start:g} s is behind the end", "start")
    end = None if options.duration is None else begin + max(1, round(options.duration * rate))
    return files[begin:end]


def _read(path: str) -> bytes:
    name = shown(path)
    if os.path.isdir(path):
        raise SourceOpenError(f"{name}: is a directory", path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as ex:
        raise SourceOpenError(f"{name}: no such file", path) from ex
    except PermissionError as ex:
        raise SourceOpenError(f"{name}: permission denied", path) from ex
    except OSError as ex:
        raise SourceOpenError(f"{name}: cannot be read: {ex.strerror or ex}", path) from ex
    if not data:
        raise SourceOpenError(f"{name}: is an empty file", path)
    return data


def _without_redundant_channels(picture: av.VideoFrame, like: PixelFormat | None) -> av.VideoFrame:
    """Return ``picture`` as gray or RGB if that loses nothing of its palette or of its alpha channel.

    Args:
        picture: As decoded.
        like: Format of the preceding pictures of a sequence.
    """
    if picture.format.name not in _MAYBE_OPAQUE or (like is not None and like.name == "rgba"):
        return picture
    samples = torch.from_numpy(picture.to_ndarray(format="rgba"))
    r, g, b, a = samples.unbind(-1)
    if not bool((a == 255).all()):
        return picture.reformat(format="rgba")
    is_gray = picture.format.name == "pal8" and torch.equal(r, g) and torch.equal(g, b)
    if is_gray and (like is None or like == PIXEL_FORMATS["gray"]):
        plain = av.VideoFrame.from_ndarray(r.contiguous().numpy(), "gray")
    else:
        plain = av.VideoFrame.from_ndarray(samples[..., :3].contiguous().numpy(), "rgb24")
    plain.color_range = picture.color_range
    return plain
