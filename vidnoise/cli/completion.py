"""Values that shells complete, by option; see docs/CONFIGURATION.md for how to turn completion on."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def complete(ctx: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the known values of an option that begin with ``typed``."""
    return [CompletionItem(value) for value in _values(option.name or "") if value.startswith(typed)]


COMPLETED = frozenset({"model", "codec", "device", "backend"})
"""Options whose values are completed here; Click completes those that are one of a few words itself."""


def _values(name: str) -> Iterable[str]:
    # Imported late: the command line must start quickly.
    if name == "model":
        from vidnoise.weights import list_models

        return list_models()
    if name == "codec":
        from vidnoise.sinks.codecs import ALIASES, CODECS

        return [*CODECS, *ALIASES]
    if name == "backend":
        from vidnoise.backends import BACKENDS

        return ["auto", *BACKENDS]
    return ["auto", "cpu", "cuda", "mps"]
