"""The interface of a stream's session, as the pipeline uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Session(Protocol):
    """Denoises one stream: a :class:`Denoiser`, or what is used like one."""

    @property
    def device(self) -> torch.device | str:
        """Where the frames that it is given have to be, or the names of the devices that it uses."""
        ...

    @property
    def dtype(self) -> torch.dtype | str:
        """Precision of the convolutions."""
        ...

    @property
    def model_name(self) -> str: ...

    @property
    def backend_name(self) -> str: ...

    @property
    def estimated_sigma(self) -> float | None:
        """See :attr:`Denoiser.estimated_sigma`."""
        ...

    @property
    def n_cuts(self) -> int:
        """Number of scene cuts detected so far."""
        ...

    def __call__(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Denoise a stream of frames lazily."""
        ...
