"""Side data of pictures: captions, HDR metadata, film grain, and so on."""

from __future__ import annotations

import logging
from fractions import Fraction

import av

from vidnoise.notices import Notify
from vidnoise.sources.description import hdr_metadata, side_data

_LOST_SIDE_DATA = {
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DYNAMIC_HDR_VIVID": "HDR Vivid data",
    "STEREO3D": "marks of stereoscopic video",
    "SPHERICAL": "marks of spherical video",
    "FILM_GRAIN_PARAMS": "film grain parameters",
    "ICC_PROFILE": "colour profile (ICC)",
    "AMBIENT_VIEWING_ENVIRONMENT": "data on ambient light",
    "S12M_TIMECODE": "time codes (SMPTE 12M)",
    "AFD": "active format descriptions",
    "PANSCAN": "pan-and-scan data",
}
"""Side data that libav decodes but no encoder accepts, with descriptions for users."""

CAPTIONS = "A53_CC"
"""Side data that some encoders accept with the pictures."""


class SideDataMonitor:
    """Watches the side data of all pictures of a stream, since any kind may first appear on any picture.

    Args:
        uri: The input's name in messages.
        first: The first picture, whose HDR metadata the output gets.
        time_base: Time base of the pictures.
        begin: Start of the input on its own clock, in seconds.
        notify: Called for side data that is lost.
    """

    def __init__(self, uri: str, first: av.VideoFrame, time_base: Fraction, begin: Fraction, notify: Notify) -> None:
        self._notify = notify
        self._uri, self._time_base, self._begin = uri, time_base, begin
        self._hdr = hdr_metadata(first)
        self._seen: set[str] = set()
        """Kinds of side data seen so far."""

    def check(self, picture: av.VideoFrame) -> av.VideoFrame | None:
        """Warn when side data that is lost first appears; returns the picture if a sink can use its side data."""
        kinds = {item.type.name for item in side_data(picture)}
        if not kinds:
            return None
        since = ""
        if kinds - self._seen and picture.pts is not None:
            since = f" (from {float(picture.pts * self._time_base - self._begin):.3f} s on)"
        for kind in sorted((kinds - self._seen) & _LOST_SIDE_DATA.keys()):
            what = _LOST_SIDE_DATA[kind]
            self._notify(
                logging.WARNING, "%s: the %s inside the pictures are not carried over%s", self._uri, what, since
            )
        self._seen |= kinds
        if "HDR metadata" not in self._seen and hdr_metadata(picture) not in ({}, self._hdr):
            self._seen.add("HDR metadata")
            self._notify(
                logging.WARNING, "%s: the HDR mastering metadata changes%s; the output has the first", self._uri, since
            )
        return picture if CAPTIONS in kinds else None
