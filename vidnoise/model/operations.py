"""The operations of a step for which a backend may have faster ones: all that is bound by memory, and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, cat, nn, sigmoid

from vidnoise.model.dncnn import convolve, typed
from vidnoise.model.luma_chroma import bands_to_rgb, rgb_to_bands
from vidnoise.model.state import UNKNOWN, Memory, reset_unless
from vidnoise.model.warp import outside, resize_flow, sampling_grid, warp
from vidnoise.model.wavelet import per_band

Pointwise = Callable[..., tuple[Tensor, ...]]
"""A function from tensors ``(N, C, h, w)`` to others of the same N, h and w, each pixel by itself."""


class Window(NamedTuple):
    """The neighbourhood of pixels assumed to share one flow, for one pass of the motion search."""

    pool: int
    """Side of the squares of pixels whose equations are summed and solved once."""
    radius: int
    """The sums are then averaged, twice, over windows of (2 radius + 1)² such squares."""
    spread: float
    """Prior standard deviation of the flow around its mean in a window, in pixels."""
    doubt: float = math.inf
    """Squared difference from the aligned frame at which a pixel counts half, as a multiple of the noise variance.
    Finite only once the flow is nearly right: before, everything would be doubted."""


FLAT = 0.1 / 255
"""Haar details below this count as zero: a fraction of the smallest step of 8-bit samples."""


def upsampled(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Upsample tensors bilinearly to the size of the largest, of whose sides theirs are integer fractions."""
    height, width = max(t.shape[2:] for t in tensors)
    return [
        t if t.shape[2] == height else F.interpolate(t, size=(height, width), mode="bilinear", align_corners=False)
        for t in tensors
    ]


def _dilate(mask: Tensor) -> Tensor:
    """Dilate by 5×5: the maximum over rows, then over columns, which is faster."""
    return F.max_pool2d(F.max_pool2d(mask, (5, 1), stride=1, padding=(2, 0)), (1, 5), stride=1, padding=(0, 2))


