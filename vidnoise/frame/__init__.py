"""Frames, packets and streams as they travel through the program. Needs no torch at import."""

from vidnoise.frame.frame import (
    MAX_THREADS,
    PIXEL_FORMATS,
    ColorInfo,
    FieldOrder,
    Frame,
    Packet,
    PixelFormat,
    StreamInfo,
)

__all__ = ["MAX_THREADS", "PIXEL_FORMATS", "ColorInfo", "FieldOrder", "Frame", "Packet", "PixelFormat", "StreamInfo"]
