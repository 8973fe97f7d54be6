"""Data that a source hands to a sink beside the pictures: the streams and tags to be copied (no av here).

``StreamInfo.passthrough`` holds a :class:`Passthrough`, empty where a source has nothing but pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vidnoise.text import printable

if TYPE_CHECKING:
    from vidnoise.stills.fields import PictureTags

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment", "unknown"]

FORMAT_NAMES = {"y4m": "yuv4mpegpipe", "raw": "rawvideo", "mkv": "matroska", "ts": "mpegts"}
"""Short names of containers, for reading and writing; FFmpeg's own work too."""


BIBLIOGRAPHIC = {
    "bod": "tib", "ces": "cze", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "fas": "per", "fra": "fre",
    "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "mri": "mao", "msa": "may", "mya": "bur", "nld": "dut",
    "ron": "rum", "slk": "slo", "sqi": "alb", "zho": "chi",
}  # fmt: skip
"""Languages with two codes in ISO 639-2: the newer one, of terminology, to the older one, of libraries."""


def is_same_language(first: str, second: str) -> bool:
    """Whether two codes of ISO 639-2 mean the same."""
    first, second = (BIBLIOGRAPHIC.get(code.lower(), code.lower()) for code in (first, second))
    return first == second


@dataclass(frozen=True, slots=True)
class CopiedStream:
    """A stream whose packets travel on ``Frame.packets`` untouched."""

    index: int
    """Its index in the source; ``Packet.stream_index`` refers to it."""
    kind: StreamKind
    codec: str
    """FFmpeg's codec name, ``"unknown"`` where this build has none."""
    template: Any
    """An ``av`` stream that outlives the source's container, or None where none could be made."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    disposition: int = 0
    picture: bytes = b""
    """All the data of a cover picture; its packet comes, too."""
    is_cover: bool = False

    def __str__(self) -> str:
        language = self.metadata.get("language")
        return printable(f"{self.kind} stream #{self.index} ({self.codec}{', ' + language if language else ''})")


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Everything that is copied from a container to a container."""

    uri: str = ""
    """Where the source reads from, so that a sink can refuse to overwrite it."""
    container: str = ""
    """FFmpeg's name of the source's container format."""
    streams: tuple[CopiedStream, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    video_metadata: dict[str, str] = field(default_factory=dict[str, str])
    video_disposition: int = 0
    chapters: tuple[dict[str, Any], ...] = ()
    """As ``av`` gives them: id, start, end, time_base, metadata."""
    display_matrix: tuple[int, ...] | None = None
    """The nine numbers of FFmpeg's display matrix; None for the identity."""
    plays: int | None = None
    """How often an animation is played, 0 for ever; None for what is none."""
    pictures: tuple[str, ...] = ()
    """The files of a still or a sequence."""
    tags: PictureTags | None = None
    """Of the first of them; each frame has its own in ``side_data``, as a ``stills.fields.PictureFile``."""
    hdr: dict[str, Any] = field(default_factory=dict[str, Any])
    """HDR10 static metadata: ``mastering_display`` and ``content_light`` (see ``sinks.hdr``)."""
