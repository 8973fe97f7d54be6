"""Options of a run that say how strongly, where and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--luma", type=float, default=1.0, show_default=True, help="Strength for brightness alone, 0 to 2, times it."
    ),
    click.option(
        "--chroma", type=float, default=1.0, show_default=True, help="Strength for colour alone, 0 to 2, times it."
    ),
    click.option("--zones", metavar="LIST", help='Strengths by time, in seconds: "0-10:0.5,60-:0".'),
    click.option("--mask", metavar="FILE", help="Picture or video: white is denoised fully, black not at all."),
    click.option("--grain", type=float, default=0.0, help="Fresh grain like the noise removed; 1 is as much."),
    click.option("--grain-seed", type=int, default=0, help="Which grain.  [default: 0]"),
    click.option("--grain-table", metavar="FILE", help="Write an AV1 film-grain table of the noise removed."),
    click.option("--preview", type=click.Choice(["split"]), help="Leave the left half as it is, to look at."),
)


def strength_options(command: Command) -> Command:
    """Adds the options; their values arrive under the names that :func:`vidnoise.denoise_file` has for them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
