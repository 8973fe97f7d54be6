"""Detection of Dolby Vision, by the metadata of each picture rather than by the container."""

from __future__ import annotations

import logging
import struct

import av

from vidnoise.errors import FormatError
from vidnoise.notices import Notify
from vidnoise.sources.description import side_data


def dolby_vision_profile(picture: av.VideoFrame) -> int | None:
    """Return the profile of a Dolby Vision picture: 4, 5, 7 or 8, or 0 if unknown; None for any other picture."""
    found = {item.type.name: bytes(item) for item in side_data(picture) if item.type.name.startswith("DOVI_")}
    if not found:
        return None
    metadata = found.get("DOVI_METADATA", b"")
    if len(metadata) < 8:
        return 0
    # AVDOVIMetadata begins with the offset of its AVDOVIRpuDataHeader. This mirrors how FFmpeg guesses profiles.
    (offset,) = struct.unpack_from("=Q", metadata)
    profile, full_range, vdr_depth = metadata[offset + 4], metadata[offset + 10], metadata[offset + 13]
    has_residual = metadata[offset + 15] and not metadata[offset + 16]
    if profile == 0:
        return 5 if full_range else 0
    if profile == 1:
        return 8 if not has_residual else 7 if vdr_depth == 12 else 4
    return 0


def check_dolby_vision(picture: av.VideoFrame, uri: str, notify: Notify) -> None:
    """Warn about what is lost of a Dolby Vision video.

    Args:
        picture: The first picture.
        uri: The input's name in messages.
        notify: Called for what is lost.

    Raises:
        FormatError: The pictures have wrong colours without the metadata.
    """
    profile = dolby_vision_profile(picture)
    if profile is None:
        return
    if profile == 5:
        raise FormatError(
            f"{uri}: Dolby Vision profile 5 shows true colours only with metadata that cannot be carried over; convert "
            f"it first: ffmpeg -i INPUT -vf libplacebo=colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084:"
            f"format=yuv420p10 -c:v ffv1 OUTPUT.mkv"
        )
    name = f"Dolby Vision profile {profile}" if profile else "Dolby Vision"
    notify(
        logging.WARNING, "%s: %s: only its base layer is kept, with that layer's own colours and HDR10 data", uri, name
    )
