"""A video file written in segments that survive a crash, and are joined at the end without encoding again."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import av

from vidnoise.disk import Draft, check_free, is_unfinished, layer
from vidnoise.errors import FormatError, SinkOpenError, UsageError
from vidnoise.frame import Frame, Packet, StreamInfo
from vidnoise.frame.stamps import decoded_at
from vidnoise.locking import Lock
from vidnoise.notices import silent
from vidnoise.options import SinkOptions
from vidnoise.resume.segments import EncodedPacket, Parts, SegmentFile
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.destination import Destination, Output
from vidnoise.sinks.uncompressed import is_uncompressed
from vidnoise.sinks.video_stream import VideoStreamWriter


class ResumableSink(ContainerSink):
    """Encodes the video in segments, into a :class:`Parts` folder, and joins them at the end.

    An error, an interruption or a crash leaves all finished segments in place.

    Args:
        path: The output, a file.
        options: The options of an output.
        parts: Folder of the segments, already loaded.
        segment_seconds: Length of a segment, in seconds of video.
        warm_up_frames: Number of finished frames that are passed to :meth:`write` again, and ignored.
        is_whole: Called at the end with the number of frames received; whether these are all of the source. If not, the
            segments are kept and no file is made.
        others: Reopens the source, for the packets of its other streams.
    """

    def __init__(
        self,
        path: str,
        options: SinkOptions,
        *,
        parts: Parts,
        segment_seconds: float,
        warm_up_frames: int,
        is_whole: Callable[[int], bool],
        others: Callable[[], contextlib.AbstractContextManager[Iterable[Packet]]],
    ) -> None:
        super().__init__(_JoinedFile(path, overwrite=options.overwrite), options)
        if is_uncompressed(self._format_name):
            raise UsageError(f"{path}: {self._format_name} cannot be resumed; write an .mp4 or .mkv")
        self._parts = parts
        self._seconds = Fraction(segment_seconds).limit_denominator(1_000_000)
        self._warm_up_left = self._warm_up_frames = warm_up_frames
        self._is_whole = is_whole
        self._others = others
        self._info: StreamInfo | None = None
        self._segment: _Segment | None = None
        self._n_taken = self._n_repaired = 0
        self._max_shift = Fraction(0)
        self._reservation: Lock | None = None

    def reserve(self) -> None:
        """Keep other runs off the output and its segments until this sink is closed or aborted.

        Raises:
            SinkOpenError: Another run is writing the output.
        """
        self._reservation = Lock(self.path)

    def _end_reservation(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    def _keep_draft(self) -> str:
        """Discard the joined file, since the segments are all that another attempt needs."""
        super().abort()
        return f"; all of it is kept in {self._parts.path}, and the same command tries again"

    def open(self, info: StreamInfo) -> None:
        """Open the output once, to fail now rather than at the end, and check it against the finished segments.

        Raises:
            SinkOpenError: As for :class:`ContainerSink`; or the encoder's headers differ from those of the segments.
        """
        super().open(info)
        headers = self._video.headers.hex()
        super().abort()
        try:
            known = self._parts.note("headers", headers)
        except OSError as ex:
            raise SinkOpenError(f"{self._parts.path}: cannot be written: {ex.strerror or ex}", self.path) from ex
        if known != headers:
            raise SinkOpenError(
                f"{self._parts.path}: the encoder is another one, or has other threads, than when it was begun; "
                "delete it to begin anew", self.path,
            )  # fmt: skip
        self._info = info
        self._warm_up_left = min(self._warm_up_frames, len(self._parts.frames))

    def write(self, frame: Frame) -> None:
        """Encode ``frame``; packets attached to it are ignored, and read again when the segments are joined."""
        self._n_taken += 1
        if self._warm_up_left:
            self._warm_up_left -= 1
            return
        with self._cleaning_up():
            segment = self._segment
            if segment is None or segment.is_full(frame, self._seconds):
                last_pts = None if segment is None else segment.video.last_pts
                self._finish_segment()
                segment = self._segment = self._begin_segment(last_pts)
            segment.write(frame, self._writer.picture(frame))

    def _begin_segment(self, last_pts: int | None) -> _Segment:
        info = self._info
        assert info is not None
        copies = info.passthrough
        encoder, choice, options = self._encoding(info, copies, silent)

        def make(container: Any, deliver: Callable[[av.Packet], None]) -> VideoStreamWriter:
            return VideoStreamWriter(
                container, encoder, choice.name, options, info, copies, color=self._writer.color,
                threads=self._threads, deliver=deliver, last_pts=last_pts, notify=silent,
            )  # fmt: skip

        return _Segment(self._parts.begin(), self._format_name, make)

    def _finish_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.finish(self._parts)
        except BaseException:
            segment.discard()
            raise
        self._n_repaired += segment.video.n_repaired
        self._max_shift = max(self._max_shift, segment.video.max_shift)

    def close(self, trailing_packets: Sequence[Packet] = ()) -> None:
        """Join the segments if the source has ended; otherwise keep them.

        Raises:
            EncodeError: Writing failed, or there is not a single frame. Finished segments are kept.
        """
        info, self._info = self._info, None
        try:
            if info is not None:
                self._close(info)
        finally:
            self._end_reservation()

    def _close(self, info: StreamInfo) -> None:
        with self._cleaning_up():
            self._finish_segment()
        if not self._is_whole(self._n_taken):
            self._parts.remove_if_empty()
            return
        self._open(info, silent)
        if is_unfinished(self.path):
            layer().remove(self.path)
        try:
            self._join()
        except BaseException:
            super().abort()
            raise
        self._parts.remove()

    def _join(self) -> None:
        with self._cleaning_up(), self._others() as others:
            packets = self._parts.packets()
            waiting = next(packets, None)
            for other in others:
                now = _decoding_seconds(other)
                while waiting is not None and now is not None and waiting[0].dts * waiting[1] <= now:
                    self._mux_encoded(*waiting)
                    waiting = next(packets, None)
                self._copies.mux((other,))
            while waiting is not None:
                self._mux_encoded(*waiting)
                waiting = next(packets, None)
        self._video.n_repaired, self._video.max_shift = self._n_repaired, self._max_shift
        super().close()

    def _mux_encoded(self, encoded: EncodedPacket, time_base: Fraction) -> None:
        packet = av.Packet(encoded.data)
        packet.pts, packet.dts, packet.duration = encoded.pts, encoded.dts, encoded.duration
        packet.time_base = time_base
        packet.is_keyframe = encoded.is_keyframe
        self._video.mux_encoded(packet)
        self._n_written += 1

    def abort(self) -> None:
        """Discard the unfinished segment. Finished ones stay for the next run."""
        super().abort()
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.discard()
        if self._info is not None:
            self._parts.remove_if_empty()
        self._info = None
        self._end_reservation()


class _JoinedFile(Destination):
    """The file that the segments are joined into.

    It takes no lock: the sink holds one for the whole run, over several drafts.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        super().__init__(path)
        self._overwrite = overwrite

    def check(self) -> None:
        if not is_unfinished(self.path):  # an empty file, as a power cut may leave it, holds nothing to lose
            check_free(self.path, overwrite=self._overwrite)

    def create(self, format_name: str) -> Output:
        return Draft(self.path)


