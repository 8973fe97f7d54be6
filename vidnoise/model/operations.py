"""The memory-bound operations of a step, separate so that a backend can fuse them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat

from vidnoise.model.flow import Averaging, outside, resize_flow, sampling_grid, warp
from vidnoise.model.luma_chroma import bands_to_rgb, rgb_to_bands
from vidnoise.model.noise_level import untouched
from vidnoise.model.pixelwise import PLAIN, Pixelwise
from vidnoise.model.state import UNKNOWN, Memory, keep
from vidnoise.model.wavelet import per_band


class Operations:
    """The reference implementation in PyTorch, with which every other one must agree."""

    def __init__(self) -> None:
        self.averaging = Averaging()
        """Box filters and warps of the motion search."""
        self.pixelwise: Pixelwise = PLAIN

    def keep(self, memory: Memory, known: Tensor) -> Memory:
        """See :func:`~vidnoise.model.state.keep`; may overwrite ``memory``, which is undefined afterwards."""
        return keep(memory, known)

    def untouched(self, bands: Tensor) -> Tensor:
        """See :func:`~vidnoise.model.noise_level.untouched`."""
        return untouched(bands)

    def bands(self, rgb: Tensor) -> Tensor:
        """See :func:`~vidnoise.model.luma_chroma.rgb_to_bands`."""
        return rgb_to_bands(rgb)

    def recall(self, pictures: Sequence[Tensor], ratio: Tensor, flow: Tensor) -> tuple[list[Tensor], Tensor]:
        """Warp remembered pictures and their variance ratio to the current frame.

        Args:
            pictures: ``(N, 3, H, W)`` RGB each.
            ratio: ``(N, 4, H/2, W/2)``, the variance ratio.
            flow: ``(N, 2, H/2, W/2)``, in pixels of its own resolution.

        Returns:
            Bands of the pictures, ``(N, 12, H/2, W/2)`` each, and the ratio, larger by :data:`UNKNOWN` where the flow
            points outside the picture.
        """
        half_grid = sampling_grid(flow)
        grid = sampling_grid(resize_flow(flow, 2))
        # Bicubic: repeated bilinear warps would blur the running estimate away.
        moved = warp(cat(list(pictures), 1), grid, mode="bicubic").chunk(len(pictures), dim=1)
        return [self.bands(p) for p in moved], warp(ratio, half_grid) + UNKNOWN * outside(half_grid)

    def picture(self, bands: Tensor) -> Tensor:
        """See :func:`~vidnoise.model.luma_chroma.bands_to_rgb`."""
        return bands_to_rgb(bands)

    def restore(self, bands: Tensor, left: Tensor, residual: Tensor, fused: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the residual noise and transform bands back to pictures.

        Args:
            bands: ``(N, 12, h, w)`` of the fused frame, from which the clean one is made.
            left: ``(N, 6, h, w)``, level of the noise remaining in them.
            residual: ``(N, 12, h, w)``, that noise in units of its level.
            fused: ``(N, 12, h, w)`` of the causal estimate, which is remembered.

        Returns:
            The clean and the fused frame, ``(N, 3, 2h, 2w)`` RGB.
        """
        return self.picture(bands - per_band(left) * residual.float()), self.picture(fused)
