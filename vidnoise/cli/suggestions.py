"""Suggestions for a command line without an output."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from vidnoise.stills.names import is_glob

_MAX_NAMES = 3
"""Maximum number of inputs that an example repeats."""


def missing_output(named: Sequence[str], loose: Sequence[str]) -> str:
    """Describe how to name the output of a command line that names none.

    Args:
        named: Inputs given by ``-i``.
        loose: Names given without an option. The last one is taken for the output if it cannot be an input: because
            there is no such file, or because ``-i`` has named the input, as in FFmpeg's command lines.
    """
    sources = [*named, *loose]
    *inputs, last = sources
    if loose and inputs and (not os.access(last, os.R_OK) or (named and len(loose) == 1)):
        return f"no output given; did you mean: {_command_line(inputs, last)}?"
    folders = len(sources) > 1 or os.path.isdir(last)
    return f"no output given; for example: {_command_line(sources, 'clean/' if folders else suggest_name(last))}"


def suggest_name(source: str) -> str:
    """Suggest a name for the output of ``source``, which need not be a file."""
    path = Path(source)
    if is_glob(source):
        return f"clean/%04d{path.suffix}"
    if source == "-" or "://" in source or not path.suffix:
        return "clean.mkv"
    return str(path.with_name(f"{path.stem}-clean{path.suffix}"))


def _command_line(inputs: Sequence[str], output: str) -> str:
    shown = [shlex.quote(name) for name in inputs[:_MAX_NAMES]] + (["..."] if len(inputs) > _MAX_NAMES else [])
    return f"vidnoise {' '.join(shown)} -o {shlex.quote(output)}"
