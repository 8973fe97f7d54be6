"""What travels with pictures beside their samples: captions, HDR data, film grain, and so on."""

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
"""What libav hands out with pictures and takes back from nobody, by its name and in words."""

CAPTIONS = "A53_CC"
"""Side data that some encoders take from the picture that they are given."""


class Beside:
    """Looks at every picture of one stream: what is beside it may begin at any.

    Args:
        uri: For messages.
        first: The first picture, whose HDR metadata the output gets.
        time_base: Of the pictures.
        begin: Seconds at which the input begins on its own clock.
        notify: Told what is lost.
    """

    def __init__(self, uri: str, first: av.VideoFrame, time_base: Fraction, begin: Fraction, notify: Notify) -> None:
        self._notify = notify
        self._uri, self._time_base, self._begin = uri, time_base, begin
        self._hdr = hdr_metadata(first)
        self._told: set[str] = set()
        """Kinds that have come."""

    def look(self, picture: av.VideoFrame) -> av.VideoFrame | None:
        """Say what is lost when it first comes; returns the picture where a sink may want what is beside it."""
        kinds = {item.type.name for item in side_data(picture)}
        if not kinds:
            return None
        since = ""
        if kinds - self._told and picture.pts is not None:
            since = f" (from {float(picture.pts * self._time_base - self._begin):.3f} s on)"
        for kind in sorted((kinds - self._told) & _LOST_SIDE_DATA.keys()):
            what = _LOST_SIDE_DATA[kind]
            self._notify(
                logging.WARNING, "%s: the %s inside the pictures are not carried over%s", self._uri, what, since
            )
        self._told |= kinds
        if "HDR metadata" not in self._told and hdr_metadata(picture) not in ({}, self._hdr):
            self._told.add("HDR metadata")
            self._notify(
                logging.WARNING, "%s: the HDR mastering metadata changes%s; the output has the first", self._uri, since
            )
        return picture if CAPTIONS in kinds else None
