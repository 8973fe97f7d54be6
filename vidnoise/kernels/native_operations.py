"""The network's memory-bound operations on the CPU, by compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from vidnoise.kernels.convolution import by_quadrant, convolved, fused, is_fusible, is_suitable, weights_of
from vidnoise.kernels.cpu_operations import CpuOperations
from vidnoise.kernels.library import Library, kernels_in_use
from vidnoise.model.fusion import LEAST_GAIN, LEAST_PREDICTED, filtered, misalignment_evidence, smoothed
from vidnoise.model.network import LIMIT, LOCAL, core_input, remaining_level
from vidnoise.model.noise_level import SIGMA_MIN, affine_level, noise_evidence
from vidnoise.model.operations import FLAT, Pointwise, Window
from vidnoise.model.state import UNKNOWN

if TYPE_CHECKING:
    from typing_extensions import TypeIs


class Form(NamedTuple):
    """What the kernel of a pointwise function takes and returns."""

    channels: tuple[int, ...]
    """Channels of each result."""
    parameters: tuple[float, ...] = ()
    reduced: int | None = None
    """Index of the input that has a lower resolution."""
    reduction: int = 1
    """By how much it is lower."""
    by_pixel: int | None = None
    """Index of the input that comes from a convolution, in channels-last layout."""


FORMS: dict[Pointwise, Form] = {
    noise_evidence: Form((35,)),
    affine_level: Form((6,), (4, SIGMA_MIN), reduced=0, reduction=4),
    misalignment_evidence: Form((15,)),
    filtered: Form((4, 12, 4), LEAST_GAIN, by_pixel=3),
    smoothed: Form((12, 4), (LEAST_PREDICTED,)),
    remaining_level: Form((6,)),
    core_input: Form((45,), (LOCAL, LIMIT), reduced=6, reduction=LOCAL),
}
"""The pointwise functions that have a kernel, which is called as they are."""

DTYPES = (torch.float32, torch.bfloat16)
"""Types of what the kernels exchange with convolutions."""


def is_half(x: Tensor) -> float:
    """Return the kernels' parameter for a tensor of one of :data:`DTYPES`."""
    return float(x.dtype is torch.bfloat16)


def _fusion_layers(network: nn.Module) -> list[nn.Conv2d] | None:
    """Return the three convolutions of a fusion's network, or ``None`` if the kernel does not do them."""
    layers = [layer for layer in network.children() if isinstance(layer, nn.Conv2d)]
    forms = [(layer.kernel_size, layer.dilation) for layer in layers]
    if forms != [((3, 3), (dilation, dilation)) for dilation in (1, 2, 1)]:
        return None
    return layers if all(layer.out_channels % 4 == 0 and layer.bias is not None for layer in layers) else None


def _in_float(layers: Sequence[nn.Conv2d], n: int) -> list[Tensor]:
    """Return the weights ``(inputs, 3, 3, outputs)`` and the bias of each layer, for each of ``n`` pictures.

    Of weights in half precision too, the kernels that make a layer's input compute in float32: it costs no more than
    they save.
    """
    weights = [t for layer in layers for t in (layer.weight.permute(1, 2, 3, 0), cast("Tensor", layer.bias))]
    return [t.detach().float().expand(n, *t.shape) for t in weights]


def _is_noise_stem(layer: nn.Module) -> TypeIs[nn.Conv2d]:
    """Return whether the kernel of that name can do a layer."""
    if type(layer) is not nn.Conv2d or layer.bias is None or layer.weight.dtype not in DTYPES:
        return False
    geometry = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
    return geometry == ((3, 3), (2, 2), (1, 1), (1, 1), 1, "zeros") and layer.out_channels in range(8, 49, 4)


def _in_lanes(pixels: Tensor, first: int) -> Tensor:
    """Return the picture ``(N, 3, H, W)`` that is in three lanes of pixels ``(N, H, W, lanes)``, from the first on."""
    return pixels[..., first : first + 3].permute(0, 3, 1, 2)


def _lanes_of(picture: Tensor) -> tuple[Tensor, int] | None:
    """Return what :func:`_in_lanes` was given, or ``None`` if a picture is not from there."""
    n, _, h, w = picture.shape
    lanes, first = picture.stride(3), picture.storage_offset() % max(picture.stride(3), 1)
    strides = (h * w * lanes, w * lanes, lanes, 1)
    if (lanes, first) not in ((4, 0), (8, 0), (8, 3)) or picture.stride() != (strides[0], 1, *strides[1:3]):
        return None
    return picture.as_strided((n, h, w, lanes), strides, picture.storage_offset() - first), int(first)


def _together(pictures: Sequence[Tensor]) -> Tensor | None:
    """Return the pixels of all pictures in one tensor, in the order given, if that is where they are."""
    found = [f for f in map(_lanes_of, pictures) if f is not None]
    if [first for _, first in found] != [0, 3][: len(pictures)]:
        return None
    pixels = found[0][0]
    is_same = all(p.data_ptr() == pixels.data_ptr() and p.shape == pixels.shape for p, _ in found)
    return pixels if is_same and pixels.shape[3] == 4 * len(pictures) else None