class Operations:
    """The reference implementation in PyTorch, with which those in :mod:`vidnoise.kernels` must agree."""

    # State

    def reset_unless(self, memory: Memory, continues: Tensor) -> Memory:
        """See :func:`~vidnoise.model.state.reset_unless`; may overwrite ``memory``, which is undefined afterwards."""
        return reset_unless(memory, continues)

    def warp_state(self, pictures: Sequence[Tensor], ratio: Tensor, flow: Tensor) -> tuple[list[Tensor], Tensor]:
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
        return [self.rgb_to_bands(p) for p in moved], warp(ratio, half_grid) + UNKNOWN * outside(half_grid)

    def warp_hidden(self, hidden: Tensor, flow: Tensor, trust: Tensor) -> Tensor:
        """Warp the core's features from the frame before, and weigh them by the trust in its output.

        Args:
            hidden: ``(N, C, h/2, w/2)``.
            flow: ``(N, 2, h, w)``, in pixels of its own resolution.
            trust: ``(N, 1, h, w)``, 0 to 1; the greatest in a square of 2×2 counts.

        Returns:
            ``(N, C, h/2, w/2)``.
        """
        return warp(hidden, sampling_grid(resize_flow(flow, 0.5))) * F.max_pool2d(trust, 2)

    # Haar bands

    def rgb_to_bands(self, rgb: Tensor) -> Tensor:
        """See :func:`~vidnoise.model.luma_chroma.rgb_to_bands`."""
        return rgb_to_bands(rgb)

    def bands_to_rgb(self, bands: Tensor) -> Tensor:
        """See :func:`~vidnoise.model.luma_chroma.bands_to_rgb`."""
        return bands_to_rgb(bands)

    def remove_noise(
        self, bands: Tensor, remaining: Tensor, residual: Tensor, fused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Subtract the residual noise and transform bands back to pictures.

        Args:
            bands: ``(N, 12, h, w)`` of the fused frame, from which the clean one is made.
            remaining: ``(N, 6, h, w)``, level of the noise that remains in them.
            residual: ``(N, 12, h, w)``, that noise in units of its level.
            fused: ``(N, 12, h, w)`` of the causal estimate, which is remembered.

        Returns:
            The clean frame; and what is remembered, the fused and the clean frame. ``(N, 3, 2h, 2w)`` RGB; what is
            remembered may lie in memory as :meth:`warp_state` is quickest to read it.
        """
        clean = self.bands_to_rgb(bands - per_band(remaining) * residual.float())
        return clean, self.bands_to_rgb(fused), clean

    def flat_mask(self, bands: Tensor) -> Tensor:
        """Return a mask ``(N, 1, h, w)``, 1 where a picture is exactly flat, else 0, from its bands ``(N, 12, h, w)``.

        Noise leaves no flat square of 10 pixels. Letterbox bars, panels and blown highlights are flat: they hold
        no noise, and carry no information about the noise around them.
        """
        flat = (bands[:, 3:].abs().amax(1, keepdim=True) < FLAT).float()
        return _dilate(1 - _dilate(1 - flat))

    # Motion search

    def box_filter(self, x: Tensor, size: int) -> Tensor:
        """Average ``(N, C, h, w)`` over a ``size`` × ``size`` window (``size`` odd); borders are repeated."""
        padded = F.pad(x, [size // 2] * 4, mode="replicate")
        if size > 5:  # separably, which is faster at these sizes
            return F.avg_pool2d(F.avg_pool2d(padded, (size, 1), stride=1), (1, size), stride=1)
        return F.avg_pool2d(padded, size, stride=1)

    def downsample(self, x: Tensor, factor: int) -> Tensor:
        """Downsample by block averages: ``(N, C, h, w)`` to ``(N, C, h/factor, w/factor)``."""
        return F.avg_pool2d(x, factor) if factor > 1 else x

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        """Warp ``image`` by ``flow``, with bilinear interpolation."""
        return warp(image, sampling_grid(flow))

    def brightness(self, rgb: Tensor) -> Tensor:
        """Return the mean of red, green and blue at half resolution, ``(N, 1, H/2, W/2)``, of ``(N, 3, H, W)``."""
        return self.downsample(rgb.mean(1, keepdim=True), 2)

    def flow_terms(self, noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor, window: Window) -> Tensor:
        """Return the terms of the equations of :func:`~vidnoise.model.flow.lucas_kanade`, averaged over squares.

        Args:
            noisy, previous, flow, variance, window: As for that function.

        Returns:
            ``(N, 8, h / pool, w / pool)``: the weighted products of the gradients (xx, xy, yy), those with the values
            (x, y), the variance, and the flow (x, y).
        """
        aligned = self.warp(previous, flow)
        padded = F.pad(aligned, [1] * 4, mode="replicate")
        gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
        gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        residual = noisy - aligned
        value = residual + gx * flow[:, :1] + gy * flow[:, 1:]
        # Cauchy weights, so that outliers (another object, disoccluded background) do not pull the flow away.
        weight = 1 / (1 + residual.square() / (window.doubt * variance))
        wx, wy = weight * gx, weight * gy
        terms = cat([wx * gx, wx * gy, wy * gy, wx * value, wy * value, variance, flow], 1)
        return self.downsample(terms, window.pool)

    def solve_flow(self, terms: Tensor, radius: int, prior: float, stride: float) -> Tensor:
        """Solve the equations of :func:`~vidnoise.model.flow.lucas_kanade`.

        Args:
            terms: ``(N, 8, h, w)``, from :meth:`flow_terms`.
            radius: Of the windows of (2 radius + 1)² over which they are averaged, twice.
            prior: Weight of the mean flow of a window, as a multiple of the noise variance.
            stride: Largest change of the mean flow, in pixels.

        Returns:
            ``(N, 2, h, w)``.
        """
        size = 2 * radius + 1  # twice gives the middle of a window more weight
        xx, xy, yy, xv, yv, noise, u, v = self.box_filter(self.box_filter(terms, size), size).split(1, dim=1)
        # Solved for the difference from the mean flow, to which the prior pulls.
        xv, yv = xv - xx * u - xy * v, yv - xy * u - yy * v
        xx, yy = xx + prior * noise, yy + prior * noise
        change = cat([yy * xv - xy * yv, xx * yv - xy * xv], 1) / (xx * yy - xy * xy)
        return cat([u, v], 1) + change.clamp(-stride, stride)

    def upsample_flow(self, flow: Tensor, factor: int, scale: float = 1.0) -> Tensor:
        """Upsample a flow bilinearly by an integer factor, and multiply its vectors by ``scale``."""
        return F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False) * scale

    def motion_evidence(self, noisy: Tensor, previous: Tensor, flow: Tensor, variance: Tensor) -> Tensor:
        """Return by how much a flow explains a frame better than no motion does, in noise variances."""
        aligned = self.warp(previous, flow)
        return ((noisy - previous).square() - (noisy - aligned).square()) / variance

    def trusted_flow(self, evidence: Tensor, flow: Tensor, margin: float, softness: float) -> Tensor:
        """Return a flow times its confidence, a sigmoid of the evidence for it, ``(N, 1, h, w)``."""
        return flow * sigmoid((evidence - margin) / softness)

    def convolve(
        self, layer: nn.Module, x: Tensor, *, shuffled: bool = False, added: Tensor | None = None,
        rectified: bool = False,
    ) -> Tensor:  # fmt: skip
        """See :func:`~vidnoise.model.dncnn.convolve`."""
        return convolve(layer, x, shuffled=shuffled, added=added, rectified=rectified)

    def fuse(
        self, function: Callable[..., tuple[Tensor, ...]], misalignment: nn.Module, *pictures: Tensor
    ) -> tuple[Tensor, ...]:
        """Return ``function(misalignment, *pictures, self)``, which is :func:`vidnoise.model.fusion.fuse`."""
        return function(misalignment, *pictures, self)

    # Pointwise functions between convolutions; tensors of lower resolution are upsampled for them (:func:`upsampled`)

    def pointwise(self, function: Pointwise, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return ``function(*tensors)``; an implementation may compute it in chunks that stay in cache."""
        return function(*upsampled(tensors))

    def pointwise_input(self, function: Pointwise, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        """Return the results concatenated along the channels, in the dtype and layout that ``layer`` expects."""
        return typed(cat(function(*upsampled(tensors)), 1), layer)

    def first_layer(self, function: Pointwise, tensors: Sequence[Tensor], layer: nn.Module) -> Tensor:
        """Return what a layer and the ReLU after it make of :meth:`pointwise_input`."""
        return self.convolve(layer, self.pointwise_input(function, tensors, layer), rectified=True)


REFERENCE = Operations()
