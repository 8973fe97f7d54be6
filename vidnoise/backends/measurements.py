"""Measured speed of the backends on this machine, kept between runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vidnoise.cache import load, store
from vidnoise.export.store import fingerprint
from vidnoise.model import DenoiseNetwork

FILE = "backends"
"""Name of the file in the cache."""

PACKAGES = ("torch", "openvino", "onnxruntime")
"""Packages whose versions affect the measurements."""


class Kind(NamedTuple):
    """Properties of a stream on which the speed of a backend depends."""

    shape: torch.Size
    """Shape of the frames, ``(N, 3, H, W)``."""
    blind: bool
    """Whether the noise level is estimated."""
    both_ways: bool
    """Whether frames are processed by ``measure``, ``look`` and ``smooth``, with lookahead, instead of ``step``."""


@dataclass(frozen=True)
class Measurement:
    """Result of a trial for streams of one kind."""

    best: str
    ms: dict[str, float]
    """Milliseconds a frame, of each backend that agrees with ``eager``."""
    start_seconds: dict[str, float] = field(default_factory=dict)
    """Extra time of the first frame."""
    difference: dict[str, float] = field(default_factory=dict)
    """Root mean square difference from ``eager``, in [0, 1] units."""

    def pair(self, name: str) -> tuple[float, float]:
        """Return the milliseconds of a backend and of ``eager``."""
        return self.ms[name], self.ms["eager"]


class Measurements:
    """Persistent cache of :class:`Measurement`. A file that is damaged or unreadable counts as empty.

    Args:
        network, device, dtype: The configuration that the measurements apply to.
        int8: The network with int8 weights, if that is measured as well.
    """

    def __init__(
        self, network: DenoiseNetwork, device: torch.device, dtype: torch.dtype, int8: DenoiseNetwork | None = None
    ) -> None:
        self._networks = [network] if int8 is None else [network, int8]
        self._about = (str(device), str(dtype))
        self._fingerprint: str | None = None
        self._entries: dict[str, Any] | None = None

    def find(self, kind: Kind) -> Measurement | None:
        """Return the measurement for streams of this kind, if there is one."""
        if self._entries is None:
            self._entries = self._read()
        if not self._entries:
            return None
        return _measurement(self._entries.get(self._key(kind)))

    def keep(self, kind: Kind, measurement: Measurement) -> None:
        """Store a measurement in memory and, if possible, in the file, keeping entries that other runs have added."""
        self._entries = self._read() | {self._key(kind): asdict(measurement)}
        store(FILE, json.dumps(self._entries, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(load(FILE) or b"{}")
        except (ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def _key(self, kind: Kind) -> str:
        if self._fingerprint is None:
            about = (*map(fingerprint, self._networks), *self._about, _processor(), *map(_version, PACKAGES))
            self._fingerprint = hashlib.sha256(" ".join(about).encode()).hexdigest()[:24]
        size = "x".join(map(str, kind.shape))
        words = ("blind" if kind.blind else "told", "both ways" if kind.both_ways else "forwards")
        return f"{self._fingerprint} {size} {' '.join(words)} {torch.get_num_threads()} threads"


def _measurement(entry: Any) -> Measurement | None:
    """Parse an entry of the file; return ``None`` if it is malformed."""
    try:
        found = Measurement(**entry)
        numbers = [number for table in (found.ms, found.start_seconds, found.difference) for number in table.values()]
        is_whole = isinstance(found.best, str) and {found.best, "eager"} <= found.ms.keys()
    except (TypeError, AttributeError):
        return None
    are_times = all(isinstance(n, (int, float)) and 0 <= n < float("inf") for n in numbers)
    return found if is_whole and are_times else None


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def _processor() -> str:
    """Describe the processor as exactly as the system allows."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = {line for line in text.splitlines() if line.startswith(("model name", "flags", "Features", "CPU part"))}
        return " ".join(sorted(lines))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
