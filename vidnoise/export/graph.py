"""The exported graphs of a network: functions of tensors, with the state among their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vidnoise.model import DenoiseNetwork, Future, Scout, State
from vidnoise.model.state import UNKNOWN

Named = Mapping[str, Tensor]
"""Tensors by their name in a graph."""

Size = tuple[int, int, int]
"""Streams, height and width."""

TRACK = {"fused": "fused", "ratio": "ratio", "previous": "clean", "hidden": "hidden"}
"""Names of the inputs that hold the :class:`Track`, and of the fields of :class:`State` that they stand for.

The output ``clean`` is also the next step's input ``previous``.
"""

MEMORY = {"noise": "noise", "past": "past"}
"""Names of the inputs that hold the :class:`NoiseMemory`, and of the fields of :class:`State` that they stand for."""

SCOUT, FUTURE = ("scout_fused", "scout_ratio"), ("future_bands", "future_ratio")


class Kind(NamedTuple):
    """A graph that a network is exported as."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[DenoiseNetwork, Named], Named]
    """The function to trace, from inputs by name to outputs by name; it may return more than :attr:`outputs`."""


def _state(given: Named) -> State:
    """Assemble the state from a graph's inputs; fields that the graph does not use are empty."""
    nothing = given["noisy"].new_empty(0)
    return State(**{field: given.get(name, nothing) for name, field in (TRACK | MEMORY).items()})


def _after(state: State) -> dict[str, Tensor]:
    return {f"next_{name}": tensor for name, tensor in named_state(state).items()}


def _step(network: DenoiseNetwork, given: Named) -> Named:
    clean, level, state = network.step(given["noisy"], given.get("sigma"), given["boost"], given["keep"], _state(given))
    return {"clean": clean, "level": level, **_after(state)}


def _measure(network: DenoiseNetwork, given: Named) -> Named:
    levels, state = network.measure(given["noisy"], None, given["keep"], _state(given))
    return {"levels": levels, **_after(state)}


def _look(network: DenoiseNetwork, given: Named) -> Named:
    scout = Scout(*(given[name] for name in SCOUT))
    future, following = network.look(given["noisy"], given["levels"], given["boost"], given["keep"], scout)
    return dict(zip((*FUTURE, *(f"next_{name}" for name in SCOUT)), (*future, *following), strict=True))


def _smooth(network: DenoiseNetwork, given: Named) -> Named:
    future = Future(*(given[name] for name in FUTURE))
    clean, level, state = network.smooth(
        given["noisy"], given["levels"], given["boost"], given["keep"], _state(given), future
    )
    return {"clean": clean, "level": level, **_after(state)}


def _core(network: DenoiseNetwork, given: Named) -> Named:
    core = network.core(given["core_input"], given["hidden"])
    return {"residual": core.residual.float(), "next_hidden": core.hidden.float()}


_NEXT_TRACK = ("next_fused", "next_ratio", "next_hidden")
_NEXT_MEMORY = ("next_noise", "next_past")

KINDS: dict[str, Kind] = {
    "step": Kind(
        ("noisy", "boost", "keep", *TRACK, *MEMORY), ("clean", "level", *_NEXT_TRACK, *_NEXT_MEMORY), _step
    ),
    "step-told": Kind(("noisy", "sigma", "boost", "keep", *TRACK), ("clean", "level", *_NEXT_TRACK), _step),
    "measure": Kind(("noisy", "keep", *MEMORY), ("levels", *_NEXT_MEMORY), _measure),
    "look": Kind(
        ("noisy", "levels", "boost", "keep", *SCOUT), (*FUTURE, *(f"next_{name}" for name in SCOUT)), _look
    ),
    "smooth": Kind(
        ("noisy", "levels", "boost", "keep", *TRACK, *FUTURE), ("clean", "level", *_NEXT_TRACK), _smooth
    ),
    "core": Kind(("core_input", "hidden"), ("residual", "next_hidden"), _core),
}  # fmt: skip
"""Graphs by kind. A causal frame takes ``step``, or ``step-told`` if the noise level is given. With lookahead, a
window takes ``measure`` for each frame as it arrives, ``look`` from the last to the first, then ``smooth`` from the
first to the last. These are methods of :class:`DenoiseNetwork`, whose ``sigma_scale`` and ``continues`` the graphs call
``boost`` and ``keep``. ``core`` is the spatial core alone, for a backend that computes the rest otherwise."""


def step_kind(*, blind: bool) -> str:
    """Return the kind of a step, with the noise level estimated or given."""
    return "step" if blind else "step-told"


_LAYOUT = {
    "noisy": (3, 1), "clean": (3, 1), "fused": (3, 1), "previous": (3, 1), "scout_fused": (3, 1),
    "levels": (6, 2), "ratio": (4, 2), "scout_ratio": (4, 2), "future_ratio": (4, 2),
    "future_bands": (12, 2), "past": (12, 2), "hidden": (0, 4), "noise": (13, 8),
    "core_input": (45, 2), "residual": (12, 2),
}  # fmt: skip
"""Channels of each tensor (0: as many as the model has), and the factor by which its resolution is lower than the
picture's."""


def scale_of(name: str) -> int | None:
    """Return the factor by which a tensor's resolution is lower than the picture's; ``None`` if it has none."""
    _, scale = _LAYOUT.get(name.removeprefix("next_"), (0, None))
    return scale


def shape_of(name: str, network: DenoiseNetwork, size: Size) -> tuple[int, ...]:
    """Return the shape of an input or output.

    Args:
        name: A name in :data:`KINDS`.
        network: The network of the graph.
        size: Streams, height and width (multiples of 16).
    """
    n, height, width = size
    if name in ("boost", "sigma"):
        return (n, 2 if name == "boost" else 6)
    scale = scale_of(name)
    if scale is None:
        return (n,)
    channels, _ = _LAYOUT[name.removeprefix("next_")]
    return (n, channels or network.config.hidden, height // scale, width // scale)


def named_state(state: State) -> dict[str, Tensor]:
    """Return a state's tensors by their names as inputs."""
    return {name: getattr(state, field) for name, field in (TRACK | MEMORY).items()}


def next_state(before: State, outputs: Named) -> State:
    """Return the state after a graph's run; what the graph does not change is taken from ``before``."""
    found = dict(outputs)
    if "clean" in found:
        found["next_previous"] = found["clean"]
    changed = {field: f"next_{name}" for name, field in (TRACK | MEMORY).items() if f"next_{name}" in found}
    return State(**(before._asdict() | {field: found[name] for field, name in changed.items()}))


class NetworkGraph(nn.Module):
    """A network as one of :data:`KINDS`: a module from tensors to tensors, in the graph's order."""

    def __init__(self, network: DenoiseNetwork, kind: str) -> None:
        super().__init__()
        self.network = network
        self._inputs, self._outputs, self._run = KINDS[kind]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        found = self._run(self.network, dict(zip(self._inputs, given, strict=True)))
        return tuple(found[name] for name in self._outputs)

    def example(self, size: Size) -> tuple[Tensor, ...]:
        """Return example inputs of a size: a first frame of noise."""
        return tuple(_example(name, shape_of(name, self.network, size)) for name in self._inputs)


def _example(name: str, shape: tuple[int, ...]) -> Tensor:
    if name == "noisy":
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if name == "keep":
        return torch.ones(shape, dtype=torch.bool)
    values = {"boost": 1.0, "sigma": 0.1, "levels": 0.1}
    return torch.full(shape, UNKNOWN if name.endswith("ratio") else values.get(name, 0.0))
