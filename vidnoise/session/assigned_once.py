"""Attributes that are assigned once."""

from __future__ import annotations


class AssignedOnce:
    """Base of classes whose public slots keep what ``__init__`` gave them: another value would only seem to be taken.

    Raises:
        AttributeError: a public slot is assigned again; of an unknown name, as for all classes with slots.
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name in type(self).__slots__ and hasattr(self, name):
            kind = type(self).__name__
            raise AttributeError(f"the {name} of a {kind} cannot be changed; make another {kind}")
        object.__setattr__(self, name, value)
