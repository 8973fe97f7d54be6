"""Conversions between the samples of a frame and the network's RGB."""

from vidnoise.color.samples import (
    apply_correction,
    centred,
    component,
    component_values,
    gray_codes,
    to_rgb,
    weigh_correction,
    ycbcr_codes,
)

__all__ = [
    "apply_correction",
    "centred",
    "component",
    "component_values",
    "gray_codes",
    "to_rgb",
    "weigh_correction",
    "ycbcr_codes",
]
