"""Options of ``vidnoise run`` for pipes, live inputs and live outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Attempts(click.ParamType):
    """A number, or ``forever`` (-1)."""

    name = "N|forever"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "forever":
            return -1
        if not str(value).isdigit():
            self.fail(f"{value!r} is neither a number of attempts nor forever", param, ctx)
        return int(value)


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        name, _, value = text.partition("=")
        if not name or not value:
            raise click.BadParameter(f"must be NAME=VALUE, got {text!r}", ctx, param)
        pairs[name] = value
    return pairs


# fmt: off
_OPTIONS = (
    click.option("-f", "--format", metavar="NAME", help="Container: y4m, raw, mkv, ts, nut ...  [default: extension]"),
    click.option("--tee", metavar="OUTPUT", multiple=True, help="One more output, as -o takes it; may be repeated."),
    click.option("--grow", is_flag=True, help="Write under the final name at once, for readers who follow."),
    click.option(
        "--hwaccel", type=click.Choice(["auto", "none", "cuda"]), default="none", show_default=True,
        help="What decodes: the CPU (none), an NVIDIA GPU (cuda), or the network's GPU if it can (auto).",
    ),
    click.option("--input-format", metavar="NAME", help="Container of the input.  [default: found by itself]"),
    click.option("--raw-size", metavar="WxH", help="The input has no header: its size, as in 1920x1080."),
    click.option("--raw-format", metavar="NAME", help="... and its pixel format, as in yuv420p10le."),
    click.option("--raw-rate", metavar="FPS", help="... and its frame rate, as in 30000/1001.  [default: 25]"),
    click.option("--live/--not-live", default=None, help="The input does not wait for us.  [default: by address]"),
    click.option(
        "--max-latency", metavar="MS", type=float, default=1000, show_default=True,
        help="Live: drop the oldest frames rather than lag more.",
    ),
    click.option(
        "--connect-timeout", metavar="S", type=float, default=15, show_default=True, help="Wait so long for an answer."
    ),
    click.option("--read-timeout", metavar="S", type=float, help="... and for data.  [default: 10; URLs of files 30]"),
    click.option(
        "--reconnect", type=Attempts(), default=5, show_default=True,
        help="Live: attempts in a row after a loss, or forever.",
    ),
    click.option("--rtsp-transport", type=click.Choice(["tcp", "udp"]), help="How RTSP sends.  [default: tcp]"),
    click.option(
        "--input-option", "input_options", metavar="NAME=VALUE", multiple=True, callback=_pairs,
        help="Option of FFmpeg's reader, as in framerate=30; may be repeated.",
    ),
    click.option(
        "--interlaced", type=click.Choice(["auto", "tff", "bff", "no"]), default="auto", show_default=True,
        help="Pictures are two fields: by the input's marks, or you know better.",
    ),
    click.option(
        "--size-change", type=click.Choice(["stop", "split", "scale"]),
        help="Where the picture changes its size: end there with an error, go on in another file (NAME-2), or scale to "
        "the first size.  [default: files stop; live inputs split, or scale where an output is no file]",
    ),
    click.option(
        "--tracks", metavar="LIST",
        help="Only these: v:1 (second video), a:eng (English sound), -s (no subtitles); commas between.",
    ),
    click.option("--stats", "stats_path", metavar="FILE", help="Write statistics every second as lines of JSON."),
)
# fmt: on


def stream_options(command: Command) -> Command:
    """Adds the options; their values arrive under the names that :func:`vidnoise.denoise_file` has for them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
