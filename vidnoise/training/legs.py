"""Training history of a model, as a record of legs in its card.

Training proceeds in legs, runs that each begin from the weights of another. A leg is
``{"name": "standard", "steps": 12000, "hours": 1.5, "device": "cpu", "units": 2}``: wall-clock hours of training,
without validation, and the number of threads or GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vidnoise.weights import ModelCard

Leg = dict[str, Any]


def legs_of(card: ModelCard) -> list[Leg]:
    """Return the legs of a model, the earliest first."""
    record = card.training
    if "legs" in record:
        return list(record["legs"])
    if "hours" not in record:
        return []
    # A card that predates legs: trained on one thread.
    steps = int(record.get("steps", 0))
    return [{"name": card.name, "steps": steps, "hours": record["hours"], "device": "cpu", "units": 1}]


def joined(histories: Iterable[list[Leg]]) -> list[Leg]:
    """Merge the legs of several models whose parts were combined; legs that they share count once."""
    legs: list[Leg] = []
    for history in histories:
        legs += [leg for leg in history if leg not in legs]
    return legs


def record(legs: list[Leg]) -> dict[str, Any]:
    """Summarise legs for a card.

    Returns:
        ``steps`` and ``hours`` of all legs, ``core_hours`` of those on CPUs (hours times threads), ``gpu_hours`` of
        those on GPUs, and the ``legs`` themselves.
    """

    def hours(on_cpu: bool) -> float:
        return round(sum(leg["hours"] * leg["units"] for leg in legs if (leg["device"] == "cpu") == on_cpu), 2)

    return {
        "steps": sum(leg["steps"] for leg in legs),
        "hours": round(sum(leg["hours"] for leg in legs), 2),
        "core_hours": hours(on_cpu=True),
        "gpu_hours": hours(on_cpu=False),
        "legs": legs,
    }
