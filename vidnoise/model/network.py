"""The recurrent network: noise level, motion, temporal fusion and spatial core, with explicit state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidnoise.model.config import ModelConfig
from vidnoise.model.dncnn import CoreOutput, DnCNN
from vidnoise.model.flow import Motion, estimate_motion
from vidnoise.model.fusion import Filtered, TemporalFusion, smoothed
from vidnoise.model.luma_chroma import GRAY, bands_to_rgb, per_channel, rgb_to_bands
from vidnoise.model.noise_level import NoiseLevel, uniform_sigma
from vidnoise.model.operations import Operations
from vidnoise.model.quantisation import make_quantisable, quantised_layers, set_rounding
from vidnoise.model.state import UNKNOWN, Future, NoiseMemory, Scout, State
from vidnoise.model.wavelet import per_band, split_bands

MULTIPLE = 16
"""Heights and widths must be multiples of this: the coarsest flow level is at 1/16."""

LIMIT = 50.0
"""Clipping limit of the spatial core's inputs, in units of the noise: beyond it, an edge's height is irrelevant."""

LOCAL = 8
"""Side of the squares over which the local mean is taken, in pixels of the bands."""

REFUSED = (0.85, 0.97)
"""Gains of the low-pass band at which the past starts to lose weight, and has none. The transition is gradual so that
small differences between devices, precisions or tiles do not show."""


class Trace(NamedTuple):
    """Intermediate results of one step, for training and diagnosis."""

    motion: Motion
    """Flows at 1/2 resolution, in pixels of that resolution."""
    fused: Tensor
    """``(N, 12, H/2, W/2)``: bands of the core's input, fused from the frame, its past and, if known, its future."""
    ratio: Tensor
    """``(N, 4, H/2, W/2)``: variance ratio of ``fused``."""


class Denoised(NamedTuple):
    """Result of one step for N streams."""

    clean: Tensor
    """``(N, 3, H, W)``: the denoised pictures."""
    level: Tensor
    """``(N,)``: the noise level, mean over the picture, in [0, 1] units."""
    state: State


def mean_level(level: Tensor) -> Tensor:
    """Average a noise level over place, channel and band: ``(N, 6, h, w)`` to ``(N,)``."""
    # The low-pass band holds a quarter of a pixel's variance, the three detail bands the rest.
    squares = torch.linalg.vector_norm(level.float(), dim=(2, 3)).square() / (level.shape[2] * level.shape[3])
    low, detail = squares.unflatten(1, (2, 3)).mean(2).unbind(1)
    return ((low + 3 * detail) / 4).sqrt()


