"""The network's memory-bound operations on a GPU, fused."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vidnoise.kernels.bands import bands_to_rgb, remove_noise, rgb_to_bands
from vidnoise.kernels.warp import reset, warp_bands, warp_ratio
from vidnoise.model.operations import Operations
from vidnoise.model.state import UNKNOWN, Memory, Track


class CudaOperations(Operations):
    """:class:`vidnoise.model.operations.Operations` by Triton kernels, for one stream of work at a time.

    Args:
        clean, fused: Receive the pictures of :meth:`remove_noise` and :meth:`bands_to_rgb`. They may be those of the
            state, which are no longer read by then. New tensors by default.
    """

    def __init__(self, *, clean: Tensor | None = None, fused: Tensor | None = None) -> None:
        super().__init__()
        self._clean, self._fused = clean, fused
        self._frame: tuple[Tensor, Tensor] | None = None
        """The noisy picture and its bands, which the noise estimator and the network both request."""

    def reset_unless(self, memory: Memory, continues: Tensor) -> Memory:
        """Reset in place."""
        if not isinstance(memory, Track):  # a step continues with its track, but starts with any other memory
            self._frame = None
        for name, tensor in memory._asdict().items():
            reset(tensor, continues, UNKNOWN if name == "ratio" else 0.0)
        return memory

    def rgb_to_bands(self, rgb: Tensor) -> Tensor:
        if self._frame is None:
            self._frame = rgb, rgb_to_bands(rgb)
        frame, bands = self._frame
        return bands if frame is rgb else rgb_to_bands(rgb)

    def warp_state(self, pictures: Sequence[Tensor], ratio: Tensor, flow: Tensor) -> tuple[list[Tensor], Tensor]:
        return [warp_bands(picture, flow) for picture in pictures], warp_ratio(ratio, flow, UNKNOWN)

    def bands_to_rgb(self, bands: Tensor) -> Tensor:
        self._frame = None
        return bands_to_rgb(bands, out=self._fused)

    def remove_noise(
        self, bands: Tensor, remaining: Tensor, residual: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._frame = None
        clean, remembered = remove_noise(bands, remaining, residual, fused, clean=self._clean, fused=self._fused)
        return clean, remembered, clean
