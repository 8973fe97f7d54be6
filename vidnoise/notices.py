"""Notices to the user about one input or output: what is lost or changed on the way."""

from __future__ import annotations

from typing import Protocol


class Notify(Protocol):
    """Tells the user; ``logging.Logger.log`` is one."""

    def __call__(self, level: int, message: str, /, *args: object) -> None: ...


def silent(level: int, message: str, /, *args: object) -> None:
    """Tells nobody: for what is opened once more, when all there is to say was said the first time."""
