"""Integer arithmetic of the spatial core: convolutions whose inputs and weights are rounded to 8 bits.

Here the rounding is simulated in floats (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877): each convolution rounds its input and its weights, then computes
as before. Exported graphs hold the same as pairs of QuantizeLinear and DequantizeLinear, which runtimes merge with the
convolution between them into one on integers. All else, such as the sums of residual blocks, stays in floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

FLOAT_PARTS = ("stem", "up1", "head", "recall", "memory")
"""Parts of the core that are not rounded: its ends. Their errors show in the pictures undiminished; rounding the last
blocks, ``up1``, alone would cost 0.3 dB on single frames under strong noise."""

STORED_SMALL = "noise_level."
"""The module of a quantised network whose weights are stored as int8, too, although it computes in floats: it has a
third of all weights, and 8 bits of each suffice."""

WEIGHT_LEVELS = 64
"""Largest magnitude of a rounded weight. CPUs without VNNI add the products of two neighbours in 16 bits, saturating:
255 × 64 × 2 fits, 255 × 127 × 2 does not. A power of two, so that rounding rounded weights changes nothing."""

ACTIVATION_LEVELS = 255
"""Largest value of a rounded input, which is unsigned."""

_SCALE = "_scale"
"""What the key of a weight's scale has at its end, beside the key of the weight, in a model file."""


def channel_scale(weight: Tensor, levels: int) -> Tensor:
    """Return the steps ``(out_channels,)`` in which the largest weight of each output channel is ``levels``."""
    largest = weight.detach().float().abs().amax((1, 2, 3))
    return (largest / levels).clamp(min=1e-30)


class QuantisedConv2d(nn.Conv2d):
    """A convolution that knows the range of its inputs, and can round them and its weights to 8 bits.

    Weights have a scale for each output channel, which follows from them; inputs have a single scale and zero point.

    Args:
        layer: The convolution that it takes the place of, whose parameters it takes over.
    """

    input_scale: Tensor
    """Scalar: size of a step of the rounded inputs."""
    input_zero_point: Tensor
    """Scalar: the rounded input that stands for zero, a whole number from 0 to 255."""
    weight_scale: Tensor
    """``(out_channels,)``: size of a step of the rounded weights."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernel_size,  # pyright: ignore[reportArgumentType]
            layer.stride, layer.padding, layer.dilation, layer.groups,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("input_zero_point", torch.zeros(()))
        self.register_buffer("weight_scale", torch.ones(layer.out_channels), persistent=False)
        self.rounds = False
        """Whether it rounds; if not, it is an ordinary convolution."""

    def scale_weights(self) -> None:
        """Choose the scales of the weights so that the largest of each output channel is :data:`WEIGHT_LEVELS`."""
        self.weight_scale = channel_scale(self.weight, WEIGHT_LEVELS)

    def set_input_range(self, low: float, high: float) -> None:
        """Choose the scale of the inputs so that this range, extended to zero, is representable."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / ACTIVATION_LEVELS or 1.0
        self.input_scale.fill_(scale)
        self.input_zero_point.fill_(round(-low / scale))

    def forward(self, x: Tensor) -> Tensor:
        if not self.rounds:
            return super().forward(x)
        if self.training:
            self.scale_weights()
        # Gradients pass through the rounding as if it was not there, except where inputs are beyond their range.
        x = torch.fake_quantize_per_tensor_affine(
            x, self.input_scale, self.input_zero_point.to(torch.int32), 0, ACTIVATION_LEVELS
        )
        zero = torch.zeros_like(self.weight_scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.weight_scale, zero, 0, -128, 127)
        return self._conv_forward(x, weight, self.bias)


def make_quantisable(core: nn.Module) -> None:
    """Replace the convolutions of a core, except :data:`FLOAT_PARTS`, by :class:`QuantisedConv2d`, in place."""
    for name, layer in list(core.named_modules()):
        if isinstance(layer, nn.Conv2d) and name.split(".")[0] not in FLOAT_PARTS:
            owner, _, own_name = name.rpartition(".")
            setattr(core.get_submodule(owner), own_name, QuantisedConv2d(layer))


def quantised_layers(network: nn.Module) -> Iterator[tuple[str, QuantisedConv2d]]:
    """Yield the convolutions that can round, with their names."""
    for name, layer in network.named_modules():
        if isinstance(layer, QuantisedConv2d):
            yield name, layer


def set_rounding(network: nn.Module, rounds: bool) -> None:
    """Switch the rounding of all convolutions that can round on or off, in place."""
    for _, layer in quantised_layers(network):
        layer.rounds = rounds
        layer.scale_weights()


def packed(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights for a model file.

    They are float16; in a quantised network, int8 with their scales where they are rounded, or in
    :data:`STORED_SMALL`.
    """
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    layers = dict(quantised_layers(network))
    if not layers:
        return weights
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if name in layers:
            weights |= {
                f"{name}.{k}": network.get_buffer(f"{name}.{k}").float().clone()
                for k in ("input_scale", "input_zero_point")
            }
        elif not name.startswith(STORED_SMALL):
            continue
        scale = channel_scale(layer.weight, WEIGHT_LEVELS if name in layers else 127)
        steps = layer.weight.detach().float() / scale.view(-1, 1, 1, 1)
        weights |= {f"{name}.weight": steps.round().to(torch.int8).contiguous(), f"{name}.weight{_SCALE}": scale}
    return weights


def unpacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a model file, see :func:`packed`, to those of a network.

    Raises:
        ValueError: The scale of an int8 weight is missing or of the wrong shape.
    """
    floats = dict(weights)
    for key, steps in weights.items():
        if steps.dtype is not torch.int8:
            continue
        scale = floats.pop(f"{key}{_SCALE}", None)
        if scale is None or scale.shape != steps.shape[:1]:
            raise ValueError(f"{key} is int8 and has no scale for each of its channels")
        floats[key] = steps.float() * scale.view(-1, *[1] * (steps.ndim - 1))
    return floats
