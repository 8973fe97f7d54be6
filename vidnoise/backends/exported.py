"""Common base of the backends that run exported graphs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidnoise.backends.protocol import is_map, per_stream_scale, step_by_place
from vidnoise.export.graph import FUTURE, KINDS, SCOUT, Named, Size, named_state, next_state, shape_of, step_kind
from vidnoise.model import Denoised, DenoiseNetwork, Future, Scout, State, known_levels, uniform_sigma


class Exported:
    """A :class:`~vidnoise.backends.protocol.Backend` that lacks only :meth:`_run`, which runs a graph."""

    name: str

    def __init__(self, network: DenoiseNetwork, device: torch.device) -> None:
        self._network, self._device = network, device

    def _run(self, kind: str, size: Size, inputs: dict[str, Tensor]) -> Sequence[Tensor]:
        """Run one graph.

        Args:
            kind: Kind of the graph, see :data:`KINDS`.
            size: Streams, height and width.
            inputs: Contiguous tensors by name, in the graph's order.

        Returns:
            The outputs in the graph's order, in memory that nothing else uses.
        """
        raise NotImplementedError

    def _outputs(self, kind: str, size: Size) -> list[Tensor]:
        """Allocate a graph's outputs."""
        shapes = (shape_of(name, self._network, size) for name in KINDS[kind].outputs)
        return [torch.empty(shape, device=self._device) for shape in shapes]

    def _named(self, kind: str, given: Named) -> dict[str, Tensor]:
        n, _, height, width = given["noisy"].shape
        inputs, outputs, _ = KINDS[kind]
        found = self._run(kind, (n, height, width), {name: given[name].contiguous() for name in inputs})
        return dict(zip(outputs, found, strict=True))

    @torch.inference_mode()  # as all later states are: torch.compile would recompile for other tensors
    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._network.initial_state(n, height, width, device=self._device)

    @torch.inference_mode()
    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        return self._network.initial_scout(n, height, width, device=self._device)

    def input_buffer(self, state: State) -> None:
        return None

    @torch.inference_mode()
    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        if is_map(sigma):
            return step_by_place(self, noisy, sigma, sigma_scale, continues, state)
        given = {"noisy": noisy, "boost": per_stream_scale(sigma_scale, noisy), "keep": continues, **named_state(state)}
        if sigma is not None:
            given["sigma"] = known_levels(sigma, noisy)
        found = self._named(step_kind(blind=sigma is None), given)
        return Denoised(found["clean"], found["level"], next_state(state, found))

    @torch.inference_mode()
    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:  # fmt: skip
        if sigma is not None:
            return uniform_sigma(sigma, noisy), state
        found = self._named("measure", {"noisy": noisy, "keep": continues, **named_state(state)})
        return found["levels"], next_state(state, found)

    @torch.inference_mode()
    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        sigma_scale = per_stream_scale(sigma_scale, noisy)
        given = {"noisy": noisy, "levels": level, "boost": sigma_scale, "keep": continues}
        found = self._named("look", {**given, **dict(zip(SCOUT, scout, strict=True))})
        return Future(*(found[name] for name in FUTURE)), Scout(*(found[f"next_{name}"] for name in SCOUT))

    @torch.inference_mode()
    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State, future: Future
    ) -> Denoised:
        sigma_scale = per_stream_scale(sigma_scale, noisy)
        given = {"noisy": noisy, "levels": level, "boost": sigma_scale, "keep": continues, **named_state(state)}
        found = self._named("smooth", {**given, **dict(zip(FUTURE, future, strict=True))})
        return Denoised(found["clean"], found["level"], next_state(state, found))
