"""AV1 film-grain tables of the removed noise: the encoder stores a clean picture, and the player adds the grain.

The model is that of the AV1 Bitstream & Decoding Process Specification (Version 1.0.0 with Errata 1), section 7.18.3,
"Film grain synthesis process": white Gaussian noise passes an auto-regressive filter over the pixels above and to the
left (up to 3 away; for chroma also over the luma grain at its position), and the result is scaled by a piecewise linear
function of luma. The estimation follows Norkin and Birkbeck, "Film Grain Synthesis for AV1 Video Codec", DCC 2018:
flat blocks of source - clean give the filter by least squares and the function by their variances.

The file has the text format ``filmgrn1`` that aomenc (``--film-grain-table``) and SVT-AV1 (``--fgs-table``) read. It
has one entry for the whole video: SVT-AV1 reads only the first.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidnoise.color import ycbcr_codes
from vidnoise.disk import check_free, write_whole
from vidnoise.frame import Frame

LAG = 3
"""Reach of the auto-regressive filter in pixels: the maximum of AV1."""

BLOCK = 32
"""Size in luma pixels of the blocks that are measured."""

MAX_BLOCKS = 512
"""Maximum number of blocks measured per frame."""

FLATTEST = 4
"""The flattest blocks, 1 / this of all, are measured: elsewhere, lost detail would pass for noise."""

BINS = 10
"""Number of points of a scaling function; AV1 allows 14 for luma and 10 for chroma."""

WHITE = 32.0
"""Standard deviation of AV1's white noise in an 8-bit grain template (512 in 12 bits)."""

MAX_GAIN = 6.0
"""Maximum ratio of the standard deviation of a grain template to that of its white noise, before clipping."""

END_OF_TIME = 2**63 - 1
SEED = 7391

_NEIGHBOURS = [(dy, dx) for dy in range(-LAG, 1) for dx in range(-LAG, LAG + 1) if (dy, dx) < (0, 0)]
"""Offsets of the filter's neighbours in the order of its coefficients: the rows above, then the row itself."""


@dataclass(frozen=True, slots=True)
class PlaneGrain:
    """The entries of the table for one plane."""

    coefficients: list[int]
    points: list[tuple[int, int]]
    """Points of the scaling function as (luma, strength), both 0 to 255."""


@dataclass(frozen=True, slots=True)
class GrainParameters:
    """One entry of a table, with the names of the format."""

    planes: list[PlaneGrain]
    """The planes Y', Cb and Cr."""
    ar_coeff_shift: int
    grain_scale_shift: int
    scaling_shift: int

    def to_text(self) -> str:
        """Format the entry as a complete ``filmgrn1`` file."""
        y, cb, cr = self.planes
        has_grain = any(plane.points for plane in self.planes)

        def points(plane: PlaneGrain) -> str:
            return " ".join([str(len(plane.points)), *(f"{x} {s}" for x, s in plane.points)])

        def numbers(plane: PlaneGrain) -> str:
            return " ".join(map(str, plane.coefficients))

        # Chroma grain is scaled by luma: multipliers 128 and 192 and offset 256 mean that (7.18.3.5).
        by_luma = "0 1 128 192 256 128 192 256"
        return (
            f"filmgrn1\nE 0 {END_OF_TIME} {int(has_grain)} {SEED} 1\n"
            f"\tp {LAG} {self.ar_coeff_shift} {self.grain_scale_shift} {self.scaling_shift} {by_luma}\n"
            f"\tsY {points(y)}\n\tsCb {points(cb)}\n\tsCr {points(cr)}\n"
            f"\tcY {numbers(y)}\n\tcCb {numbers(cb)}\n\tcCr {numbers(cr)}\n"
        )


