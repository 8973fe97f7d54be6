"""Peak performance of the machine: arithmetic by large matrix products and convolutions, memory by copies and triads.

The ceilings are measured alongside the cases, round by round, so that other load on the machine affects both alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from vidnoise.backends.device import wait_for


@dataclass(frozen=True, slots=True)
class Sizes:
    """Problem sizes: large enough that launch overhead is negligible, small enough to be quick."""

    product: int
    """Rows and columns of the matrices."""
    channels: int
    pixels: int
    """Height and width of the convolution's picture."""
    floats: int
    """Elements of each array to copy; well beyond any cache."""
    repeats: int


SIZES = {"cpu": Sizes(768, 64, 96, 16 << 20, 1), "cuda": Sizes(8192, 256, 512, 256 << 20, 5)}


@dataclass(slots=True)
class Ceilings:
    """Ceilings in GFLOP/s and GB/s, for each round the best of two kinds of work."""

    gflops: list[float] = field(default_factory=list)
    gbps: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, float]:
        """Return the medians over rounds, with which times are compared, and the best values."""
        return {
            "gflops": round(statistics.median(self.gflops), 1),
            "gbps": round(statistics.median(self.gbps), 2),
            "gflops_best": round(max(self.gflops), 1),
            "gbps_best": round(max(self.gbps), 2),
        }


class Probe:
    """Measures the ceilings of a device, with the current number of torch threads.

    Args:
        device: The device.
        dtype: Precision of the arithmetic. On a GPU, float32 convolutions run as by default in torch (TF32).
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.ceilings = Ceilings()
        self._device = device
        self._sizes = s = SIZES.get(device.type, SIZES["cuda"])
        self._a, self._b = (torch.randn(s.product, s.product, device=device).to(dtype) for _ in range(2))
        picture = torch.randn(1, s.channels, s.pixels, s.pixels, device=device).to(dtype)
        self._picture = picture.contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(s.channels, s.channels, 3, 3, device=device).to(dtype)
        self._kernel = kernel.contiguous(memory_format=torch.channels_last)
        self._arrays = [torch.rand(s.floats, device=device) for _ in range(3)]

    def round(self) -> None:
        """Measure another round."""
        s, (x, y, z) = self._sizes, self._arrays
        with torch.inference_mode():
            product = 2 * s.product**3 / self._seconds(lambda: self._a @ self._b)
            convolution = lambda: F.conv2d(self._picture, self._kernel, padding=1)  # noqa: E731
            convolved = 2 * 9 * s.channels**2 * s.pixels**2 / self._seconds(convolution)
            copied = 2 * 4 * s.floats / self._seconds(lambda: z.copy_(x))
            triad = 3 * 4 * s.floats / self._seconds(lambda: torch.add(x, y, alpha=1.5, out=z))
        self.ceilings.gflops.append(max(product, convolved) / 1e9)
        self.ceilings.gbps.append(max(copied, triad) / 1e9)

    def _seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds of the best of three runs, after one for warm-up."""
        work()
        best = float("inf")
        for _ in range(3):
            wait_for(self._device)
            start = time.perf_counter()
            for _ in range(self._sizes.repeats):
                work()
            wait_for(self._device)
            best = min(best, (time.perf_counter() - start) / self._sizes.repeats)
        return best
