"""Picture files: one, or a numbered sequence of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from vidnoise.disk import check_free, write_whole
from vidnoise.errors import EncodeError, SinkOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.notices import Notify
from vidnoise.options import SinkOptions
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.file import FileDestination
from vidnoise.sinks.protocol import FinishedAfterUse
from vidnoise.sinks.still_format import StillFormat, choose_still_format
from vidnoise.stills.fields import Density, PictureFile, PictureTags
from vidnoise.stills.names import Numbered, is_numbered, kind_of
from vidnoise.stills.tags import tags_of_rotation, write_tags
from vidnoise.text import shown

logger = logging.getLogger(__name__)

_OF_VIDEOS = ("codec", "crf", "preset", "format", "faststart", "grow")
"""Options that do not apply to pictures."""

_PLAIN_PRIMARIES, _PLAIN_TRANSFERS = (0, 1, 2, 5, 6), (0, 1, 2, 4, 6, 13)
"""Codes of H.273 that a picture without tags is assumed to have, or that hardly differ from those."""

_ANIMATED = {"png": "apng", "webp": "webp"}
"""Kinds of picture files that can also be animations, and FFmpeg's names of their muxers."""


class StillsSink(FinishedAfterUse):
    """Writes each frame as a picture file; see :func:`vidnoise.sinks.open_sink` for the options.

    Without a number in its name, the output is one picture, which appears when the sink is closed. The pictures of a
    sequence appear one by one, each when it is complete, and stay if the run fails. Not thread-safe.

    Args:
        path: Name of the picture, or a pattern for several (``clean%04d.png``).
        options: The options of an output.

    Raises:
        SinkOpenError: Files of this name exist, or their folder does not.
    """

    def __init__(self, path: str, options: SinkOptions) -> None:
        kind = kind_of(path)
        assert kind is not None
        self.path, self.name = path, shown(path)
        self._kind = kind
        self._options = options
        self._numbered = Numbered(path) if is_numbered(path) else None
        self._format: StillFormat | None = None
        self._waiting: bytes | None = None
        self._n_written = 0
        self._has_warned = False
        self._check_place()

    def _check_place(self) -> None:
        if self._numbered is None:
            check_free(self.path, overwrite=self._options.overwrite)
            return
        there = self._numbered.files()
        if there and not self._options.overwrite:
            raise SinkOpenError(
                f"{there[0][1]}: exists already, and {len(there) - 1} more of {self.name}; "
                "use overwrite=True or choose another name", self.path,
            )  # fmt: skip
        check_free(self._numbered.name(1), overwrite=True)

    def is_ready(self) -> bool:
        """Whether :meth:`open` would return without waiting for a reader; always True."""
        return True

    def stop(self) -> None:
        """Does nothing, as no reader is waited for."""

    def abandon(self) -> bool:
        """See :meth:`vidnoise.sinks.Sink.abandon`; always False, as there is no peer that could stall."""
        return False

    def plan(self, info: StreamInfo) -> tuple[str, str]:
        """Return the names of the encoder and the pixel format that :meth:`open` would choose."""
        format = self._choose(info)
        return format.encoder, format.samples.name

    def open(self, info: StreamInfo) -> None:
        """Choose the format; nothing is created yet.

        Raises:
            SinkOpenError: Files of this name exist, or are the input.
            UsageError: The input has more than one picture, but the name contains no number.
            EncodeError: The pictures are too large for files of this kind.
        """
        self._check_place()
        self._check_not_input(info)
        if self._numbered is None and not info.is_still and (info.estimated_frames or 0) > 1:
            raise self._too_many()
        format = self._format = self._choose(info)
        self._tags = self._tags_of(info)
        if format.lost:
            logger.warning(
                "%s: %s cannot hold %s; it becomes %s",
                self.name, self._kind.upper(), " and ".join(format.lost), format.samples.name,
            )  # fmt: skip
        elif not format.is_lossless:
            logger.info("%s: %s becomes %s", self.name, info.format.name, format.samples.name)
        self._warn_of_video_losses(info, logger.log)

    def _choose(self, info: StreamInfo) -> StillFormat:
        try:
            return choose_still_format(self._kind, info, quality=self._options.quality, pix_fmt=self._options.pix_fmt)
        except EncodeError as ex:
            raise EncodeError(f"{self.name}: {ex}", self.path) from ex

    def _tags_of(self, info: StreamInfo) -> PictureTags:
        """Return the tags for frames that do not come from a picture file."""
        tags = tags_of_rotation(info.rotation)
        shape = info.sample_aspect_ratio
        if shape is None or shape == 1:
            return tags
        return replace(tags, density=Density(shape.denominator, shape.numerator, ""))

    def _warn_of_video_losses(self, info: StreamInfo, notify: Notify) -> None:
        copies = info.passthrough
        given = [name for name in _OF_VIDEOS if getattr(self._options, name) not in (None, False)]
        if given:
            notify(logging.WARNING, "%s: %s does not apply to pictures", self.name, ", ".join(given))
        if copies.pictures:
            return
        lost = [str(stream) for stream in copies.streams] + (["chapters"] if copies.chapters else [])
        color = info.color
        if color.primaries not in _PLAIN_PRIMARIES or color.transfer not in _PLAIN_TRANSFERS:
            lost.append(f"colour tags (primaries {info.color.primaries}, transfer {info.color.transfer})")
        if lost:
            notify(logging.WARNING, "%s: pictures have no place for: %s", self.name, "; ".join(lost))

    def _check_not_input(self, info: StreamInfo) -> None:
        copies = info.passthrough
        inputs = copies.pictures or ((copies.uri,) if copies.uri else ())
        outputs = [self.path] if self._numbered is None else [path for _, path in self._numbered.files()]
        places = {os.path.realpath(path) for path in outputs}
        for path in inputs:
            if os.path.exists(path) and os.path.realpath(path) in places:
                raise SinkOpenError(f"{self.name}: would replace the input {path}; choose another name", self.path)

    def _too_many(self) -> UsageError:
        stem, suffix = os.path.splitext(self.name)
        return UsageError(
            f"{self.name}: holds one picture, and the input has more; "
            f"put a number into the name, as in {stem}-%04d{suffix}"
        )

    def write(self, frame: Frame) -> None:
        """Encode ``frame``; if it belongs to a sequence, it is on the disk afterwards.

        Raises:
            EncodeError: Encoding or writing failed.
            UsageError: The name contains no number, and this is the second frame.
        """
        if self._format is None:
            raise EncodeError(f"{self.name}: the output is not open", self.path)
        if self._numbered is None and self._n_written:
            self.abort()
            raise self._too_many()
        file = frame.side_data if isinstance(frame.side_data, PictureFile) else None
        tags = self._tags if file is None else file.tags
        try:
            data = self._format.file_of(frame, self._options.threads)
        except EncodeError as ex:
            raise EncodeError(f"{self.name}: {ex}", self.path) from ex
        data, lost = write_tags(data, self._kind, tags, (frame.width, frame.height))
        if lost and not self._has_warned:
            self._has_warned = True
            logger.warning("%s: %s has no place for %s", self.name, self._kind.upper(), ", ".join(lost))
        self._n_written += 1
        if self._numbered is None:
            self._waiting = data
        else:
            number = self._n_written if file is None else file.number
            self._put(self._numbered.name(number), data)

    def _put(self, path: str, data: bytes) -> None:
        try:
            write_whole(path, data, overwrite=self._options.overwrite)
        except SinkOpenError as ex:
            raise EncodeError(str(ex), path) from ex

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Write the picture, unless the output is a sequence, whose pictures are written already.

        Raises:
            EncodeError: It cannot be written, or there was no frame.
        """
        if self._format is None:
            return
        self._format = None
        if not self._n_written:
            raise EncodeError(f"{self.name}: no frame was written, so no file", self.path)
        data, self._waiting = self._waiting, None
        if data is not None:
            self._put(self.path, data)

    def abort(self) -> None:
        """Discard what is not on the disk yet."""
        self._format = self._waiting = None


class StillOrAnimationSink(FinishedAfterUse):
    """Writes a ``.png`` or ``.webp``: a still, or an animation if the input is one; a video also becomes a ``.webp``.

    The input decides when the sink is opened. For the arguments, see :class:`StillsSink`.
    """

    def __init__(self, path: str, options: SinkOptions) -> None:
        self.path = path
        self._options = options
        self._sink: StillsSink | ContainerSink = StillsSink(path, options)

    def _chosen(self, info: StreamInfo) -> StillsSink | ContainerSink:
        kind = kind_of(self.path) or ""
        is_animation = not info.is_still and (kind == "webp" or info.passthrough.container == _ANIMATED[kind])
        if not is_animation:
            return self._sink
        options = replace(self._options, format=_ANIMATED[kind])
        return ContainerSink(FileDestination(self.path, options), options)

    def open(self, info: StreamInfo) -> None:
        """See :meth:`StillsSink.open` and :meth:`ContainerSink.open`."""
        self._sink = self._chosen(info)
        self._sink.open(info)

    def plan(self, info: StreamInfo) -> tuple[str, str]:
        """See :meth:`StillsSink.plan`."""
        return self._chosen(info).plan(info)

    def is_ready(self) -> bool:
        return self._sink.is_ready()

    def stop(self) -> None:
        self._sink.stop()

    def abandon(self) -> bool:
        return self._sink.abandon()

    def write(self, frame: Frame) -> None:
        self._sink.write(frame)

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        self._sink.close(trailing_packets)

    def abort(self) -> None:
        self._sink.abort()


def picture_sink(path: str, options: SinkOptions) -> StillsSink | StillOrAnimationSink:
    """Make the sink for the picture file, the sequence or the animation called ``path``."""
    if kind_of(path) in _ANIMATED and not is_numbered(path):
        return StillOrAnimationSink(path, options)
    return StillsSink(path, options)
