"""Which of the input's tags go into the output, and how the MP4 family is told to keep them."""

from __future__ import annotations

import logging
from dataclasses import replace

from av.codec.codec import Codec

from vidnoise.frame import PIXEL_FORMATS, StreamInfo
from vidnoise.frame.passthrough import Passthrough, is_same_language
from vidnoise.notices import Notify
from vidnoise.text import printable

logger = logging.getLogger(__name__)

_DEAD_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Tags that tell of the input's muxer, not of the video."""

_MUXER = "Lavf"
"""So begins the name that FFmpeg's muxers leave, in AVI under "software"."""

_COMMON = "title artist album date comment genre copyright creation_time location"
_MOV_TAGS = frozenset(f"{_COMMON} make model".split())
_MP4_TAGS = frozenset(
    f"{_COMMON} album_artist composer grouping lyrics description synopsis show episode_id network keywords "
    "episode_sort season_number media_type hd_video gapless_playback compilation track disc".split()
)
_STORED = {"mov": _MOV_TAGS, "mp4": _MP4_TAGS | {"timecode"}, "ipod": _MP4_TAGS}
"""Tags that FFmpeg's writers of the MP4 family store (tried; a timecode as a track); others they drop unsaid."""


HOLDS_NO_TAGS = ("mpegts", "mpeg")
"""Containers without tags and chapters."""

_QUICKTIME_LANGUAGES = (
    "eng fra ger ita dut spa dan por nor heb jpn ara fin gre ice mlt tur chi urd hin tha kor lit pol hun est lav "
    "rus per alb ron ces slk slv yid mac bul ukr bel uzb kaz aze arm geo kir tgk tuk mon kur kas snd tib nep san "
    "mar ben asm guj ori mal kan tam tel sin bur khm lao vie ind tgl may amh tir orm som swa wel baq cat lat que "
    "grn aym tat uig dzo jav und"
)
"""Languages that FFmpeg's writer of .mov stores (tried): each has one code only, and it is not always the newer one."""

_HOLDS_SHAPE = frozenset({"mov", "mp4", "ipod", "3gp", "3g2", "f4v", "ismv", "psp"})
"""Containers that store how a picture is turned and how wide its samples are, whatever the codec."""

_HOLDS_ROTATION = _HOLDS_SHAPE | {"matroska", "webm"}

_CODEC_HOLDS_ASPECT = ("h264", "hevc", "mpeg4", "mpeg2video", "mjpeg")
"""Codecs that store the sample aspect ratio themselves (tried)."""


CHROMA_LOCATIONS = {1: "left", 2: "center", 3: "topleft", 4: "top", 5: "bottomleft", 6: "bottom"}
"""FFmpeg's names of chroma locations."""

_USUAL_LOCATION = 1
"""What everyone takes for meant where nothing is said."""


def holds_chroma_location(container_format: str, codec: str, location: int, *, is_8_bit: bool) -> bool:
    """Whether FFmpeg stores where chroma samples lie in the container or codec (by its canonical name), or need not."""
    if location in (0, _USUAL_LOCATION) or codec in ("h264", "hevc", "vvc"):
        return True
    if codec in ("mjpeg", "mpeg1video"):
        return location == 2
    if container_format == "yuv4mpegpipe":
        return is_8_bit and location in (2, 3)
    return (container_format in ("matroska", "webm") and location in (2, 3)) or (codec == "av1" and location == 3)


def stream_tags(tags: dict[str, str], container_format: str, what: str, notify: Notify = logger.log) -> dict[str, str]:
    """Tags of one stream, ``what``, as a container stores them, with a warning where it has none for its language."""
    language = tags.get("language")
    if container_format != "mov" or not language or language in _QUICKTIME_LANGUAGES.split():
        return tags
    same = [code for code in _QUICKTIME_LANGUAGES.split() if is_same_language(code, language)]
    if not same:
        notify(logging.WARNING, "%s: mov has no code for its language %s; an .mp4 file has", what, printable(language))
        return tags
    return {**tags, "language": same[0]}