class DenoiseNetwork(nn.Module):
    """One step of a recurrent video denoiser, without a state of its own, so that it serves any number of streams.

    The design follows EMVD (Maggioni et al., CVPR 2021: recursive fusion, then spatial denoising), with an optical
    flow, a Kalman gain and a DnCNN as the spatial stage.

    A causal stream takes one :meth:`step` per frame. With lookahead, each frame is measured as it arrives
    (:meth:`measure`); then a backward pass predicts each frame from those after it (:meth:`look`), and a forward pass
    denoises it by its past and that prediction (:meth:`smooth`). Calling the network runs the arithmetic that all of
    them share, for noise levels that are known.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_level = NoiseLevel(config.noise_width)
        self.fusion = TemporalFusion(config.fusion_width)
        self.core = DnCNN(
            12 + 12 + 12 + 6 + 3, 12, config.widths, config.blocks, config.hidden, separable=config.separable
        )
        if config.quantised:
            make_quantisable(self.core)
        self.operations = Operations()
        """A backend may substitute faster ones."""
        self.estimate_motion: Callable[..., Motion] = estimate_motion
        self.core_elsewhere: Callable[[Tensor, Tensor], CoreOutput] | None = None
        """Runs the spatial core in place of PyTorch, if a backend sets it: a function of the core's two inputs."""

    def initial_state(self, n: int, height: int, width: int, *, device: torch.device | str = "cpu") -> State:
        """Return an empty state: from it, the first frame is denoised as a still picture."""
        return State(
            *self.initial_scout(n, height, width, device=device),
            torch.zeros(n, 3, height, width, device=device),
            torch.zeros(n, self.config.hidden, height // 4, width // 4, device=device),
            torch.zeros(n, 13, height // 8, width // 8, device=device),
            torch.zeros(n, 12, height // 2, width // 2, device=device),
        )

    def initial_scout(self, n: int, height: int, width: int, *, device: torch.device | str = "cpu") -> Scout:
        """Return an empty scout, for the last frame of the lookahead."""
        return Scout(
            torch.zeros(n, 3, height, width, device=device),
            torch.full((n, 4, height // 2, width // 2), UNKNOWN, device=device),
        )

    def place(self, device: torch.device | str) -> DenoiseNetwork:
        """Move to a device, with the weights in the channels-last layout that fast convolutions need."""
        return self.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def in_precision(self, dtype: torch.dtype) -> DenoiseNetwork:
        """Return a network whose convolutions run in ``dtype``: this one if they already do. The rest stays float32.

        In ``torch.int8``, those of the spatial core round as integer arithmetic would, but compute in float32.

        Raises:
            ValueError: ``dtype`` is ``torch.int8``, and the network is not :attr:`ModelConfig.quantised`.
        """
        rounds = dtype is torch.int8
        if rounds and not self.config.quantised:
            raise ValueError("int8 needs a network whose ranges of activations are known")
        held = torch.float32 if rounds else dtype
        is_so = all(layer.rounds is rounds for _, layer in quantised_layers(self))
        if is_so and all(parameter.dtype is held for parameter in self.parameters()):
            return self
        network = copy.deepcopy(self).to(held)
        set_rounding(network, rounds)
        return network

    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        """Denoise the next frame of each of N streams causally, from noise level to picture.

        Args:
            noisy: ``(N, 3, H, W)`` RGB, nominally in [0, 1] (never clipped); H and W multiples of 16.
            sigma: Noise level in [0, 1] units, see :func:`~.noise_level.uniform_sigma`; ``None`` estimates it.
            sigma_scale: Factor on the noise level: a number, or ``(N, 2)`` for the luma and chroma of each stream.
            continues: ``(N,)`` bool; where false, the stream's past is reset first.
            state: After the previous frame, or :meth:`initial_state`.
        """
        level, state = self.measure(noisy, sigma, continues, state)
        return self.smooth(noisy, level, sigma_scale, continues, state, None)

    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Determine the noise level of the next frame of each of N streams: the first half of :meth:`step`.

        Args:
            noisy, sigma, continues: As for :meth:`step`.
            state: Its :attr:`State.memory` must be that after the previous frame.

        Returns:
            ``(N, 6, H/2, W/2)``, the level without a scale, and the state with its memory of the noise updated.
        """
        if sigma is not None:
            return uniform_sigma(sigma, noisy), state
        level, memory = self.estimate_sigma(noisy, self.operations.reset_unless(state.memory, continues))
        return level, state._replace(**memory._asdict())

    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        """Predict a frame of each of N streams from those after it, then take it in for the one before it.

        Args:
            noisy, level, sigma_scale: As for :meth:`smooth`.
            continues: That of the frame after this one; where false, the scout is reset first.
            scout: After the frame that follows this one, or :meth:`initial_scout`.
        """
        return self.predict(noisy, scaled(level, sigma_scale), self.operations.reset_unless(scout, continues))

    def predict(self, noisy: Tensor, level: Tensor, scout: Scout, motion: Motion | None = None) -> tuple[Future, Scout]:
        """Run the arithmetic of :meth:`look`, as :meth:`forward` is that of :meth:`smooth`.

        Args:
            noisy, level: As for :meth:`forward`.
            scout: As for :meth:`look`.
            motion: The motion to the frame that follows, if it has been estimated already.
        """
        bands = self.operations.rgb_to_bands(noisy)
        found, _, _ = self._filter(bands, scout.fused, level, (scout.fused,), scout.ratio, motion)
        following = Scout(self.operations.bands_to_rgb(found.estimate), found.gain)
        return Future(found.predicted, found.uncertainty), following

    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State,
        future: Future | None,
    ) -> Denoised:  # fmt: skip
        """Denoise a frame of each of N streams by its past and, with lookahead, its future.

        Args:
            noisy, sigma_scale, continues: As for :meth:`step`.
            level: From :meth:`measure`.
            state: Its :attr:`State.track` must be that after the previous frame.
            future: From :meth:`look`; ``None`` without lookahead.
        """
        state = state._replace(**self.operations.reset_unless(state.track, continues)._asdict())
        clean, state, _ = self(noisy, scaled(level, sigma_scale), state, future)
        return Denoised(clean.float(), mean_level(level), state)

    def estimate_sigma(self, noisy: Tensor, memory: NoiseMemory) -> tuple[Tensor, NoiseMemory]:
        """Estimate the noise level of one frame blindly, and update the memory of the noise.

        Args:
            noisy: ``(N, 3, H, W)`` RGB.
            memory: After the previous frame, or that of :meth:`initial_state`.

        Returns:
            ``(N, 6, H/2, W/2)`` in [0, 1] units: the levels of luma and two chroma channels in the low-pass band, then
            in the details; and the new memory.
        """
        operations = self.operations
        bands = operations.rgb_to_bands(noisy)
        known = (memory.noise[:, 12:, :1, :1] > 0).float().expand(-1, -1, *bands.shape[2:])
        noise_mask = 1 - operations.flat_mask(bands)
        parameters = self.noise_level(bands, memory.past, known, noise_mask, operations)
        noise = self.noise_level.remember(memory.noise, parameters)
        return self.noise_level.level(noise[:, :12], bands, noise_mask, operations), NoiseMemory(noise, bands)

    def forward(
        self, noisy: Tensor, level: Tensor, state: State, future: Future | None = None, motion: Motion | None = None
    ) -> tuple[Tensor, State, Trace]:
        """Denoise one frame under a known noise level.

        Args:
            noisy: ``(N, 3, H, W)`` RGB, nominally in [0, 1] (never clipped); H and W multiples of 16.
            level: ``(N, 6, H/2, W/2)``: from :meth:`estimate_sigma` or ``uniform_sigma``.
            state: After the previous frame, or :meth:`initial_state`.
            future: From :meth:`look`, if there is lookahead.
            motion: The motion to the previous frame, if it has been estimated already.

        Returns:
            The clean frame ``(N, 3, H, W)``, the next state, and intermediate results.
        """
        operations = self.operations
        bands = operations.rgb_to_bands(noisy)
        found, (_, clean_bands), motion = self._filter(
            bands, state.clean, level, (state.fused, state.clean), state.ratio, motion
        )
        estimate, ratio = found.estimate, found.gain
        if future is not None:
            estimate, ratio = operations.pointwise(smoothed, (estimate, ratio, *future))
        (remaining,) = operations.pointwise(remaining_level, (ratio, level))
        trust = trust_of(found.gain)
        inputs = self._core_input(estimate, bands, clean_bands, trust, remaining, level)
        core = self._run_core(inputs, operations.warp_hidden(state.hidden, motion.flow, trust))
        clean, fused, previous = operations.remove_noise(estimate, remaining, core.residual, found.estimate)
        state = State(fused, found.gain, previous, core.hidden.float(), state.noise, state.past)
        return clean, state, Trace(motion, estimate, ratio)

    def still(self, noisy: Tensor, level: Tensor) -> Tensor:
        """Denoise single pictures: :meth:`forward` from an initial state, without the cost of motion and fusion.

        Args:
            noisy: ``(N, 3, H, W)`` RGB, H and W multiples of 16.
            level: ``(N, 6, H/2, W/2)``.

        Returns:
            ``(N, 3, H, W)``.
        """
        bands = rgb_to_bands(noisy)
        n, _, h, w = bands.shape
        hidden = torch.zeros(n, self.config.hidden, h // 2, w // 2, device=noisy.device)
        # The trust does not matter, as all three pictures are the same.
        inputs = self._core_input(bands, bands, bands, torch.ones_like(bands[:, :1]), level, level)
        residual = self._run_core(inputs, hidden).residual
        return bands_to_rgb(bands - per_band(level) * residual.float())

    def _run_core(self, inputs: Tensor, hidden: Tensor) -> CoreOutput:
        if self.core_elsewhere is not None:
            return self.core_elsewhere(inputs, hidden)
        return self.core(inputs, hidden, self.operations.convolve)

    def _core_input(
        self, fused: Tensor, noisy: Tensor, past: Tensor, trust: Tensor, remaining: Tensor, level: Tensor
    ) -> Tensor:
        """Return the input of the spatial core; arguments as for :func:`core_input`."""
        local = self.operations.downsample(fused[:, :3] * 0.5, LOCAL)
        known = fused, noisy, past, trust, remaining, level, local
        return self.operations.pointwise_input(core_input, known, self.core.stem)

    def _filter(
        self, bands: Tensor, previous: Tensor, level: Tensor, pictures: tuple[Tensor, ...], ratio: Tensor,
        motion: Motion | None,
    ) -> tuple[Filtered, list[Tensor], Motion]:  # fmt: skip
        """Fuse a frame with its past along the motion: one Kalman step.

        Args:
            bands: ``(N, 12, h, w)`` of the frame.
            previous: ``(N, 3, H, W)``, the best picture of the frame before, against which motion is estimated.
            level: ``(N, 6, h, w)`` noise level of the frame.
            pictures: Remembered pictures, ``(N, 3, H, W)`` each: the fused frame, and the previous output if it
                differs from that.
            ratio: ``(N, 4, h, w)`` variance ratio of the fused frame.
            motion: As for :meth:`forward`.

        Returns:
            The fusion's result, the bands of the warped pictures, and the motion.
        """
        if motion is None:
            before = self.operations.brightness(previous)
            motion = self.estimate_motion(bands[:, :1] * (GRAY / 2), before, level[:, :1], self.operations)
        moved, ratio = self.operations.warp_state(pictures, ratio, motion.flow)
        return self.fusion(bands, moved[0], moved[-1][:, :3], level, ratio, self.operations), moved, motion


SCALE_FLOOR = 2 / 255
"""Minimum noise level assumed by a scale of 2: what noise a codec leaves is often estimated as next to none."""


def scaled(level: Tensor, sigma_scale: float | Tensor) -> Tensor:
    """Raise a noise level above its estimate.

    Args:
        level: ``(N, 6, h, w)``.
        sigma_scale: Factor, at least 1: a number, or ``(N, 2)`` for the luma and chroma of each stream.
    """
    if isinstance(sigma_scale, Tensor):
        luma, chroma = sigma_scale.reshape(-1, 2, 1, 1).split(1, dim=1)
        sigma_scale = torch.cat([luma, chroma, chroma, luma, chroma, chroma], 1)
    elif sigma_scale == 1:
        return level
    return level * sigma_scale + (sigma_scale - 1) * SCALE_FLOOR


def trust_of(gain: Tensor) -> Tensor:
    """Return the trust in the previous output, ``(N, 1, h, w)``: none where the past is unknown or was refused.

    Args:
        gain: ``(N, 4, h, w)``, from the fusion.
    """
    refused = gain[:, :2].amax(1, keepdim=True)
    return ((REFUSED[1] - refused) / (REFUSED[1] - REFUSED[0])).clamp(0, 1)


def remaining_level(ratio: Tensor, level: Tensor) -> tuple[Tensor]:
    """Return the level of the noise that remains in an estimate, from its variance ratio and the frame's level."""
    return (per_channel(ratio.sqrt()) * level,)


def core_input(
    fused: Tensor, noisy: Tensor, past: Tensor, trust: Tensor, remaining: Tensor, level: Tensor, local: Tensor
) -> tuple[Tensor, ...]:
    """Return the spatial core's input: bands less their local mean, in units of their noise.

    Denoising scales with the picture: ``D(c x; c σ) = c D(x; σ)``. Layers cannot divide, so a network that is given raw
    pictures must learn each noise level separately. In units of the noise all levels are one problem; the loss on
    single frames falls several times as fast.

    Args:
        fused, noisy, past: ``(N, 12, h, w)``: the estimate to be denoised, the frame, and the warped previous output.
            Where that is not to be trusted, the estimate stands in for it, as the core would let its errors show
            through behind moving objects.
        trust: ``(N, 1, h, w)``, from :func:`trust_of`.
        remaining, level: ``(N, 6, h, w)``, noise level of the estimate and of the frame.
        local: ``(N, 3, h, w)``, the local mean.
    """
    guide = torch.lerp(fused, past, trust)
    standardised = []
    for bands, noise in ((fused, remaining), (noisy, level), (guide, remaining)):
        low, details = split_bands(bands)
        low_level, detail_level = noise.chunk(2, dim=1)
        standardised += (low - 2 * local) / low_level, (details / detail_level.unsqueeze(1)).flatten(1, 2)
    return *(bands.clamp(-LIMIT, LIMIT) for bands in standardised), remaining.log() * 0.3 + 1, local
