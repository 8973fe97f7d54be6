"""Data that a source hands to a sink besides the pictures: the streams and tags to be copied. Does not import ``av``.

``StreamInfo.passthrough`` holds a :class:`Passthrough`, empty if the source has nothing but pictures.
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
    """Index of the stream in the source; ``Packet.stream_index`` refers to it."""
    kind: StreamKind
    codec: str
    """FFmpeg's name of the codec; ``"unknown"`` if this build has none."""
    template: Any
    """An ``av`` stream that outlives the source's container; None if none could be made."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    disposition: int = 0
    picture: bytes = b""
    """The complete data of a cover picture, whose packet is delivered as well."""
    is_cover: bool = False

    def __str__(self) -> str:
        language = self.metadata.get("language")
        return printable(f"{self.kind} stream #{self.index} ({self.codec}{', ' + language if language else ''})")


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Everything that is copied from the input's container to the output's."""

    uri: str = ""
    """Address of the input, so that a sink can refuse to overwrite it."""
    container: str = ""
    """FFmpeg's name of the source's container format."""
    streams: tuple[CopiedStream, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    video_metadata: dict[str, str] = field(default_factory=dict[str, str])
    video_disposition: int = 0
    chapters: tuple[dict[str, Any], ...] = ()
    """Chapters as dictionaries of ``av``: id, start, end, time_base, metadata."""
    display_matrix: tuple[int, ...] | None = None
    """The nine numbers of FFmpeg's display matrix; None for the identity."""
    plays: int | None = None
    """Number of times that an animation is played, 0 for ever; None if the input is no animation."""
    pictures: tuple[str, ...] = ()
    """Paths of the files of a still or a sequence."""
    tags: PictureTags | None = None
    """Tags of the first picture file. Those of each frame are in ``side_data``, as a ``stills.fields.PictureFile``."""
    hdr: dict[str, Any] = field(default_factory=dict[str, Any])
    """HDR10 static metadata: ``mastering_display`` and ``content_light`` (see ``sinks.hdr``)."""
