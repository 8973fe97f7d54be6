"""Detection of interlaced video and its field order."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
import av.error
import av.filter
import torch.nn.functional as F

from vidnoise.color import component_values
from vidnoise.frame import FieldOrder, Frame
from vidnoise.notices import Notify

_ORDERS: dict[int, FieldOrder] = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""FFmpeg's AVFieldOrder to the order of display; 0 is unknown, 1 progressive."""


_CHECKED_PICTURES = 50
"""Number of pictures of unflagged video that are checked for combing."""

_COMBED_PICTURES = 3
"""Number of combed pictures after which the video is taken to look interlaced."""


class FieldDetector:
    """Determines which frames of a stream are interlaced. Not thread-safe.

    Args:
        asked: ``auto`` trusts the flags of the video; ``tff`` and ``bff``: the top or the bottom field comes first;
            ``no``: the video is progressive.
        uri: The input's name in messages.
        notify: Called with what the stream is taken for.
    """

    order: FieldOrder | None
    """The field that is shown first; None for progressive video. Set by :meth:`begin`."""

    def __init__(self, asked: str, uri: str, notify: Notify) -> None:
        self._asked = asked
        self._uri = uri
        self._notify = notify
        self._n_checked = self._n_combed = 0

    def begin(self, video: av.VideoStream, first: av.VideoFrame) -> None:
        """Determine the field order from the header and the first picture."""
        marked = field_order(video, first)
        self.order = marked if self._asked == "auto" else None if self._asked == "no" else cast(FieldOrder, self._asked)
        self._is_interlaced = self.order is not None
        if self._is_interlaced:
            self._notify(logging.INFO, "%s: interlaced (%s): denoised field by field", self._uri, self.order)
        elif marked is not None:
            self._notify(
                logging.WARNING, "%s: is marked as interlaced (%s); taken as progressive, as asked", self._uri, marked
            )

    def marked(self, frame: Frame, picture: av.VideoFrame) -> Frame:
        """Return ``frame``, made from ``picture``, with ``interlaced`` set if it is interlaced."""
        if not self._is_interlaced and self._asked == "auto":
            if picture.interlaced_frame:
                self._is_interlaced = True
                self._notify(
                    logging.WARNING,
                    "%s: is interlaced from frame %d on, and denoised field by field from there; the output began as "
                    "progressive and stays marked so", self._uri, frame.index,
                )  # fmt: skip
            elif self._n_checked < _CHECKED_PICTURES:
                self._check_combing(frame)
        return replace(frame, interlaced=True) if self._is_interlaced else frame

    def _check_combing(self, frame: Frame) -> None:
        self._n_checked += 1
        self._n_combed += is_combed(frame)
        if self._n_combed == _COMBED_PICTURES:
            self._n_checked = _CHECKED_PICTURES
            self._notify(
                logging.WARNING,
                "%s: looks interlaced, but is not marked so and taken as progressive; if it is, say "
                'interlaced="tff" (or "bff"), else interlaced="no"', self._uri,
            )  # fmt: skip


def field_order(video: av.VideoStream, first: av.VideoFrame) -> FieldOrder | None:
    """Return the field order from the flags of the first picture, or else the header; None for progressive video."""
    header = _ORDERS.get(getattr(video.codec_context, "field_order", 0))  # new in PyAV 18
    return picture_order(first) if first.interlaced_frame else header


def picture_order(picture: av.VideoFrame) -> FieldOrder:
    """Return the field order of an interlaced picture."""
    # PyAV does not expose this flag, but a filter can select by it.
    graph = av.filter.Graph()
    begin = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 25)
    )
    choose, end = graph.add("select", "eq(interlace_type,TOPFIRST)"), graph.add("buffersink")
    begin.link_to(choose)
    choose.link_to(end)
    graph.configure()
    graph.push(picture)
    graph.push(None)
    try:
        graph.pull()
    except (av.error.EOFError, av.error.BlockingIOError):
        return "bff"
    return "tff"


_BLOCK = (8, 32)
"""Height and width of the blocks that are checked for combing."""

_MIN_STEP = 4
"""Smallest difference between lines that counts as combing, in 8-bit units."""

_COMBED_SHARE = 0.01
"""Share of combed blocks above which a picture is combed."""


def is_combed(frame: Frame) -> bool:
    """Whether neighbouring lines of ``frame`` differ the way the fields of an interlaced picture with motion do.

    In a progressive picture, a line resembles the next line more than the one after that, with or without noise.
    """
    lines = next(iter(component_values(frame).values()))  # luma, or the first colour component
    if lines.shape[0] < 3 * _BLOCK[0] or lines.shape[1] < _BLOCK[1]:
        return False
    to_next, to_second = ((lines[step:] - lines[:-step]).square()[: lines.shape[0] - 2] for step in (1, 2))
    near, far = (F.avg_pool2d(d[None], _BLOCK)[0] for d in (to_next, to_second))
    return float((near > 2 * far + _MIN_STEP**2).float().mean()) > _COMBED_SHARE
