"""Notices to the user about what is lost or changed on the way from input to output."""

from __future__ import annotations

from typing import Protocol


class Notify(Protocol):
    """A function that informs the user, such as ``logging.Logger.log``."""

    def __call__(self, level: int, message: str, /, *args: object) -> None:
        """Show ``message % args``; ``level`` is one of :mod:`logging`'s."""
        ...


def silent(level: int, message: str, /, *args: object) -> None:
    """Discard a notice: for reopened inputs and outputs, whose notices were shown the first time."""
