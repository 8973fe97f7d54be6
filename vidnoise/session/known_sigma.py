"""The known noise level, converted to the network's channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.checked import about, named_fields
from vidnoise.errors import UsageError
from vidnoise.frame import Frame
from vidnoise.kernels.conversion import extended
from vidnoise.model.network import MULTIPLE
from vidnoise.options import DenoiseOptions
from vidnoise.session.sample_noise import sample_noise

if TYPE_CHECKING:
    from vidnoise.option_values import SigmaLike


class KnownSigma:
    """A known standard deviation of the noise in the samples as stored.

    Args:
        sigma: Standard deviation in 8-bit units, 0 to 255: a number, or an ``(H, W)`` array or tensor with that of each
            pixel, which is copied.
        device: Device of the network.

    Raises:
        UsageError: A value is out of range, or an array is of another shape.
    """

    def __init__(self, sigma: SigmaLike, device: torch.device) -> None:
        about(named_fields(DenoiseOptions)["sigma"]).check("sigma", sigma)
        self.given = sigma
        self._device = device
        self._map: Tensor | None = None
        if getattr(sigma, "ndim", 0):
            self._map = torch.as_tensor(sigma).to(device, torch.float32, copy=True)
            if self._map.ndim != 2:
                raise UsageError(f"sigma may be a number or an (H, W) map, got {tuple(self._map.shape)}", "sigma")
        self.mean = float(sigma if self._map is None else self._map.mean())
        """Mean over the picture, in 8-bit units."""
        self._levels: tuple[tuple[float, ...], Tensor] | None = None

    def levels(self, frame: Frame) -> Tensor:
        """Return the level by channel, ``(1, 6)``, or for a map ``(1, 6, H/2, W/2)`` of the padded picture.

        Args:
            frame: A frame, for its format, colours and size.

        Raises:
            UsageError: The map differs in size from the frame.
        """
        if self._map is not None and self._map.shape != (frame.height, frame.width):
            height, width = self._map.shape
            raise UsageError(
                f"sigma is a map of {width}x{height}, but the frame is {frame.width}x{frame.height}", "sigma"
            )
        gains = sample_noise(frame)
        if self._levels is None or self._levels[0] != gains:
            # Kept, since copying numbers to a GPU waits for it.
            self._levels = gains, self._converted(gains)
        return self._levels[1]

    def _converted(self, gains: tuple[float, ...]) -> Tensor:
        if self._map is None:
            return torch.tensor([[self.mean * gain for gain in gains]], device=self._device)
        # Each band is a sum of 2x2 pixels whose weights are alike in magnitude: its variance is the mean of theirs.
        variance = F.avg_pool2d(extended(self._map[None, None], MULTIPLE).square(), 2)
        return variance.sqrt() * torch.tensor(gains, device=self._device)[:, None, None]
