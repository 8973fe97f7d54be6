"""Removes noise from video with a small recurrent network.

>>> import numpy as np, vidnoise
>>> noisy = [np.full((48, 64, 3), 128, np.uint8) for _ in range(3)]
>>> for clean in vidnoise.denoise(noisy):
...     print(clean.shape, clean.dtype)
(48, 64, 3) uint8
(48, 64, 3) uint8
(48, 64, 3) uint8

Importing this package is cheap: torch is loaded when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import VidnoiseError

if TYPE_CHECKING:
    from .api import denoise, denoise_file
    from .denoiser import Denoiser
    from .frame import ColorInfo, Frame, Packet, PixelFormat, StreamInfo
    from .model import State
    from .run_stats import Progress, RunStats
    from .sinks import Sink, open_sink
    from .sources import Source, open_source
    from .streams import StreamBatch
    from .weights import ModelCard, list_models, load_model

__all__ = [
    "ColorInfo",
    "Denoiser",
    "Frame",
    "ModelCard",
    "Packet",
    "PixelFormat",
    "Progress",
    "RunStats",
    "Sink",
    "Source",
    "State",
    "StreamBatch",
    "StreamInfo",
    "VidnoiseError",
    "__version__",
    "denoise",
    "denoise_file",
    "list_models",
    "load_model",
    "open_sink",
    "open_source",
]

_HOMES = {
    "api": ("denoise", "denoise_file"),
    "denoiser": ("Denoiser",),
    "frame": ("ColorInfo", "Frame", "Packet", "PixelFormat", "StreamInfo"),
    "model": ("State",),
    "run_stats": ("Progress", "RunStats"),
    "sinks": ("Sink", "open_sink"),
    "sources": ("Source", "open_source"),
    "streams": ("StreamBatch",),
    "weights": ("ModelCard", "list_models", "load_model"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value  # found at once next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
