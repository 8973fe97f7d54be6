"""Options of ``vidnoise run`` for pipes, live inputs and live outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-f", "--format", metavar="NAME", help="Container: y4m, raw, mkv, ts, nut ...  [default: extension]"),
    click.option("--input-format", metavar="NAME", help="Container of the input.  [default: found by itself]"),
    click.option("--raw-size", metavar="WxH", help="The input has no header: its size, as in 1920x1080."),
    click.option("--raw-format", metavar="NAME", help="... and its pixel format, as in yuv420p10le."),
    click.option("--raw-rate", metavar="FPS", help="... and its frame rate, as in 30000/1001.  [default: 25]"),
)


def stream_options(command: Command) -> Command:
    """Adds the options; their values arrive under the names that :func:`vidnoise.denoise_file` has for them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