class _Segment:
    """A segment that is being encoded.

    Args:
        file: Receives the packets.
        format: Container of the final output, since encoders write headers to suit it.
        make: Makes the writer, from a container and a function that receives its packets.
    """

    def __init__(
        self, file: SegmentFile, format: str, make: Callable[[Any, Callable[[av.Packet], None]], VideoStreamWriter]
    ) -> None:
        self._file = file
        self._frames: list[int] = []
        self._begin: Fraction | None = None
        self._time_base = Fraction(0)
        # Nothing is muxed into this container, but PyAV has encoders only in containers.
        self._container = av.open(io.BytesIO(), "w", format=format)
        try:
            self.video = make(self._container, self._store)
        except BaseException:
            self.discard()
            raise

    def is_full(self, frame: Frame, seconds: Fraction) -> bool:
        """Whether ``frame`` belongs to the next segment."""
        now = frame.seconds
        return self._begin is not None and now is not None and now - self._begin >= seconds

    def write(self, frame: Frame, picture: av.VideoFrame) -> None:
        if self._begin is None:
            self._begin = frame.seconds
        self.video.write(frame, picture)
        self._frames.append(frame.pts or 0)

    def finish(self, parts: Parts) -> None:
        self.video.finish()
        self._container.close()
        parts.finish(self._file, self._frames, self._time_base)

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            self._container.close()
        self._file.discard()

    def _store(self, packet: av.Packet) -> None:
        if packet.has_sidedata("matroska_block_additional"):
            raise FormatError("transparency in this codec cannot be resumed; use codec ffv1, or no resume")
        pts = packet.pts or 0
        self._time_base = Fraction(packet.time_base.numerator, packet.time_base.denominator)
        dts = pts if packet.dts is None else packet.dts
        self._file.add(EncodedPacket(pts, dts, packet.duration or 0, packet.is_keyframe, bytes(packet)))


def _decoding_seconds(packet: Packet) -> Fraction | None:
    data = packet.data
    stamp = decoded_at(data)
    return None if stamp is None else stamp * Fraction(data.time_base.numerator, data.time_base.denominator)
