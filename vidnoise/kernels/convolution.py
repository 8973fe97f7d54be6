"""Convolutions on the CPU.

Those of 3×3 in float32 by minimal filtering (``native/convolution.c``), forwards and backwards; those in bfloat16 by
oneDNN, which sums and rectifies in the same pass.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308: F(4×4, 3×3).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidnoise.kernels.library import Library, kernels_in_use
from vidnoise.model.operations import Operations

if TYPE_CHECKING:
    from typing_extensions import TypeIs

TILE = 4
"""Side of the squares of results that are computed together."""

LANES = 16
"""Channels of results that are computed together."""

CHANNELS = range(8, 257)
"""Numbers of channels that the kernels take."""

_AXIS = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
"""From three weights along an axis to six points: the paper's G."""

TRANSFORM = torch.kron(_AXIS, _AXIS)
"""``(36, 9)``: from the weights of a 3×3 convolution to points."""

POINTS = len(TRANSFORM)


class Weights(NamedTuple):
    """Weights of a convolution as the kernel takes them."""

    points: Tensor
    """``(blocks, 36, inputs, 16)``: 16 results each, the last block filled up with zeros."""
    bias: Tensor
    """``(16 blocks,)``."""
    results: int
    """Channels of the result."""


def is_suitable(layer: nn.Module) -> TypeIs[nn.Conv2d]:
    """Return whether the kernels can do a layer: a plain 3×3 convolution in float32."""
    if type(layer) is not nn.Conv2d or layer.kernel_size != (3, 3) or layer.padding != (1, 1):
        return False
    is_plain = layer.stride == layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    return is_plain and layer.in_channels in CHANNELS and layer.weight.dtype is torch.float32


_Version = tuple[int, int]
_KNOWN: WeakKeyDictionary[nn.Conv2d, dict[bool, tuple[_Version, Weights]]] = WeakKeyDictionary()


def weights_of(layer: nn.Conv2d, *, transposed: bool = False) -> Weights:
    """Return a layer's weights for the kernel, which are computed once, and again after the layer's were changed.

    Args:
        layer: See :func:`is_suitable`.
        transposed: Those of the convolution that takes the gradient of its results to that of its input.
    """
    version = layer.weight.data_ptr(), 0 if layer.weight.is_inference() else layer.weight._version
    known = _KNOWN.setdefault(layer, {})
    if transposed not in known or known[transposed][0] != version:
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        packed = _packed(weight.transpose(0, 1).flip(2, 3), None) if transposed else _packed(weight, bias)
        known[transposed] = version, packed
    return known[transposed][1]


