"""The spatial core: a multi-scale DnCNN conditioned on a map of the remaining noise.

Residual learning (the network predicts noise, not the picture) is DnCNN's: Zhang et al., "Beyond a
Gaussian Denoiser", arXiv:1608.03981. The noise map as an input is FFDNet's: Zhang et al.,
arXiv:1710.04026. There are no normalisation layers: batch statistics are meaningless for a single stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initialised(layer: nn.Conv2d, gain: float) -> nn.Conv2d:
    """Apply Kaiming initialisation scaled by ``gain``, so that residual branches can start small."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with torch.no_grad():
        layer.weight.mul_(gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def conv3(
    inputs: int, outputs: int, *, gain: float = 1.0, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a 3×3 convolution with the weights of :func:`initialised`."""
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups)
    return initialised(layer, gain)


def separable3(channels: int, *, gain: float = 1.0) -> nn.Sequential:
    """Return a depthwise 3×3 convolution followed by a pointwise 1×1; initialised as :func:`conv3`."""
    # There is no ReLU between the two, so the first must not double the variance as a layer before a ReLU does.
    depthwise = conv3(channels, channels, gain=0.5**0.5, groups=channels)
    return nn.Sequential(depthwise, initialised(nn.Conv2d(channels, channels, 1), gain))


def typed(x: Tensor, layer: nn.Module) -> Tensor:
    """Return ``x`` in the dtype of the layer's weights, which :meth:`DenoiseNetwork.in_precision` may have halved."""
    dtype = next(layer.parameters()).dtype
    # Half-precision convolutions want channels last. On a CPU, a convolution that has to rearrange its own input takes
    # three times as long over it.
    return x if x.dtype is dtype else x.to(dtype).contiguous(memory_format=torch.channels_last)


Convolve = Callable[..., Tensor]


def convolve(
    layer: nn.Module, x: Tensor, *, shuffled: bool = False, added: Tensor | None = None, rectified: bool = False
) -> Tensor:
    """Apply a convolution, and what follows it.

    Args:
        layer: The convolution.
        x: Its input.
        shuffled: Whether every four channels become a square of pixels, at twice the resolution.
        added: Features to be added then. An implementation may put the result in their place.
        rectified: Whether ReLU comes last.
    """
    y = layer(x)
    y = F.pixel_shuffle(y, 2) if shuffled else y
    # In place, as nothing else needs the outputs of the convolutions: saves memory and a pass over it.
    y = y if added is None else y.add_(added)
    return y.relu_() if rectified else y


class ResidualBlock(nn.Module):
    """Convolution, ReLU and convolution, added to the input."""

    def __init__(self, channels: int, *, separable: bool = False) -> None:
        super().__init__()
        self.conv1 = separable3(channels) if separable else conv3(channels, channels)
        self.conv2 = separable3(channels, gain=0.1) if separable else conv3(channels, channels, gain=0.1)

    def forward(self, x: Tensor, convolve: Convolve = convolve) -> Tensor:
        return convolve(self.conv2, convolve(self.conv1, x, rectified=True), added=x)


class Stage(nn.Sequential):
    """Residual blocks at one resolution."""

    def __init__(self, channels: int, blocks: int, separable: bool) -> None:
        super().__init__(*(ResidualBlock(channels, separable=separable) for _ in range(blocks)))

    def forward(self, x: Tensor, convolve: Convolve = convolve) -> Tensor:
        for block in self:
            x = block(x, convolve)
        return x


class CoreOutput(NamedTuple):
    """Result of the spatial core."""

    residual: Tensor
    """``(N, outputs, h, w)``: the noise in units of its own standard deviation."""
    hidden: Tensor
    """``(N, hidden, h/2, w/2)``: features for the next frame, in [-1, 1]."""


class DnCNN(nn.Module):
    """A U-shaped network of residual blocks at two or three scales with skip connections, on half-resolution bands.

    Args:
        inputs: Channels of the input at 1/2 resolution.
        outputs: Channels of the predicted residual.
        widths: Channels at 1/2, 1/4 and, if there is a third scale, 1/8.
        blocks: Residual blocks from the finest scale to the coarsest and back: at 1/2, 1/4, 1/2, or at 1/2, 1/4, 1/8,
            1/4, 1/2.
        hidden: Recurrent channels, read and written at 1/4 resolution.
        separable: depthwise-separable convolutions in the residual blocks.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        hidden: int,
        *,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.scales = len(widths)
        c1, c2, coarsest = widths[0], widths[1], widths[-1]
        self.stem = conv3(inputs, c1)
        self.down1 = Stage(c1, blocks[0], separable)
        self.to2 = nn.Conv2d(c1, c2, 2, stride=2)
        self.recall = nn.Conv2d(hidden, c2, 1)
        if self.scales == 3:
            self.down2 = Stage(c2, blocks[1], separable)
            self.to3 = nn.Conv2d(c2, coarsest, 2, stride=2)
        self.middle = Stage(coarsest, blocks[self.scales - 1], separable)
        if self.scales == 3:
            self.from3 = nn.Conv2d(coarsest, 4 * c2, 1)
            self.up2 = Stage(c2, blocks[3], separable)
        self.memory = nn.Conv2d(c2, hidden, 1)
        self.from2 = nn.Conv2d(c2, 4 * c1, 1)
        self.up1 = Stage(c1, blocks[-1], separable)
        self.head = conv3(c1, outputs, gain=0.3)

    def forward(self, x: Tensor, hidden: Tensor, convolve: Convolve = convolve) -> CoreOutput:
        """Predict the residual and the next hidden features.

        Args:
            x: ``(N, inputs, h, w)``, h and w multiples of 4.
            hidden: ``(N, hidden, h/2, w/2)``.
            convolve: An implementation of :func:`convolve`.
        """
        x1 = self.down1(convolve(self.stem, typed(x, self.stem), rectified=True), convolve)
        recalled = convolve(self.recall, typed(hidden, self.recall))
        x2 = convolve(self.to2, x1, added=recalled, rectified=True)
        if self.scales == 3:
            x2 = self.down2(x2, convolve)
            x3 = self.middle(convolve(self.to3, x2, rectified=True), convolve)
            y2 = self.up2(convolve(self.from3, x3, shuffled=True, added=x2), convolve)
        else:
            y2 = self.middle(x2, convolve)
        y1 = self.up1(convolve(self.from2, y2, shuffled=True, added=x1), convolve)
        return CoreOutput(convolve(self.head, y1), torch.tanh(convolve(self.memory, y2)))
