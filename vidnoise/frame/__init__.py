"""Frames, packets and streams as they travel through the program. Needs no torch at import."""

from vidnoise.frame.frame import (
    PIXEL_FORMATS,
    ColorInfo,
    FieldOrder,
    Frame,
    Packet,
    PixelFormat,
    StreamInfo,
)

__all__ = ["PIXEL_FORMATS", "ColorInfo", "FieldOrder", "Frame", "Packet", "PixelFormat", "StreamInfo"]
