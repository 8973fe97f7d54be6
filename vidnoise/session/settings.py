"""Options of a session that may be changed between two frames."""

from __future__ import annotations

from typing import Any

from vidnoise.checked import about, named_fields
from vidnoise.options import DenoiseOptions


def setting(name: str) -> Any:
    """Make a property for the option ``name``, which is kept in the slot ``_name`` and checked whenever it is set."""
    known, slot = about(named_fields(DenoiseOptions)[name]), f"_{name}"

    def change(session: object, value: Any) -> None:
        known.check(name, value)
        setattr(session, slot, value)

    return property(lambda session: getattr(session, slot), change, doc=f"{known.doc} May be set between two frames.")
