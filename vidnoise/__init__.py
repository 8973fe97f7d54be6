"""Remove noise from video with a small recurrent network.

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

from vidnoise._version import __version__
from vidnoise.errors import VidnoiseError

if TYPE_CHECKING:
    from vidnoise.allocator import keep_freed_memory
    from vidnoise.api import denoise, denoise_file, denoise_image
    from vidnoise.frame import ColorInfo, Frame, Packet, PixelFormat, StreamInfo
    from vidnoise.model import State
    from vidnoise.pipeline.stats import Progress, RunStats
    from vidnoise.reports.comparison import Comparison, compare
    from vidnoise.reports.notebook import show
    from vidnoise.session.denoiser import Denoiser
    from vidnoise.session.split import side_by_side
    from vidnoise.session.stream_batch import StreamBatch
    from vidnoise.sinks import Sink, open_sink
    from vidnoise.sources import Source, open_source
    from vidnoise.weights import Model, ModelCard, list_models, load_model

__all__ = [
    "ColorInfo",
    "Comparison",
    "Denoiser",
    "Frame",
    "Model",
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
    "compare",
    "denoise",
    "denoise_file",
    "denoise_image",
    "keep_freed_memory",
    "list_models",
    "load_model",
    "open_sink",
    "open_source",
    "show",
    "side_by_side",
]

_HOMES = {
    "allocator": ("keep_freed_memory",),
    "api": ("denoise", "denoise_file", "denoise_image"),
    "frame": ("ColorInfo", "Frame", "Packet", "PixelFormat", "StreamInfo"),
    "model": ("State",),
    "pipeline.stats": ("Progress", "RunStats"),
    "reports.comparison": ("Comparison", "compare"),
    "reports.notebook": ("show",),
    "session.denoiser": ("Denoiser",),
    "session.split": ("side_by_side",),
    "session.stream_batch": ("StreamBatch",),
    "sinks": ("Sink", "open_sink"),
    "sources": ("Source", "open_source"),
    "weights": ("Model", "ModelCard", "list_models", "load_model"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vidnoise.{_HOME_OF[name]}"), name)
    globals()[name] = value  # found directly next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
