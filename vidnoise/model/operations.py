"""What of a step waits for memory rather than for arithmetic, apart, so that a backend may do it in fewer passes."""

from __future__ import annotations

from torch import Tensor, cat

from .flow import Averaging, outside, resize_flow, sampling_grid, warp
from .noise_level import untouched
from .pixelwise import PLAIN, Pixelwise
from .state import UNKNOWN, State
from .wavelet import Transform, haar, per_band


class Operations:
    """In PyTorch: what every other form must agree with.

    Args:
        transform: of the network.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self.averaging = Averaging()
        """For the motion search."""
        self.pixelwise: Pixelwise = PLAIN

    def keep(self, state: State, known: Tensor) -> State:
        """:meth:`State.keep`; what is left of ``state`` itself is undefined."""
        return state.keep(known)

    def haar(self, image: Tensor) -> Tensor:
        """Haar bands of ``(N, 3, H, W)``, for the noise level, whatever the transform is."""
        return haar(image)

    def untouched(self, bands: Tensor) -> Tensor:
        """:func:`~vidnoise.model.noise_level.untouched`."""
        return untouched(bands)

    def bands(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to the bands ``(N, 12, H/2, W/2)`` that the network works on."""
        return self.transform.forward(image)

    def recall(self, state: State, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The past, moved to where the current frame has it.

        Args:
            state: of the previous frame.
            flow: ``(N, 2, H/2, W/2)``, in pixels of its own resolution.

        Returns:
            Bands of the fused and of the clean frame, ``(N, 12, H/2, W/2)`` each, and the variance ratio, larger by
            :data:`UNKNOWN` where it comes from outside of the picture.
        """
        half_grid = sampling_grid(flow)
        grid = sampling_grid(resize_flow(flow, 2))
        # Bicubic: repeated bilinear warps would blur the running estimate away.
        fused, clean = warp(cat([state.fused, state.clean], 1), grid, mode="bicubic").chunk(2, dim=1)
        ratio = warp(state.ratio, half_grid) + UNKNOWN * outside(half_grid)
        return self.bands(fused), self.bands(clean), ratio

    def restore(self, fused_bands: Tensor, left: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """From bands to pictures.

        Args:
            fused_bands: ``(N, 12, h, w)``.
            left: ``(N, 6, h, w)``, the level of the noise left in them.
            residual: ``(N, 12, h, w)``, that noise in units of its level.

        Returns:
            The clean and the fused frame, ``(N, 3, 2h, 2w)``.
        """
        clean = self.transform.inverse(fused_bands - per_band(left) * residual.float())
        return clean, self.transform.inverse(fused_bands)