def _packed(weight: Tensor, bias: Tensor | None) -> Weights:
    results, inputs = weight.shape[:2]
    blocks = -(-results // LANES)
    padded = torch.zeros(9, inputs, blocks * LANES)
    padded[..., :results] = weight.permute(2, 3, 1, 0).flatten(0, 1)
    points = (TRANSFORM @ padded.flatten(1)).view(POINTS, inputs, blocks, LANES).permute(2, 0, 1, 3)
    biases = torch.zeros(blocks * LANES)
    if bias is not None:
        biases[:results] = bias
    return Weights(points.contiguous(), biases, results)


def _by_pixel(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _tiles(x: Tensor) -> int:
    n, _, h, w = x.shape
    return n * -(-h // TILE) * -(-w // TILE)


def convolved(
    library: Library, weights: Weights, x: Tensor, *, added: Tensor | None = None, rectified: bool = False
) -> Tensor:
    """Convolve ``(N, C, H, W)``, then add ``added``, then apply ReLU if ``rectified``; the result is channels-last."""
    n, channels, h, w = x.shape
    result = torch.empty(n, h, w, weights.results)
    inputs = [_by_pixel(x), weights.points, weights.bias, *([] if added is None else [_by_pixel(added)])]
    parameters = channels, weights.results, rectified, added is not None
    library.run("convolve", inputs, [result], (h, w), *parameters, rows=_tiles(x), work=n * channels)
    return result.permute(0, 3, 1, 2)


@functools.cache
def _has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def is_fusible(layer: nn.Module) -> TypeIs[nn.Conv2d]:
    """Return whether :func:`fused` can do a layer."""
    is_plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return is_plain and layer.weight.dtype is torch.bfloat16 and _has_bfloat16()


def fused(layer: nn.Conv2d, x: Tensor, *, added: Tensor | None = None, rectified: bool = False) -> Tensor:
    """Do as :func:`convolved` does, in bfloat16; the result may take the place of ``added``."""
    x = x.contiguous(memory_format=torch.channels_last)
    geometry = [*layer.padding], [*layer.stride], [*layer.dilation], layer.groups
    arguments = x, layer.weight, layer.bias, *geometry
    if added is None:
        return torch.ops.mkldnn._convolution_pointwise(*arguments, "relu" if rectified else "none", [], "")
    added = added.contiguous(memory_format=torch.channels_last)
    then = "relu" if rectified else None
    return torch.ops.mkldnn._convolution_pointwise_.binary(added, *arguments, "add", 1.0, then, [], None)


def by_quadrant(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the results of a convolution with those for the same pixel of a square of 2×2 together.

    That is, ``(N, 4 C, h, w)`` of which the first C channels are for the upper left pixels, where ``pixel_shuffle`` has
    the first four for all pixels of a square.
    """
    weight, bias = layer.weight, layer.bias
    weight = weight.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
    bias = None if bias is None else bias.view(-1, 4).t().flatten()
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def gradient_of_weight(library: Library, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a convolution's weight, ``(R, C, 3, 3)``, from ``(N, C, H, W)`` and ``(N, R, H, W)``."""
    (n, channels, h, w), results = x.shape, gradient.shape[1]
    rows, blocks = torch.get_num_threads(), -(-results // LANES)
    sums = torch.zeros(rows, POINTS, channels, blocks * LANES)
    inputs = [_by_pixel(x), _by_pixel(gradient)]
    parameters = channels, results, _tiles(x), rows
    library.run("convolve_gradient", inputs, [sums], (h, w), *parameters, rows=rows, work=n * channels)
    weight = (TRANSFORM.T @ sums.sum(0).flatten(1)).view(3, 3, channels, -1)
    return weight[..., :results].permute(3, 2, 0, 1)


LEAK = 0.01
"""Share of the gradient that passes ReLU where it returns zero, in training.

Without it, a channel that is negative everywhere learns nothing more. Under Muon, whose steps are as long for a few
live channels as for all, whole layers die.
"""


class Rectified(torch.autograd.Function):
    """ReLU, in place, with :data:`LEAK`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x.relu_())
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rectified,) = ctx.saved_tensors
        return torch.where(rectified > 0, gradient, LEAK * gradient)


class Convolution(torch.autograd.Function):
    """A 3×3 convolution that can be trained, with a sum and :class:`Rectified` after it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None, layer: nn.Conv2d,
        library: Library, rectified: bool,
    ) -> Tensor:  # fmt: skip
        result = convolved(library, weights_of(layer), x, added=added, rectified=rectified)
        ctx.save_for_backward(x, *([result] if rectified else []))
        ctx.layer, ctx.library = layer, library
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *rectified = ctx.saved_tensors
        if rectified:
            gradient = torch.where(rectified[0] > 0, gradient, LEAK * gradient)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = convolved(ctx.library, weights_of(ctx.layer, transposed=True), gradient)
        if ctx.needs_input_grad[1]:
            of_weight = gradient_of_weight(ctx.library, x, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, gradient if ctx.needs_input_grad[3] else None, None, None, None


class TrainableOperations(Operations):
    """Operations for training.

    3×3 convolutions in float32 on a CPU take a half to a third of the time, and ReLU lets dead channels recover.
    """

    def convolve(
        self, layer: nn.Module, x: Tensor, *, shuffled: bool = False, added: Tensor | None = None,
        rectified: bool = False,
    ) -> Tensor:  # fmt: skip
        library = kernels_in_use() if x.device.type == "cpu" else None
        is_possible = library and is_suitable(layer) and layer.out_channels in CHANNELS and not shuffled
        if is_possible and x.dtype is torch.float32 and not torch.is_autocast_enabled(x.device.type):
            return Convolution.apply(x, layer.weight, layer.bias, added, layer, library, rectified)
        y = super().convolve(layer, x, shuffled=shuffled, added=added)
        return Rectified.apply(y) if rectified else y
