"""Outputs that libav opens itself, where nothing can be taken back: network addresses, HLS, virtual cameras."""

from __future__ import annotations

import os
import re
import time

import av
import av.container

from vidnoise.disk import check_free
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import StreamInfo
from vidnoise.sinks.container import ContainerSink
from vidnoise.sinks.output_file import Output

NETWORK_FORMATS = {
    "rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp", "udp": "mpegts", "tcp": "mpegts",
    "rtp": "rtp_mpegts", "http": "mpegts", "https": "mpegts",
}  # fmt: skip
"""Scheme of a URL to the container that is sent there, by default."""

_TCP_TIMEOUT = "timeout=15000000"
"""Microseconds after which a peer that takes nothing any more is an error."""

_PATIENCE_SECONDS = 10.0
"""How long a server may take nothing once the run is to end."""

_HLS = {"hls_time": "2", "hls_flags": "independent_segments+delete_segments", "hls_list_size": "6"}
_HLS_OF_A_FILE = {
    "hls_time": "4",
    "hls_flags": "independent_segments",
    "hls_list_size": "0",
    "hls_playlist_type": "vod",
}


class Direct:
    """Stands for an output whose bytes libav writes by itself."""

    error: OSError | None = None

    def __init__(self, address: str) -> None:
        self.part_path = address

    def write(self, data: bytes) -> int:
        raise NotImplementedError("libav writes this output itself")

    def seal(self) -> None:
        """Nothing to do."""

    def publish(self, *, overwrite: bool) -> None:
        """Nothing to do: it is out already."""

    def let_go(self) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        """Nothing can be taken back."""


class DirectSink(ContainerSink):
    """Writes to an address of libav; see :func:`vidnoise.sinks.open_sink` for the arguments."""

    is_prompt = True
    is_live = True
    writes_bytes = False

    def _check_path(self) -> None:
        pass

    def _create(self) -> Output:
        return Direct(self.path)

    def _address(self) -> str:
        return self.path

    def _open_container(self, file: Output, options: dict[str, str]) -> av.container.OutputContainer:
        return av.open(self._address(), "w", format=self._format_name, container_options=options)


class NetworkSink(DirectSink):
    """Pushes to a server or player: RTMP, RTSP, UDP, TCP, RTP, HTTP."""

    _left_from: tuple[int, float] | None = None
    """Frames written when one began to ask whether to leave, and when that was."""

    @property
    def default_format(self) -> str | None:  # type: ignore[override]
        scheme = self.path.partition(":")[0]
        if scheme not in NETWORK_FORMATS:
            raise UsageError(f"{self.path}: nothing writes to {scheme}; use {', '.join(NETWORK_FORMATS)}")
        return NETWORK_FORMATS[scheme]

    def leave(self) -> bool:
        """libav itself waits for a server that takes nothing, some for ever."""
        now = time.monotonic()
        if self._left_from is None or self._left_from[0] != self._n_written:
            self._left_from = self._n_written, now
        if now - self._left_from[1] < _PATIENCE_SECONDS:
            return False
        self._container = self._file = None  # a thread is in there
        return True

    def _address(self) -> str:
        if self.path.startswith("tcp:") and "timeout=" not in self.path:
            return self.path + ("&" if "?" in self.path else "?") + _TCP_TIMEOUT
        if self.path.startswith("udp:") and "pkt_size=" not in self.path:
            return self.path + ("&" if "?" in self.path else "?") + "pkt_size=1316"
        return self.path

    def _open_container(self, file: Output, options: dict[str, str]) -> av.container.OutputContainer:
        if self._format_name == "rtsp":
            options = {"rtsp_transport": "tcp", **options}
        return super()._open_container(file, options)


_SEGMENT = "-%05d.ts"
"""What a segment's name has instead of the playlist's extension."""


def is_segment(path: str, playlist: str) -> bool:
    """Whether a file has a name that a segment of ``playlist`` may have."""
    folder, name = os.path.split(os.path.splitext(playlist)[0])
    same_folder = os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)
    return same_folder and re.fullmatch(re.escape(name) + r"-\d{5,}\.ts", os.path.basename(path)) is not None


class HlsSink(DirectSink):
    """Writes a playlist and its segments beside it; of a live input the last twelve seconds are kept."""

    default_format = "hls"
    is_live = False

    def _check_path(self) -> None:
        check_free(self.path, overwrite=self._overwrite)
        folder = os.path.dirname(self.path)
        for path in (os.path.join(folder, name) for name in sorted(os.listdir(folder or "."))):
            if is_segment(path, self.path):
                check_free(path, overwrite=self._overwrite)

    def _create(self) -> Output:
        self._take_lock()
        return super()._create()

    def _check_not_input(self, uri: str) -> None:
        super()._check_not_input(uri)
        if is_segment(uri, self.path):
            raise SinkOpenError(f"{uri}: has the name of a segment of {self.path}; choose another one", self.path)

    def open(self, info: StreamInfo) -> None:
        self.is_live = info.is_live
        super().open(info)

    def _muxer_options(self, is_live: bool) -> dict[str, str]:
        pattern = os.path.splitext(self.path)[0].replace("%", "%%") + _SEGMENT
        return {**(_HLS if is_live else _HLS_OF_A_FILE), "hls_segment_filename": pattern}


class CameraSink(DirectSink):
    """Feeds a virtual camera (``/dev/videoN`` of v4l2loopback)."""

    default_format = "v4l2"

    def _check_path(self) -> None:
        if not os.path.exists(self.path):
            raise SinkOpenError(
                f"{self.path}: there is no such camera; make a virtual one with: modprobe v4l2loopback", self.path
            )
