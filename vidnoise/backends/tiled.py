"""Tiled processing of pictures too large for the memory, with one state for the whole picture.

Most memory of a step is for activations between its layers, in proportion to the size of its input. So the picture is
cut into overlapping tiles of one size, which are processed one after the other. The state stays whole: each tile gets
its part of it, overlap included, so that an object moving from one tile into the next keeps its past. Results are
blended over the middle of the overlaps; their outermost pixels, which are affected by the tile's edge, do not count.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidnoise.backends.tiling import OVERLAP, Tiling
from vidnoise.backends.window import WAITING_BYTES, free_bytes
from vidnoise.errors import UsageError
from vidnoise.kernels import enabled
from vidnoise.model import Denoised, DenoiseNetwork, Future, ModelConfig, Scout, State, uniform_sigma
from vidnoise.model.dncnn import typed
from vidnoise.model.flow import Motion
from vidnoise.model.network import MULTIPLE, mean_level, scaled
from vidnoise.model.state import Track, reset_unless

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SMALLEST = 256
"""Minimum side of a tile: smaller tiles would be hardly more than their overlaps."""

SAFETY = 1.3
"""Factor on the memory of tensors, for workspaces of libraries and fragmentation."""

STILL_SHARE = 0.7
"""Share of the free memory that a single picture may take before it is denoised in tiles."""

STILL_BYTES = 1 << 10
"""Bytes per pixel that exceed the need of any shipped model: if so many are free, the exact need is not determined."""

FRAME_BYTES = 3 * 4 * 7
"""Bytes per pixel of the picture as a whole, without the state: noisy and clean RGB, the difference, conversion."""


class Tiled:
    """A :class:`~vidnoise.backends.protocol.Backend` in plain PyTorch that processes one tile at a time.

    Global computations are done for the whole picture: the noise level, by gathering features from all tiles first, and
    the motion, which takes little memory. So the result of a tile differs from that of the whole picture only as far as
    convolutions reach beyond its edges.

    Args:
        network: The network to run.
        device, dtype: As for all backends.
        max_memory: Memory that a stream may take on the device, in MB.
        lookahead: Frames that wait on the device, whose memory is included.
        overlap: Pixels that neighbours share, a multiple of 2 :data:`MULTIPLE`.
    """

    name = "eager"

    def __init__(
        self, network: DenoiseNetwork, *, device: torch.device, dtype: torch.dtype, max_memory: float,
        lookahead: int = 0, overlap: int = OVERLAP,
    ) -> None:  # fmt: skip
        self._network = copy.copy(network.in_precision(dtype))
        if enabled(device):
            from vidnoise.kernels.cuda_operations import CudaOperations

            self._network.operations = CudaOperations()
        self._device = device
        self._max_bytes, self._overlap = max_memory * 2**20, overlap
        self._waiting = lookahead
        self._tiles: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._last_cut: tuple[Any, Any] = None, None

    def initial_state(self, n: int, height: int, width: int) -> State:
        """See :meth:`Backend.initial_state`.

        Raises:
            UsageError: Not even the smallest tile fits.
        """
        if (n, height, width) not in self._tiles:
            left = self._max_bytes - self._waiting * n * height * width * WAITING_BYTES
            tile = choose_tile(self._network, n, height, width, left, self._overlap)
            self._tiles[n, height, width] = tile
            if tile != (height, width):
                logger.info("%dx%d is denoised in tiles of %dx%d", width, height, tile[1], tile[0])
        return self._network.initial_state(n, height, width, device=self._device)

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        return self._network.initial_scout(n, height, width, device=self._device)

    def input_buffer(self, state: State) -> None:
        return None

    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        level, state = self.measure(noisy, sigma, continues, state)
        return self.smooth(noisy, level, sigma_scale, continues, state, None)

    @torch.inference_mode()
    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:
        if sigma is not None:
            return uniform_sigma(sigma, noisy), state
        return self._smaller_if_full(noisy, lambda cut: self._measured(cut, noisy, continues, state))

    @torch.inference_mode()
    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        return self._smaller_if_full(noisy, lambda cut: self._looked(cut, noisy, level, sigma_scale, continues, scout))

    @torch.inference_mode()
    def smooth(
        self,
        noisy: Tensor,
        level: Tensor,
        sigma_scale: float | Tensor,
        continues: Tensor,
        state: State,
        future: Future | None,
    ) -> Denoised:
        return self._smaller_if_full(
            noisy, lambda cut: self._smoothed(cut, noisy, level, sigma_scale, continues, state, future)
        )

    def _smaller_if_full(self, noisy: Tensor, work: Callable[[Tiling], Result]) -> Result:
        """Run ``work`` on the tiles, retrying with smaller ones when out of memory."""
        n, _, height, width = noisy.shape
        while True:
            tile = self._tiles[n, height, width]
            try:
                return work(self._cut(height, width, tile))
            except torch.OutOfMemoryError:
                smaller = _halved(tile)
                if smaller == tile:
                    raise
                logger.warning("out of memory with tiles of %dx%d; going on with %dx%d", *tile[::-1], *smaller[::-1])
                self._tiles[n, height, width] = smaller

    def _cut(self, height: int, width: int, tile: tuple[int, int]) -> Tiling:
        """Return the tiling of a size, cached together with its weights on the device."""
        if (height, width, tile) != self._last_cut[0]:
            self._last_cut = (height, width, tile), Tiling(height, width, tile, self._overlap)
        return self._last_cut[1]

    def _measured(self, cut: Tiling, noisy: Tensor, continues: Tensor, state: State) -> tuple[Tensor, State]:
        n, _, height, width = noisy.shape
        estimator, operations = self._network.noise_level, self._network.operations
        memory = reset_unless(state.memory, continues)
        known = (memory.noise[:, 12:, :1, :1] > 0).float()
        features = trust = None
        past = torch.empty_like(memory.past)
        for place in cut:
            bands = operations.rgb_to_bands(cut.part(noisy, place).contiguous())
            cut.part(past, place).copy_(bands)
            noise_mask = 1 - operations.flat_mask(bands)
            before = cut.part(memory.past, place).contiguous()
            found, sure = estimator.features(
                bands, before, known.expand(-1, -1, *bands.shape[2:]), noise_mask, operations
            )
            if features is None or trust is None:
                features = noisy.new_zeros(n, found.shape[1], height // 8, width // 8)
                trust = noisy.new_zeros(n, 1, height // 8, width // 8)
            cut.blend(features, found.float(), place)
            cut.blend(trust, sure.float(), place)
        assert features is not None
        assert trust is not None
        noise = estimator.remember(memory.noise, estimator.conclude(typed(features, estimator.head), trust))
        level = noisy.new_zeros(n, 6, height // 2, width // 2)
        for place in cut:
            bands = cut.part(past, place)
            noise_mask = 1 - operations.flat_mask(bands)
            cut.blend(level, estimator.level(cut.part(noise, place)[:, :12], bands, noise_mask, operations), place)
        return level, state._replace(noise=noise, past=past)

    def _looked(
        self, cut: Tiling, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        scout, level = reset_unless(scout, continues), scaled(level, sigma_scale)
        future = Future(torch.zeros_like(level).repeat(1, 2, 1, 1), torch.zeros_like(scout.ratio))
        following = Scout(*(torch.zeros_like(t) for t in scout))
        motion = self._motion(noisy, scout.fused, level)
        for place in cut:
            frame, strength = cut.parts((noisy, level), place)
            before, moved = Scout(*cut.parts(scout, place)), Motion(*cut.parts(motion, place))
            found = self._network.predict(frame, strength, before, moved)
            for wholes, values in zip((future, following), found, strict=True):
                for whole, value in zip(wholes, values, strict=True):
                    cut.blend(whole, value, place)
        return future, following

    def _smoothed(
        self,
        cut: Tiling,
        noisy: Tensor,
        level: Tensor,
        sigma_scale: float | Tensor,
        continues: Tensor,
        state: State,
        future: Future | None,
    ) -> Denoised:
        found_level, level = mean_level(level), scaled(level, sigma_scale)
        state = state._replace(**reset_unless(state.track, continues)._asdict())
        following = Track(*(torch.zeros_like(t) for t in state.track))
        motion = self._motion(noisy, state.clean, level)
        for place in cut:
            frame, strength = cut.parts((noisy, level), place)
            ahead = None if future is None else Future(*cut.parts(future, place))
            before, moved = State(*cut.parts(state, place)), Motion(*cut.parts(motion, place))
            _, found, _ = self._network(frame, strength, before, ahead, moved)
            for whole, values in zip(following, found.track, strict=True):
                cut.blend(whole, values, place)
        return Denoised(following.clean, found_level, state._replace(**following._asdict()))

    def _motion(self, noisy: Tensor, previous: Tensor, level: Tensor) -> Motion:
        """Estimate the motion of the whole picture."""
        now, before = (F.avg_pool2d(picture.mean(1, keepdim=True), 2) for picture in (noisy, previous))
        return self._network.estimate_motion(now, before, level[:, :1])


def _halved(tile: tuple[int, int]) -> tuple[int, int]:
    """Return a smaller tile, with its longer side halved and rounded up to a multiple of :data:`MULTIPLE`."""
    longer = max(tile)
    half = max(SMALLEST, math.ceil(longer / 2 / MULTIPLE) * MULTIPLE)
    return (min(tile[0], half), tile[1]) if tile[0] == longer else (tile[0], min(tile[1], half))


class _Tile(NamedTuple):
    size: tuple[int, int]
    least: float
    """Bytes that a step in tiles of this size takes."""


def _tiles(network: DenoiseNetwork, n: int, height: int, width: int) -> Iterator[_Tile]:
    """Yield ever smaller tiles, from the whole picture on."""
    state = sum(t.numel() * 4 for t in network.initial_state(n, height, width, device="meta"))
    whole = n * height * width * FRAME_BYTES + state
    apart = SAFETY * motion_bytes(network, n, height, width) + state  # beside a tile's: motion and the next state
    tile = height, width
    while True:
        # Without tiling, both are part of the step.
        yield _Tile(tile, whole + (0 if tile == (height, width) else apart) + SAFETY * step_bytes(network, n, *tile))
        smaller = _halved(tile)
        if smaller == tile:
            return
        tile = smaller


def choose_tile(
    network: DenoiseNetwork, n: int, height: int, width: int, max_bytes: float, overlap: int = OVERLAP
) -> tuple[int, int]:
    """Return height and width of the largest tiles for which a step stays within ``max_bytes``.

    Raises:
        UsageError: Even the smallest tiles take more.
    """
    least = 0.0
    for each in _tiles(network, n, height, width):
        least = each.least
        if least <= max_bytes:
            return each.size
    raise UsageError(
        f"max_memory {max_bytes / 2**20:.0f} MB is too little for {width}x{height}; it takes at least "
        f"{math.ceil(least / 2**20)} MB, or a smaller model",
        "max_memory",
    )


def room_for_still(network: DenoiseNetwork, height: int, width: int, device: torch.device) -> float | None:
    """Choose the memory in which a single picture is denoised in tiles.

    Args:
        network: The network.
        height, width: Size of the picture.
        device: Where it is denoised.

    Returns:
        MB, for the option ``max_memory``; ``None`` if the whole picture fits into the free memory. If not even tiles
        stay within :data:`STILL_SHARE` of it, the need of the smallest ones.
    """
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
    room = STILL_SHARE * free_bytes(device)
    if height * width * STILL_BYTES <= room:
        return None
    least = math.inf
    for each in _tiles(network, 1, height, width):
        least = min(least, each.least)
        if each.least <= room:
            return None if each.size == (height, width) else room / 2**20
    return math.ceil(least / 2**20)


def step_bytes(network: DenoiseNetwork, n: int, height: int, width: int) -> int:
    """Return the peak memory of a step beside its input."""
    return math.ceil(n * height * width * _step_bytes_per_pixel(network.config, next(network.parameters()).dtype))


def motion_bytes(network: DenoiseNetwork, n: int, height: int, width: int) -> int:
    """Return the peak memory of motion estimation for a picture, including its noise level."""
    return math.ceil(n * height * width * (_motion_bytes_per_pixel(network.estimate_motion) + 6))


# Counting takes a second or two, and all large tensors grow with the number of pixels: so one size serves for all.
_COUNTED = 256
"""Height and width of the pictures on which bytes are counted, on meta tensors."""


@functools.lru_cache(maxsize=32)
def _step_bytes_per_pixel(config: ModelConfig, dtype: torch.dtype) -> float:
    empty = DenoiseNetwork(config).to("meta").in_precision(dtype)
    state = empty.initial_state(1, _COUNTED, _COUNTED, device="meta")
    noisy, sigma_scale = torch.empty(1, 3, _COUNTED, _COUNTED, device="meta"), torch.empty(1, 2, device="meta")
    continues = torch.empty(1, dtype=torch.bool, device="meta")
    peak = peak_bytes(lambda: empty.step(noisy, None, sigma_scale, continues, state))
    return (peak + sum(t.numel() * t.element_size() for t in state)) / _COUNTED**2


@functools.lru_cache(maxsize=32)
def _motion_bytes_per_pixel(motion: Callable[..., Motion]) -> float:
    half = torch.empty(1, 1, _COUNTED // 2, _COUNTED // 2, device="meta")
    return peak_bytes(lambda: motion(half, half, half)) / _COUNTED**2


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak bytes of simultaneously live tensors that ``work`` creates."""
    with torch.inference_mode(), _PeakBytes() as counted:
        work()
    return counted.peak


class _PeakBytes(TorchDispatchMode):
    """Counts the bytes of simultaneously live tensors, except those created before."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = set(_storages((args, kwargs)))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in given | self._alive:
                size = tensor.untyped_storage().nbytes()
                self._alive.add(key)
                self._now += size
                weakref.finalize(tensor.untyped_storage(), self._gone, key, size)
        self.peak = max(self.peak, self._now)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def _storages(values: Any) -> Iterator[int]:
    for tensor in tree_leaves(values):
        if isinstance(tensor, Tensor):
            yield tensor.untyped_storage()._cdata