class GrainTable:
    """Measures the noise removed from one stream, and writes a table at its end.

    Args:
        path: Path of the table.
        overwrite: Whether the file may exist.

    Raises:
        SinkOpenError: The file exists, or cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = os.fspath(path)
        self._overwrite = overwrite
        check_free(self.path, overwrite=overwrite)
        self._planes: list[_PlaneSums] = []

    def __fspath__(self) -> str:
        return self.path

    @torch.inference_mode()
    def observe(self, noisy: Frame, clean: Frame) -> None:
        """Measure the noise removed from one frame."""
        before, after = ycbcr_codes(noisy), ycbcr_codes(clean)
        height, width = after[0].shape
        if min(height, width) < BLOCK:
            return
        removed = [a - b for a, b in zip(before, after, strict=True)]
        luma_blocks = _blocks(after[0], BLOCK, BLOCK)
        noise = _blocks(removed[0], BLOCK, BLOCK)
        chosen = _flattest(luma_blocks, noise)
        level = luma_blocks[chosen].mean((1, 2))
        if not self._planes:
            self._planes = [_PlaneSums(i > 0, removed[0].device) for i in range(len(removed))]
        # Rounding the clean picture adds noise with a variance of 1/12 of a squared step of its codes.
        depth = 16 if clean.format.is_float else clean.format.bit_depth
        rounding = 2.0 ** (2 * (8 - depth)) / 12
        luma = noise[chosen]
        rows, columns = height // BLOCK, width // BLOCK
        for plane, values in zip(self._planes, removed, strict=True):
            step = (round(height / values.shape[0]), round(width / values.shape[1]))
            down, across = (BLOCK // n for n in step)
            plane.step = step
            # Of a rounded-up chroma plane, use only the part under whole luma blocks.
            own = _blocks(values[: rows * down, : columns * across], down, across)[chosen]
            below = F.avg_pool2d(luma.unsqueeze(1), step).squeeze(1) if plane.is_chroma else None
            plane.add(own, level, rounding, below)

    def parameters(self) -> GrainParameters:
        """Return the table's entry from the frames so far; without grain if nothing was removed."""
        sums = [*self._planes, *[None] * (3 - len(self._planes))]
        found = [_Fit.of(plane) for plane in sums]
        filters = _in_template_units(found)
        largest = max(float(np.abs(c).max()) for c in filters) or 1e-6
        # Coefficients are integers from -128 to 127, divided by a power of two.
        shift = min(9, max(6, math.floor(math.log2(127 / largest))))
        whole = [[max(-128, min(127, round(float(c) * 2**shift))) for c in coefficients] for coefficients in filters]
        grains = _templates([np.array(c) / 2**shift for c in whole], [fit.step for fit in found])
        gains = [_deviation(grain) for grain in grains]
        scale = min(3, max(0, math.ceil(math.log2(max(gains) / 1.5))))
        templates = [WHITE * gain / 2**scale for gain in gains]
        strongest = max((s / t for fit, t in zip(found, templates, strict=True) for _, s in fit.strengths), default=0.0)
        scaling_shift = 11
        while scaling_shift > 8 and strongest * 2**scaling_shift > 255:
            scaling_shift -= 1
        planes = []
        for fit, coefficients, template in zip(found, whole, templates, strict=True):
            points = [(x, min(255, round(s * 2**scaling_shift / template))) for x, s in fit.strengths]
            planes.append(PlaneGrain(coefficients, points if any(s for _, s in points) else []))
        return GrainParameters(planes, shift, scale, scaling_shift)

    def write(self) -> None:
        """Write the file.

        Raises:
            SinkOpenError: It cannot be written.
        """
        write_whole(self.path, self.parameters().to_text().encode("ascii"), overwrite=self._overwrite)
        self._overwrite = True  # the file is ours now, if the video continues in another file


class _PlaneSums:
    """Sums over all frames for one plane, which stay on the device until the end."""

    def __init__(self, is_chroma: bool, device: torch.device) -> None:
        self.is_chroma = is_chroma
        self.step: tuple[int, int] = (1, 1)
        """Number of luma pixels per pixel of this plane, vertically and horizontally."""
        n = len(_NEIGHBOURS) + is_chroma
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.products = torch.zeros(n + 1, n + 1, dtype=exact, device=device)
        """Sums of products of the neighbours, then (chroma) the luma noise, then the pixel itself, with each other."""
        self.bins = torch.zeros(3, BINS, dtype=exact, device=device)
        """Number of blocks, sum of their luma, and sum of their variance, by luma."""

    def add(self, blocks: Tensor, level: Tensor, rounding: float, below: Tensor | None) -> None:
        """Add blocks ``(n, h, w)`` of removed noise, with their luma ``(n,)`` and the luma noise below them."""
        centred = blocks - blocks.mean((1, 2), keepdim=True)
        variance = centred.square().mean((1, 2))
        index = (level * (BINS / 256)).long().clamp(0, BINS - 1)
        values = torch.stack([torch.ones_like(level), level, (variance - rounding).clamp(min=0)])
        self.bins.index_add_(1, index, values.to(self.bins.dtype))
        normalised = centred / variance.sqrt().clamp(min=1e-3).view(-1, 1, 1)
        height, width = normalised.shape[1:]
        if height <= LAG or width <= 2 * LAG:
            return
        inner = (slice(None), slice(LAG, height), slice(LAG, width - LAG))
        columns = [normalised[:, LAG + dy : height + dy, LAG + dx : width - LAG + dx] for dy, dx in _NEIGHBOURS]
        if below is not None:
            below = below - below.mean((1, 2), keepdim=True)
            columns.append((below / below.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-3))[inner])
        columns.append(normalised[inner])
        table = torch.stack([c.reshape(-1) for c in columns]).to(self.products.dtype)
        self.products += table @ table.T


