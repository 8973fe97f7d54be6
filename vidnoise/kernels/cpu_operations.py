"""The network's memory-bound operations on the CPU, in fewer passes over main memory; without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidnoise.model.luma_chroma import rgb_to_bands
from vidnoise.model.operations import FLAT, Operations, Pointwise, upsampled
from vidnoise.model.state import UNKNOWN, Memory
from vidnoise.model.warp import outside, resize_flow, sampling_grid
from vidnoise.opencv import cv2


def _bands_kernel() -> Tensor:
    """Return :func:`rgb_to_bands` as a convolution kernel ``(12, 3, 2, 2)``, from its responses to unit impulses.

    It is orthonormal, so its transpose is the inverse.
    """
    return rgb_to_bands(torch.eye(12).reshape(12, 3, 2, 2)).reshape(12, 12).t().reshape(12, 3, 2, 2).contiguous()


_EXACT_REMAP = int(cv2.__version__.split(".")[0]) >= 5
"""Whether ``remap`` is as exact as ``grid_sample``: before OpenCV 5, it rounds positions to 1/32 pixel."""

_REMAP_LIMIT = 32767
"""Maximum width and height for ``remap``, in pixels."""


def can_remap(image: Tensor) -> bool:
    """Return whether :func:`_remap` is as exact as ``grid_sample`` for pictures of this size."""
    return _EXACT_REMAP and max(image.shape[-2:]) < _REMAP_LIMIT


def _share_threads() -> None:
    if cv2.getNumThreads() != torch.get_num_threads():
        cv2.setNumThreads(torch.get_num_threads())  # OpenCV would otherwise use all cores


def _by_plane(image: Tensor, height: int, width: int, work: Callable[[np.ndarray, np.ndarray], object]) -> Tensor:
    """Return a new tensor ``(N, C, height, width)``, filled by ``work(plane, target)`` for each plane of ``image``."""
    _share_threads()
    result = torch.empty(*image.shape[:2], height, width)
    for plane, target in zip(image.flatten(0, 1).numpy(), result.flatten(0, 1).numpy(), strict=True):
        work(plane, target)
    return result


def _remap(image: Tensor, flow: Tensor, interpolation: int) -> Tensor:
    """Compute ``warp`` in a third of its time.

    Args:
        image: ``(N, C, H, W)``.
        flow: ``(N, 2, H, W)``, in pixels.
        interpolation: ``cv2.INTER_LINEAR`` or ``cv2.INTER_CUBIC``.
    """
    _share_threads()
    n, channels, height, width = image.shape
    x = (flow[:, 0] + torch.arange(width, dtype=torch.float32)).numpy()
    y = (flow[:, 1] + torch.arange(height, dtype=torch.float32).unsqueeze(1)).numpy()
    result = torch.empty(n, channels, height, width)
    for i, (source, target) in enumerate(zip(image.numpy(), result.numpy(), strict=True)):
        # Channels are interleaved, so that the source positions and weights of a pixel are computed once.
        moved = cv2.remap(cv2.merge(list(source)), x[i], y[i], interpolation, borderMode=cv2.BORDER_REPLICATE)
        cv2.split(moved, list(target))
    return result


_PIECE = 16384
"""Pixels per chunk: small enough that a chunk and its intermediate results stay in a core's cache."""


