"""The network that a run starts from: new, from one model, or put together from several."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vidnoise.errors import UsageError
from vidnoise.model import DenoiseNetwork, ModelConfig
from vidnoise.training.config import TrainConfig
from vidnoise.training.grow import grow, side_by_side
from vidnoise.training.legs import Leg, joined, legs_of
from vidnoise.weights import load_model


class Start(NamedTuple):
    """The start of a run."""

    network: DenoiseNetwork
    earlier: list[Leg]
    """Legs of training that its weights have behind them."""


def starting_network(config: TrainConfig, build: Callable[[ModelConfig], DenoiseNetwork]) -> Start:
    """Return a network with new weights, or with those of one or several other models, as configured.

    Modules that are smaller in their model are grown; those of several models are put side by side.

    Args:
        config: Names the models.
        build: Makes a network of given sizes.

    Raises:
        UsageError: A module does not fit.
        UnknownModelError, WeightsError: A model cannot be loaded.
    """
    if isinstance(config.initial, str):
        trained = load_model(config.initial)
        network = build(trained.network.config)
        network.load_state_dict(trained.network.state_dict())
        return Start(network, legs_of(trained.card))
    network, earlier = build(config.model_config()), []
    for module, names in (config.initial or {}).items():
        models = [load_model(name) for name in ([names] if isinstance(names, str) else names)]
        earlier = joined([earlier, *(legs_of(model.card) for model in models)])
        try:
            parts = [model.network.get_submodule(module).state_dict() for model in models]
            if len(parts) == 1:
                grow(network.get_submodule(module), parts[0])
            else:
                side_by_side(network.get_submodule(module), parts)
        except (AttributeError, ValueError) as ex:
            raise UsageError(f"initial: {module} of {names!r} does not fit: {ex}") from ex
    return Start(network, earlier)
