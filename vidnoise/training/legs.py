"""How long a model has been trained in all: a record of its legs, kept in its card.

Training goes in legs, each a run that begins from the weights of another. A leg is
``{"name": "standard", "steps": 12000, "hours": 1.5, "device": "cpu", "units": 2}``: hours of training by the clock,
without validation, on so many threads or GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vidnoise.weights import ModelCard

Leg = dict[str, Any]


def legs_of(card: ModelCard) -> list[Leg]:
    """The legs behind a model, the earliest first."""
    record = card.training
    if "legs" in record:
        return list(record["legs"])
    if "hours" not in record:
        return []
    # A card from before there were legs: trained on one thread.
    steps = int(record.get("steps", 0))
    return [{"name": card.name, "steps": steps, "hours": record["hours"], "device": "cpu", "units": 1}]


def joined(histories: Iterable[list[Leg]]) -> list[Leg]:
    """The legs behind a model whose parts come from several; those that these have in common count once."""
    legs: list[Leg] = []
    for history in histories:
        legs += [leg for leg in history if leg not in legs]
    return legs


def record(legs: list[Leg]) -> dict[str, Any]:
    """What a card says of its legs: ``steps`` and ``hours`` of all, ``core_hours`` of those on CPUs (hours times
    threads), ``gpu_hours`` of those on GPUs, and the ``legs``."""

    def hours(on_cpu: bool) -> float:
        return round(sum(leg["hours"] * leg["units"] for leg in legs if (leg["device"] == "cpu") == on_cpu), 2)

    return {
        "steps": sum(leg["steps"] for leg in legs),
        "hours": round(sum(leg["hours"] for leg in legs), 2),
        "core_hours": hours(on_cpu=True),
        "gpu_hours": hours(on_cpu=False),
        "legs": legs,
    }
