"""The memory-bound part of the network's step, fused."""

from __future__ import annotations

from torch import Tensor

from vidnoise.model.operations import Operations
from vidnoise.model.state import UNKNOWN, State

from .bands import haar, restore
from .warp import forget, warp_bands, warp_ratio


class FusedOperations(Operations):
    """:class:`vidnoise.model.operations.Operations` by Triton, for networks whose transform is Haar's.

    Args:
        clean, fused: where :meth:`restore` puts the pictures: those of the state, which are read no more by then. New
            ones by default.
    """

    def __init__(self, operations: Operations, *, clean: Tensor | None = None, fused: Tensor | None = None) -> None:
        super().__init__(operations.transform)
        self._clean, self._fused = clean, fused
        self._frame: tuple[Tensor, Tensor] | None = None
        """The first picture of a step and its bands, which noise level and network both ask for."""

    def keep(self, state: State, known: Tensor) -> State:
        self._frame = None
        for name, tensor in state._asdict().items():
            forget(tensor, known, UNKNOWN if name == "ratio" else 0.0)
        return state

    def haar(self, image: Tensor) -> Tensor:
        if self._frame is None:
            self._frame = image, haar(image)
        frame, bands = self._frame
        return bands if frame is image else haar(image)

    def bands(self, image: Tensor) -> Tensor:
        return self.haar(image)

    def recall(self, state: State, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return warp_bands(state.fused, flow), warp_bands(state.clean, flow), warp_ratio(state.ratio, flow, UNKNOWN)

    def restore(self, fused_bands: Tensor, left: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        self._frame = None
        return restore(fused_bands, left, residual, clean=self._clean, fused=self._fused)