def timecode_as_tag(copies: Passthrough, container_format: str, uri: str, notify: Notify = logger.log) -> Passthrough:
    """``copies`` with timecode tracks (.mov) as what they say: a tag of the video, which muxers make a track of."""
    tracks = [s for s in copies.streams if s.kind == "data" and "timecode" in s.metadata]
    if not tracks:
        return copies
    if container_format in HOLDS_NO_TAGS:
        notify(logging.WARNING, "%s: %s has no place for the timecode", uri, container_format)
    tags = {"timecode": tracks[0].metadata["timecode"], **copies.video_metadata}
    return replace(copies, streams=tuple(s for s in copies.streams if s not in tracks), video_metadata=tags)


def holds_aspect(container_format: str, codec: str) -> bool:
    """Whether FFmpeg stores the sample aspect ratio by itself, in the container's header or in the codec's."""
    return container_format in _HOLDS_SHAPE or codec in _CODEC_HOLDS_ASPECT


def warn_of_shape(
    container_format: str,
    encoder: Codec,
    info: StreamInfo,
    uri: str,
    notify: Notify,
    *,
    holds_aspect: bool,
) -> None:
    """Say what the output cannot tell of the pictures' shape.

    Args:
        container_format: FFmpeg's name of the output's container.
        encoder, info: Of the video.
        uri: The output, for messages.
        notify: Told what is lost.
        holds_aspect: Whether the sample aspect ratio is stored.
    """
    lost = []
    if info.rotation and container_format not in _HOLDS_ROTATION:
        lost.append(f"rotation by {info.rotation} degrees")
    if info.sample_aspect_ratio not in (None, 1) and not holds_aspect:
        lost.append(f"sample aspect ratio {info.sample_aspect_ratio}")
    if lost:
        notify(
            logging.WARNING, "%s: %s with %s has no place for the %s; an .mp4 file has",
            uri, container_format, encoder.name, " and the ".join(lost),
        )  # fmt: skip


def warn_of_chroma_location(
    container_format: str, encoder: Codec, pix_fmt: str, location: int, uri: str, notify: Notify
) -> None:
    """Say where the output cannot tell ``location``, at which its chroma samples lie; see :func:`warn_of_shape`."""
    format = PIXEL_FORMATS.get(pix_fmt)
    is_8_bit = format is not None and format.bit_depth == 8
    if not holds_chroma_location(container_format, encoder.canonical_name, location, is_8_bit=is_8_bit):
        notify(
            logging.WARNING, "%s: %s with %s has no place for the chroma location (%s); H.264 and HEVC have one",
            uri, container_format, encoder.name, CHROMA_LOCATIONS[location],
        )  # fmt: skip


def container_tags(
    tags: dict[str, str], container_format: str, uri: str, notify: Notify = logger.log
) -> tuple[dict[str, str], dict[str, str]]:
    """The tags worth writing, and the muxer's options for them.

    What cannot be written is told to ``notify``.

    Args:
        tags: Of the input.
        container_format: FFmpeg's name of the output's container.
        uri: The output, for messages.
    """
    alive = {k: v for k, v in tags.items() if k.lower() not in _DEAD_TAGS and v and not v.startswith(_MUXER)}
    if container_format in HOLDS_NO_TAGS and alive:
        notify(
            logging.WARNING, "%s: %s has no place for the tags %s", uri, container_format, printable(", ".join(alive))
        )
    stored = _STORED.get(container_format)
    if stored is None:
        return alive, {}
    # "location-eng" is how a location with a language is read; it is written from "location".
    lost = [k for k in alive if k.lower() not in stored and k.lower().partition("-")[0] not in stored]
    if lost and (container_format == "mov" or any(k.startswith("com.") for k in lost)):
        # Apple's free-form list of tags: holds any name, but hides the classic ones from some MP4 players.
        return alive, {"movflags": "use_metadata_tags"}
    if lost:
        notify(
            logging.WARNING, "%s: %s has no place for the tags %s", uri, container_format, printable(", ".join(lost))
        )
    return alive, {}
