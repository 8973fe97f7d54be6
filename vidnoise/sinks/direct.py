"""Outputs that libav opens itself: network addresses, HLS playlists, virtual cameras."""

from __future__ import annotations

import os
import re
import time

from vidnoise.disk import check_free
from vidnoise.errors import SinkOpenError, UsageError
from vidnoise.frame import StreamInfo
from vidnoise.options import SinkOptions
from vidnoise.sinks.destination import Destination, Output

NETWORK_FORMATS = {
    "rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp", "udp": "mpegts", "tcp": "mpegts",
    "rtp": "rtp_mpegts", "http": "mpegts", "https": "mpegts",
}  # fmt: skip
"""URL scheme to the default container."""

_TCP_TIMEOUT = "timeout=15000000"
"""Microseconds after which a peer that accepts no data is an error."""

_PATIENCE_SECONDS = 10.0
"""How long to wait, once the run is ending, for a server that accepts no data."""

_HLS_LIVE = {"hls_time": "2", "hls_flags": "independent_segments+delete_segments", "hls_list_size": "6"}
_HLS_VOD = {
    "hls_time": "4",
    "hls_flags": "independent_segments",
    "hls_list_size": "0",
    "hls_playlist_type": "vod",
}


class Direct:
    """Placeholder :class:`~vidnoise.sinks.destination.Output` for addresses that libav opens and writes itself."""

    error: OSError | None = None

    def __init__(self, address: str) -> None:
        self.part_path = address

    def write(self, data: bytes) -> int:
        raise NotImplementedError("libav writes this output itself")

    def seal(self) -> None:
        """Do nothing."""

    def publish(self, *, overwrite: bool) -> None:
        """Do nothing: the data has been sent already."""

    def release(self) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing: what was sent cannot be taken back."""


class NetworkDestination(Destination):
    """A server or player to push to: RTMP, RTSP, UDP, TCP, RTP or HTTP."""

    is_prompt = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)
        self._last_progress: tuple[int, float] | None = None
        """Number of frames written, and when it was first seen, while the run is ending."""

    @property
    def default_format(self) -> str | None:  # type: ignore[override]
        scheme = self.path.partition(":")[0]
        if scheme not in NETWORK_FORMATS:
            raise UsageError(f"{self.path}: nothing writes to {scheme}; use {', '.join(NETWORK_FORMATS)}")
        return NETWORK_FORMATS[scheme]

    @property
    def address(self) -> str:  # type: ignore[override]
        if self.path.startswith("tcp:") and "timeout=" not in self.path:
            return self.path + ("&" if "?" in self.path else "?") + _TCP_TIMEOUT
        if self.path.startswith("udp:") and "pkt_size=" not in self.path:
            return self.path + ("&" if "?" in self.path else "?") + "pkt_size=1316"
        return self.path

    def check(self) -> None:
        """Do nothing: only connecting shows whether the address works."""

    def create(self, format_name: str) -> Output:
        return Direct(self.path)

    def is_watched(self, info: StreamInfo) -> bool:
        return True

    def muxer_options(self, format_name: str, *, is_live: bool) -> dict[str, str]:
        options = super().muxer_options(format_name, is_live=is_live)
        return {"rtsp_transport": "tcp", **options} if format_name == "rtsp" else options

    def gives_up(self, n_written: int) -> bool:
        """Whether no frame was sent for ten seconds; libav may block on a stalled server forever."""
        now = time.monotonic()
        if self._last_progress is None or self._last_progress[0] != n_written:
            self._last_progress = n_written, now
        return now - self._last_progress[1] >= _PATIENCE_SECONDS


_SEGMENT = "-%05d.ts"
"""Replaces the playlist's extension in the names of its segments."""


def is_segment(path: str, playlist: str) -> bool:
    """Whether ``path`` is a possible name of a segment of ``playlist``."""
    folder, name = os.path.split(os.path.splitext(playlist)[0])
    same_folder = os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)
    return same_folder and re.fullmatch(re.escape(name) + r"-\d{5,}\.ts", os.path.basename(path)) is not None


class HlsDestination(Destination):
    """A playlist with its segments beside it; of a live input, only the last twelve seconds are kept."""

    default_format = "hls"
    is_prompt = True
    is_exclusive = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)
        self.address = path
        self._overwrite = options.overwrite

    def check(self) -> None:
        check_free(self.path, overwrite=self._overwrite)
        folder = os.path.dirname(self.path)
        for path in (os.path.join(folder, name) for name in sorted(os.listdir(folder or "."))):
            if is_segment(path, self.path):
                check_free(path, overwrite=self._overwrite)

    def check_not_input(self, uri: str) -> None:
        super().check_not_input(uri)
        if is_segment(uri, self.path):
            raise SinkOpenError(f"{uri}: has the name of a segment of {self.path}; choose another one", self.path)

    def create(self, format_name: str) -> Output:
        return Direct(self.path)

    def is_watched(self, info: StreamInfo) -> bool:
        return info.is_live

    def muxer_options(self, format_name: str, *, is_live: bool) -> dict[str, str]:
        pattern = os.path.splitext(self.path)[0].replace("%", "%%") + _SEGMENT
        return {**(_HLS_LIVE if is_live else _HLS_VOD), "hls_segment_filename": pattern}


class CameraDestination(Destination):
    """A virtual camera (``/dev/videoN`` of v4l2loopback)."""

    default_format = "v4l2"
    is_prompt = True

    def __init__(self, path: str, options: SinkOptions) -> None:
        super().__init__(path)
        self.address = path

    def check(self) -> None:
        if not os.path.exists(self.path):
            raise SinkOpenError(
                f"{self.path}: there is no such camera; make a virtual one with: modprobe v4l2loopback", self.path
            )

    def create(self, format_name: str) -> Output:
        return Direct(self.path)

    def is_watched(self, info: StreamInfo) -> bool:
        return True
