"""Attributes that are assigned once."""

from __future__ import annotations


class AssignedOnce:
    """Base class that makes public slots read-only once they are assigned, as another value would have no effect.

    Raises:
        AttributeError: A public slot is assigned again, or there is no slot of the name.
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name in type(self).__slots__ and hasattr(self, name):
            kind = type(self).__name__
            raise AttributeError(f"the {name} of a {kind} cannot be changed; make another {kind}")
        object.__setattr__(self, name, value)
