"""Groups of the options: the headings of the command line's help."""

from __future__ import annotations

MAIN = "Most used"
FILES = "Inputs and outputs"
DENOISING = "Denoising"
PIXELS = "Colours and pixels, otherwise kept as they are"
CODEC = "Codec"
PERFORMANCE = "Performance"
LIVE = "Live inputs and outputs"
ADVANCED = "Advanced"
"""Group of the options that name no other."""

GROUPS = (MAIN, FILES, DENOISING, PIXELS, CODEC, PERFORMANCE, LIVE, ADVANCED)
"""All groups, in the order of the help."""