def _pieces(function: Pointwise, tensors: Sequence[Tensor]) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Yield chunks of rows and the results of ``function`` on them."""
    tensors = upsampled(tensors)
    height, width = tensors[0].shape[2:]
    step = max(1, _PIECE // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield rows, function(*(t[..., rows, :] for t in tensors))


def _transpose(source: Tensor, target: Tensor) -> None:
    if source.dtype is torch.bfloat16:
        source, target = source.view(torch.int16), target.view(torch.int16)
    cv2.transpose(source.numpy(), dst=target.numpy())


_SQUARE = np.ones((5, 5), np.uint8)


class CpuOperations(Operations):
    """Faster operations for the CPU; the results agree with the reference up to the order of sums."""

    def __init__(self) -> None:
        super().__init__()
        self._kernel = _bands_kernel()
        self._noisy: tuple[Tensor, Tensor] | None = None

    def reset_unless(self, memory: Memory, continues: Tensor) -> Memory:
        return memory if bool(continues.all()) else super().reset_unless(memory, continues)

    def rgb_to_bands(self, rgb: Tensor) -> Tensor:
        # Noise level and motion both start from the bands of the noisy frame, which are requested first.
        if self._noisy is not None and self._noisy[0] is rgb:
            return self._noisy[1]
        bands = F.conv2d(rgb, self._kernel, stride=2)
        self._noisy = self._noisy or (rgb, bands)
        return bands

    def flat_mask(self, bands: Tensor) -> Tensor:
        flat = self._is_flat(bands)
        result = torch.zeros(len(flat), 1, *flat.shape[1:])
        for picture, target in zip(flat, result[:, 0], strict=True):
            if picture.any():  # noisy footage has no flat areas
                opened = cv2.morphologyEx(picture.numpy(), cv2.MORPH_OPEN, _SQUARE)
                target.copy_(torch.from_numpy(opened))
        return result

    def _is_flat(self, bands: Tensor) -> Tensor:
        """Return bytes ``(N, h, w)``, 1 where all details are next to zero."""
        return (bands[:, 3:].abs().amax(1) < FLAT).to(torch.uint8)

    def warp_state(self, pictures: Sequence[Tensor], ratio: Tensor, flow: Tensor) -> tuple[list[Tensor], Tensor]:
        if not can_remap(pictures[0]):
            return super().warp_state(pictures, ratio, flow)
        ratio = _remap(ratio, flow, cv2.INTER_LINEAR) + UNKNOWN * outside(sampling_grid(flow))
        whole = resize_flow(flow, 2)
        return [self.rgb_to_bands(_remap(picture, whole, cv2.INTER_CUBIC)) for picture in pictures], ratio

    def bands_to_rgb(self, bands: Tensor) -> Tensor:
        # This takes half the time of a transposed convolution.
        pixels = torch.matmul(self._kernel.flatten(1).t(), bands.flatten(2)).unflatten(2, bands.shape[2:])
        return F.pixel_shuffle(pixels, 2)

    def remove_noise(
        self, bands: Tensor, remaining: Tensor, residual: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._noisy = None  # the frame is done
        return super().remove_noise(bands, remaining, residual, fused)

    # By OpenCV, with running sums where PyTorch sums each window anew

    def box_filter(self, x: Tensor, size: int) -> Tensor:
        height, width = x.shape[-2:]

        def work(plane: np.ndarray, target: np.ndarray) -> None:
            cv2.blur(plane, (size, size), dst=target, borderType=cv2.BORDER_REPLICATE)

        return _by_plane(x, height, width, work)

    def downsample(self, x: Tensor, factor: int) -> Tensor:
        height, width = x.shape[-2] // factor, x.shape[-1] // factor

        def work(plane: np.ndarray, target: np.ndarray) -> None:
            cv2.resize(plane, (width, height), dst=target, interpolation=cv2.INTER_AREA)

        return _by_plane(x, height, width, work) if factor > 1 else x

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        return _remap(image, flow, cv2.INTER_LINEAR) if can_remap(image) else super().warp(image, flow)

    # In chunks of rows, written directly into the result

    def pointwise(self, function: Pointwise, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        height, width = max(t.shape[2:] for t in tensors)
        results: tuple[Tensor, ...] = ()
        for rows, found in _pieces(function, tensors):
            results = results or tuple(f.new_empty(*f.shape[:2], height, width) for f in found)
            for result, piece in zip(results, found, strict=True):
                result[..., rows, :] = piece
        return results

    def pointwise_input(self, function: Pointwise, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        """Return the result in channels-last layout; rearranging it by PyTorch would take longer than computing it."""
        n, (height, width) = len(tensors[0]), max(t.shape[2:] for t in tensors)
        result = torch.empty(0)
        for rows, found in _pieces(function, tensors):
            piece = torch.cat(found, 1).to(next(layer.parameters()).dtype)
            if not rows.start:
                result = piece.new_empty(n, height, width, piece.shape[1])
            for source, target in zip(piece, result[:, rows], strict=True):
                _transpose(source.flatten(1), target.flatten(0, 1))
        return result.permute(0, 3, 1, 2)
