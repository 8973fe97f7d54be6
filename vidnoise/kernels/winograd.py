"""Weights of 3×3 convolutions, transformed as the kernel ``convolve`` (``native/convolution.c``) takes them."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

TILE = 4
"""Side of the squares of results that are computed together."""

LANES = 16
"""Channels of results that are computed together."""

CHANNELS = range(8, 257)
"""Numbers of input channels that the kernel takes."""

TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""From three weights along an axis to six points: G of F(4, 3) in Lavin and Gray, arXiv:1509.09308."""


class WinogradWeights(NamedTuple):
    """Parameters of a convolution for the kernel."""

    points: Tensor
    """``(blocks, 36, inputs, 16)``: 16 results each, the last block filled up with zeros."""
    bias: Tensor
    """``(16 blocks,)``."""
    results: int
    """Channels of the result."""


_KNOWN: WeakKeyDictionary[nn.Conv2d, tuple[tuple[int, int], WinogradWeights]] = WeakKeyDictionary()


def winograd_weights(layer: nn.Module) -> WinogradWeights | None:
    """Return a layer's weights for the kernel, or ``None`` if it is not a convolution that the kernel can do.

    They are computed once for a layer, and again after its weights were changed.
    """
    if type(layer) is not nn.Conv2d or not _is_suitable(layer):
        return None
    version = layer.weight.data_ptr(), 0 if layer.weight.is_inference() else layer.weight._version
    if layer not in _KNOWN or _KNOWN[layer][0] != version:
        _KNOWN[layer] = version, _transformed(layer)
    return _KNOWN[layer][1]


def _is_suitable(layer: nn.Conv2d) -> bool:
    is_plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    is_wanted = layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.in_channels in CHANNELS
    return is_plain and is_wanted and layer.weight.dtype is torch.float32


def _transformed(layer: nn.Conv2d) -> WinogradWeights:
    weight = layer.weight.detach().double()
    results, inputs = weight.shape[:2]
    blocks = -(-results // LANES)
    transform = torch.tensor(TRANSFORM, dtype=torch.float64)
    points = torch.zeros(36, blocks * LANES, inputs, dtype=torch.float64)
    points[:, :results] = torch.einsum("iy,rcyx,jx->ijrc", transform, weight, transform).flatten(0, 1)
    bias = torch.zeros(blocks * LANES)
    if layer.bias is not None:
        bias[:results] = layer.bias.detach()
    points = points.unflatten(1, (blocks, LANES)).permute(1, 0, 3, 2)
    return WinogradWeights(points.float().contiguous(), bias, results)
