"""An HDR10 clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.clips import CLIPS, Clip, write

_LIGHT = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


def hdr10(path: Path) -> Clip:
    params = f"log-level=none:hdr10=1:repeat-headers=1:master-display={_LIGHT}:max-cll=1000,400"
    options = {"preset": "ultrafast", "x265-params": params}
    return write(path, replace(CLIPS["bt2020"], codec="libx265", options=options, ticks=(0, 40, 80)))
