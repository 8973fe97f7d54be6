"""Which of the input's tags go into the output, and the muxer options that keep them."""

from __future__ import annotations

import logging
from dataclasses import replace

from av.codec.codec import Codec

from vidnoise.frame import PIXEL_FORMATS, StreamInfo
from vidnoise.frame.passthrough import Passthrough, is_same_language
from vidnoise.notices import Notify
from vidnoise.text import printable

logger = logging.getLogger(__name__)

_MUXER_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Tags that describe the input's muxer rather than the video."""

_MUXER_NAME = "Lavf"
"""Prefix of the name that FFmpeg's muxers write; in AVI, into the tag "software"."""

_COMMON = "title artist album date comment genre copyright creation_time location"
_MOV_TAGS = frozenset(f"{_COMMON} make model".split())
_MP4_TAGS = frozenset(
    f"{_COMMON} album_artist composer grouping lyrics description synopsis show episode_id network keywords "
    "episode_sort season_number media_type hd_video gapless_playback compilation track disc".split()
)
_STORED = {"mov": _MOV_TAGS, "mp4": _MP4_TAGS | {"timecode"}, "ipod": _MP4_TAGS}
"""Tags that FFmpeg's muxers of the MP4 family store (tested; a timecode as a track); they drop others silently."""


HOLDS_NO_TAGS = ("mpegts", "mpeg")
"""Containers that store neither tags nor chapters."""

_QUICKTIME_LANGUAGES = (
    "eng fra ger ita dut spa dan por nor heb jpn ara fin gre ice mlt tur chi urd hin tha kor lit pol hun est lav "
    "rus per alb ron ces slk slv yid mac bul ukr bel uzb kaz aze arm geo kir tgk tuk mon kur kas snd tib nep san "
    "mar ben asm guj ori mal kan tam tel sin bur khm lao vie ind tgl may amh tir orm som swa wel baq cat lat que "
    "grn aym tat uig dzo jav und"
)
"""Language codes that FFmpeg's .mov muxer stores (tested): one per language, not always the newer one."""

_HOLDS_SHAPE = frozenset({"mov", "mp4", "ipod", "3gp", "3g2", "f4v", "ismv", "psp"})
"""Containers that store rotation and sample aspect ratio for every codec."""

_HOLDS_ROTATION = _HOLDS_SHAPE | {"matroska", "webm"}

_CODEC_HOLDS_ASPECT = ("h264", "hevc", "mpeg4", "mpeg2video", "mjpeg")
"""Codecs that store the sample aspect ratio themselves (tested)."""


CHROMA_LOCATIONS = {1: "left", 2: "center", 3: "topleft", 4: "top", 5: "bottomleft", 6: "bottom"}
"""Codes of chroma locations (H.273, plus one) to FFmpeg's names."""

_DEFAULT_LOCATION = 1
"""The location that readers assume if none is stored."""


def holds_chroma_location(container_format: str, codec: str, location: int, *, is_8_bit: bool) -> bool:
    """Whether FFmpeg stores a chroma location in the container or codec, or does not need to.

    Args:
        container_format: FFmpeg's name of the container.
        codec: Canonical name of the codec.
        location: Code of the chroma location.
        is_8_bit: Whether samples have 8 bits.
    """
    if location in (0, _DEFAULT_LOCATION) or codec in ("h264", "hevc", "vvc"):
        return True
    if codec in ("mjpeg", "mpeg1video"):
        return location == 2
    if container_format == "yuv4mpegpipe":
        return is_8_bit and location in (2, 3)
    return (container_format in ("matroska", "webm") and location in (2, 3)) or (codec == "av1" and location == 3)


def stream_tags(tags: dict[str, str], container_format: str, what: str, notify: Notify = logger.log) -> dict[str, str]:
    """Return the tags of one stream as a container stores them.

    Args:
        tags: Tags of the input stream.
        container_format: FFmpeg's name of the output's container.
        what: Description of the stream, for messages.
        notify: Called if the container cannot store the language.
    """
    language = tags.get("language")
    if container_format != "mov" or not language or language in _QUICKTIME_LANGUAGES.split():
        return tags
    same = [code for code in _QUICKTIME_LANGUAGES.split() if is_same_language(code, language)]
    if not same:
        notify(logging.WARNING, "%s: mov has no code for its language %s; an .mp4 file has", what, printable(language))
        return tags
    return {**tags, "language": same[0]}


def timecode_as_tag(copies: Passthrough, container_format: str, uri: str, notify: Notify = logger.log) -> Passthrough:
    """Replace timecode tracks (.mov) by a tag of the video, from which muxers make such a track."""
    tracks = [s for s in copies.streams if s.kind == "data" and "timecode" in s.metadata]
    if not tracks:
        return copies
    if container_format in HOLDS_NO_TAGS:
        notify(logging.WARNING, "%s: %s has no place for the timecode", uri, container_format)
    tags = {"timecode": tracks[0].metadata["timecode"], **copies.video_metadata}
    return replace(copies, streams=tuple(s for s in copies.streams if s not in tracks), video_metadata=tags)


def holds_aspect(container_format: str, codec: str) -> bool:
    """Whether FFmpeg stores the sample aspect ratio, in the container or in the codec."""
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
    """Warn if the output cannot store rotation or sample aspect ratio.

    Args:
        container_format: FFmpeg's name of the output's container.
        encoder: The encoder.
        info: The video.
        uri: The output's name in messages.
        notify: Called for what is lost.
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
    """Warn if the output cannot store the chroma location; see :func:`warn_of_shape` for the arguments."""
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
    """Return the tags to write, and the muxer options for them.

    Args:
        tags: Tags of the input.
        container_format: FFmpeg's name of the output's container.
        uri: The output's name in messages.
        notify: Called for tags that the container cannot store.
    """
    alive = {k: v for k, v in tags.items() if k.lower() not in _MUXER_TAGS and v and not v.startswith(_MUXER_NAME)}
    if container_format in HOLDS_NO_TAGS and alive:
        notify(
            logging.WARNING, "%s: %s has no place for the tags %s", uri, container_format, printable(", ".join(alive))
        )
    stored = _STORED.get(container_format)
    if stored is None:
        return alive, {}
    # A location with a language is read as "location-eng", and written from "location".
    lost = [k for k in alive if k.lower() not in stored and k.lower().partition("-")[0] not in stored]
    if lost and (container_format == "mov" or any(k.startswith("com.") for k in lost)):
        # Apple's free-form metadata holds any name, but hides the classic tags from some MP4 players.
        return alive, {"movflags": "use_metadata_tags"}
    if lost:
        notify(
            logging.WARNING, "%s: %s has no place for the tags %s", uri, container_format, printable(", ".join(lost))
        )
    return alive, {}