class NativeOperations(CpuOperations):
    """:class:`vidnoise.model.operations.Operations` by compiled kernels.

    Args:
        library: The kernels.
    """

    def __init__(self, library: Library) -> None:
        super().__init__()
        self._library = library

    def _run(
        self, name: str, inputs: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], size: tuple[int, int],
        *parameters: float, dtype: torch.dtype = torch.float32, rows: int | None = None,
    ) -> list[Tensor]:  # fmt: skip
        """Run a kernel on each picture of a batch.

        Args:
            name: The kernel's.
            inputs: ``(N, …)`` float32.
            shapes: Shape of each result, for one picture.
            size, parameters, rows: As for :meth:`Library.run`.
            dtype: Type of the results.
        """
        inputs = [t.contiguous() for t in inputs]
        outputs = [torch.empty(len(inputs[0]), *shape, dtype=dtype) for shape in shapes]
        for i in range(len(inputs[0])):
            self._library.run(name, [t[i] for t in inputs], [t[i] for t in outputs], size, *parameters, rows=rows)
        return outputs

    # Haar bands

    def rgb_to_bands(self, rgb: Tensor) -> Tensor:
        if self._noisy is not None and self._noisy[0] is rgb:
            return self._noisy[1]
        h, w = rgb.shape[2] // 2, rgb.shape[3] // 2
        (bands,) = self._run("rgb_to_bands", (rgb,), [(12, h, w)], (h, w))
        self._noisy = self._noisy or (rgb, bands)
        return bands

    def bands_to_rgb(self, bands: Tensor) -> Tensor:
        h, w = bands.shape[2:]
        (pixels,) = self._run("bands_to_rgb", (bands,), [(2 * h, 2 * w, 4)], (h, w))
        return _in_lanes(pixels, 0)

    def remove_noise(
        self, bands: Tensor, remaining: Tensor, residual: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._noisy = None  # the frame is done
        h, w = bands.shape[2:]
        residual = residual if residual.dtype in DTYPES else residual.float()
        inputs = bands, remaining, residual.permute(0, 2, 3, 1), fused
        shapes = [(3, 2 * h, 2 * w), (2 * h, 2 * w, 8)]
        clean, pixels = self._run("remove_noise", inputs, shapes, (h, w), is_half(residual))
        return clean, _in_lanes(pixels, 0), _in_lanes(pixels, 3)

    def _is_flat(self, bands: Tensor) -> Tensor:
        h, w = bands.shape[2:]
        return self._run("is_flat", (bands,), [(h, w)], (h, w), FLAT, dtype=torch.uint8)[0]

    # State

    def warp_state(self, pictures: Sequence[Tensor], ratio: Tensor, flow: Tensor) -> tuple[list[Tensor], Tensor]:
        n, (h, w) = len(pictures), flow.shape[2:]
        together = _together(pictures)
        if together is None:
            (together,) = self._run(f"interleave_{n}", pictures, [(2 * h, 2 * w, 4 * n)], (2 * h, 2 * w))
        moved = self._run(f"warp_bands_{n}", (together, flow), [(12, h, w)] * n, (h, w))
        (lanes,) = self._run("in_lanes", (ratio,), [(h, w, 4)], (h, w))
        return moved, self._run("warp_ratio", (lanes, flow), [(4, h, w)], (h, w), UNKNOWN)[0]

    def warp_hidden(self, hidden: Tensor, flow: Tensor, trust: Tensor) -> Tensor:
        channels, h, w = hidden.shape[1:]
        inputs = hidden.permute(0, 2, 3, 1), flow, trust
        return self._run("warp_hidden", inputs, [(h, w, channels)], (h, w), channels)[0].permute(0, 3, 1, 2)

    # Motion search

    def brightness(self, rgb: Tensor) -> Tensor:
        h, w = rgb.shape[2] // 2, rgb.shape[3] // 2
        if (found := _lanes_of(rgb)) is not None:
            return self._run("brightness_of_lanes", found[:1], [(1, h, w)], (h, w), found[0].shape[3], found[1])[0]
        return self._run("brightness", (rgb,), [(1, h, w)], (h, w))[0]

    def flow_terms(self, noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor, window: Window) -> Tensor:
        if window.pool not in (1, 2, 4):
            return super().flow_terms(noisy, previous, flow, variance, window)
        h, w = noisy.shape[2] // window.pool, noisy.shape[3] // window.pool
        inputs = noisy, previous, flow, variance
        return self._run("equations", inputs, [(8, h, w)], (h, w), min(window.doubt, 1e30), window.pool)[0]

    def solve_flow(self, terms: Tensor, radius: int, prior: float, stride: float) -> Tensor:
        if radius not in (1, 2):
            return super().solve_flow(terms, radius, prior, stride)
        h, w = terms.shape[2:]
        return self._run("solve", (terms,), [(2, h, w)], (h, w), radius, prior, stride)[0]

    def upsample_flow(self, flow: Tensor, factor: int, scale: float = 1.0) -> Tensor:
        h, w = flow.shape[2] * factor, flow.shape[3] * factor
        return self._run("upsample_flow", (flow,), [(2, h, w)], (h, w), factor, scale)[0]

    def motion_evidence(self, noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor) -> Tensor:
        h, w = noisy.shape[2:]
        return self._run("motion_evidence", (noisy, previous, flow, variance), [(1, h, w)], (h, w))[0]

    def trusted_flow(self, evidence: Tensor, flow: Tensor, margin: float, softness: float) -> Tensor:
        h, w = flow.shape[2:]
        return self._run("trusted_flow", (evidence, flow), [(2, h, w)], (h, w), margin, softness)[0]

    # Between convolutions

    def convolve(
        self, layer: nn.Module, x: Tensor, *, shuffled: bool = False, added: Tensor | None = None,
        rectified: bool = False,
    ) -> Tensor:  # fmt: skip
        if shuffled and added is not None and not rectified and x.dtype in DTYPES and type(layer) is nn.Conv2d:
            return self._add_shuffled(by_quadrant(layer, x), added)
        if x.dtype is torch.float32 and is_suitable(layer) and not shuffled:
            return convolved(self._library, weights_of(layer), x, added=added, rectified=rectified)
        if x.dtype is torch.bfloat16 and is_fusible(layer) and not shuffled:
            return fused(layer, x, added=added, rectified=rectified)
        return super().convolve(layer, x, shuffled=shuffled, added=added, rectified=rectified)

    def fuse(
        self, function: Callable[..., tuple[Tensor, ...]], misalignment: nn.Module, *pictures: Tensor
    ) -> tuple[Tensor, ...]:
        layers = _fusion_layers(misalignment)
        if layers is None:
            return super().fuse(function, misalignment, *pictures)
        n, h, w = len(pictures[0]), *pictures[0].shape[2:]
        inputs = [*pictures, *_in_float(layers, n)]
        strips = min(2 * torch.get_num_threads(), h)
        parameters = *LEAST_GAIN, layers[0].out_channels, strips
        return tuple(self._run("fuse", inputs, [(4, h, w), (12, h, w), (4, h, w)], (h, w), *parameters, rows=strips))

    def first_layer(self, function: Pointwise, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        if function is not noise_evidence or not _is_noise_stem(layer):
            return super().first_layer(function, tensors, layer)
        dtype, (h, w) = layer.weight.dtype, tensors[0].shape[2:]
        rows, outputs = -(-h // 2), layer.out_channels
        inputs = [*tensors, *_in_float([layer], len(tensors[0]))]
        parameters = float(dtype is torch.bfloat16), outputs
        shapes = [(rows, -(-w // 2), outputs)]
        (result,) = self._run("noise_stem", inputs, shapes, (h, w), *parameters, dtype=dtype, rows=rows)
        return result.permute(0, 3, 1, 2)

    def _add_shuffled(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Add the results of :func:`.by_quadrant` to features of twice their resolution, in place if possible."""
        channels, height, width = fine.shape[1:]
        result, coarse = (t.permute(0, 2, 3, 1).contiguous() for t in (fine, coarse))
        size = height // 2, width // 2
        for target, source in zip(result, coarse, strict=True):
            self._library.run("add_shuffled", [source], [target], size, channels, is_half(source))
        return result.permute(0, 3, 1, 2)

    def _inputs(self, form: Form, tensors: Sequence[Tensor]) -> tuple[list[Tensor], tuple[int, int]] | None:
        """Return a kernel's inputs and their size, or ``None`` if it does not take their resolutions."""
        height, width = max(t.shape[2:] for t in tensors)
        for i, tensor in enumerate(tensors):
            reduction = form.reduction if i == form.reduced else 1
            if tensor.shape[2] * reduction != height or tensor.shape[3] * reduction != width:
                return None
        inputs = [t.permute(0, 2, 3, 1) if i == form.by_pixel else t for i, t in enumerate(tensors)]
        return inputs, (height, width)

    def pointwise(self, function: Pointwise, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        form = FORMS.get(function)
        if form is None or (found := self._inputs(form, tensors)) is None:
            return super().pointwise(function, tensors)
        inputs, (h, w) = found
        shapes = [(channels, h, w) for channels in form.channels]
        return tuple(self._run(function.__name__, inputs, shapes, (h, w), *form.parameters))

    def pointwise_input(self, function: Pointwise, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        dtype = next(layer.parameters()).dtype
        form = FORMS.get(function)
        if form is None or dtype not in DTYPES or (found := self._inputs(form, tensors)) is None:
            return super().pointwise_input(function, tensors, layer)
        inputs, (h, w) = found
        parameters = float(dtype is torch.bfloat16), *form.parameters
        (result,) = self._run(function.__name__, inputs, [(h, w, *form.channels)], (h, w), *parameters, dtype=dtype)
        return result.permute(0, 3, 1, 2)


def operations_for_cpu() -> CpuOperations:
    """Return the fastest operations for this CPU."""
    kernels = kernels_in_use()
    return NativeOperations(kernels) if kernels else CpuOperations()