@dataclass(frozen=True, slots=True)
class _Fit:
    """The filter and the strengths of one plane, as real numbers."""

    coefficients: np.ndarray
    strengths: list[tuple[int, float]]
    """Points as (luma, standard deviation in 8-bit units)."""
    step: tuple[int, int]
    gain: float
    """Standard deviation of filtered noise whose innovation has standard deviation 1."""

    @classmethod
    def of(cls, sums: _PlaneSums | None) -> _Fit:
        if sums is None:  # the chroma of a gray picture
            return cls(np.zeros(len(_NEIGHBOURS) + 1), [], (2, 2), 1.0)
        products, bins = sums.products.cpu().double().numpy(), sums.bins.cpu().double().numpy()
        n = products.shape[0] - 1
        count = bins[0].sum()
        if products[n, n] <= 0 or count == 0:
            return cls(np.zeros(n), [], sums.step, 1.0)
        # Ridge regression: what cannot be told apart is shared.
        ridge = 1e-3 * products[n, n] * np.eye(n)
        solution = np.linalg.solve(products[:n, :n] + ridge, products[:n, n])
        strengths: list[tuple[int, float]] = []
        for blocks, level, variance in bins.T:
            x = round(level / blocks) if blocks else 0
            if blocks >= max(4, 0.002 * count) and (not strengths or x > strengths[-1][0]):
                strengths.append((x, math.sqrt(variance / blocks)))
        # For noise of unit variance; the template's innovation has variance 1, so everything else is scaled to that.
        innovation = max(float(1 - solution @ products[:n, n] / products[n, n]), 1e-3)
        return cls(solution, strengths, sums.step, 1 / math.sqrt(innovation))


def _flattest(luma_blocks: Tensor, noise: Tensor) -> Tensor:
    """Return the indices of the flattest blocks from which something was removed."""
    # At half resolution, so that residual noise does not decide.
    coarse = F.avg_pool2d(luma_blocks.unsqueeze(1), 2).squeeze(1)
    gradient = coarse.diff(dim=1).square().mean((1, 2)) + coarse.diff(dim=2).square().mean((1, 2))
    energy = noise.var((1, 2))
    score = gradient + 1e9 * (energy < 0.05 * energy.mean())
    count = min(max(1, score.numel() // FLATTEST), MAX_BLOCKS)
    return score.topk(count, largest=False).indices


def _blocks(plane: Tensor, height: int, width: int) -> Tensor:
    """Cut a plane into blocks ``(n, height, width)``; the rest at the right and bottom is dropped."""
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    cut = plane[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return cut.permute(0, 2, 1, 3).reshape(rows * columns, height, width)


def _in_template_units(found: list[_Fit]) -> list[np.ndarray]:
    """Return the filters, with the coefficient of the luma grain in units of the grain templates."""
    luma = _damped(found[0].coefficients)
    filters = [luma]
    grain = _template(luma, (73, 82), None)
    for fit in found[1:]:
        coefficients = fit.coefficients.copy()
        coefficients[:-1] = _damped(coefficients[:-1])
        coefficients[-1] *= fit.gain / _deviation(_below(grain, fit.step))
        filters.append(coefficients)
    return filters


def _damped(coefficients: np.ndarray) -> np.ndarray:
    """Return the filter, weakened as far as necessary to stay within the range of a template."""
    while _deviation(_template(coefficients, (73, 82), None)) > MAX_GAIN:
        coefficients = coefficients * 0.95
    return coefficients


def _templates(filters: list[np.ndarray], steps: list[tuple[int, int]]) -> list[np.ndarray]:
    """Return the planes' grain templates as a decoder makes them, in units of the white noise's standard deviation."""
    luma = _template(filters[0], (73, 82), None)
    grains = [luma]
    for coefficients, step in zip(filters[1:], steps[1:], strict=True):
        below = _below(luma, step)
        grains.append(_template(coefficients, (below.shape[0], below.shape[1]), below))
    return grains


def _below(luma: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """Average the luma template to the size of a chroma template: 38 x 44 for 4:2:0."""
    down, across = (min(n, 2) for n in step)  # AV1 has no coarser chroma
    height, width = 38 if down == 2 else 73, 44 if across == 2 else 82
    averaged = np.zeros((height, width))
    rows, columns = height - LAG, width - 2 * LAG
    inner = luma[LAG : LAG + rows * down, LAG : LAG + columns * across]
    averaged[LAG:, LAG:-LAG] = inner.reshape(rows, down, columns, across).mean((1, 3))
    return averaged


def _deviation(template: np.ndarray) -> float:
    return float(template[LAG:, LAG:-LAG].std())


def _template(coefficients: np.ndarray, size: tuple[int, int], luma: np.ndarray | None) -> np.ndarray:
    height, width = size
    grain = np.random.default_rng(SEED + (luma is not None)).standard_normal(size)
    own, from_luma = coefficients[: len(_NEIGHBOURS)], float(coefficients[-1])
    above = own[: LAG * (2 * LAG + 1)].reshape(LAG, 2 * LAG + 1)
    left = own[LAG * (2 * LAG + 1) :]
    for y in range(LAG, height):
        for x in range(LAG, width - LAG):
            value = (
                grain[y, x] + (above * grain[y - LAG : y, x - LAG : x + LAG + 1]).sum() + left @ grain[y, x - LAG : x]
            )
            if luma is not None:
                value += from_luma * luma[y, x]
            grain[y, x] = min(max(value, -1e3), 1e3)
    return grain
