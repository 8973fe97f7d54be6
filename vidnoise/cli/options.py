"""Command-line options of denoising, made from the fields in :mod:`vidnoise.options`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field
from typing import Any, TypeVar

import click

from vidnoise.checked import Checked, about, named_fields
from vidnoise.cli.grouped import GroupedOption
from vidnoise.frame.clock import parse_clock
from vidnoise.option_values import FOREVER
from vidnoise.options import (
    DenoiseOptions,
    DeviceOptions,
    FileOptions,
    ImageOptions,
    SinkOptions,
    SourceOptions,
    ThreadOptions,
)

Command = TypeVar("Command", bound=Callable[..., Any])


class Seconds(click.ParamType):
    """A time such as ``90``, ``1:30`` or ``0:01:30.5``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        seconds = parse_clock(value)
        if seconds is None:
            self.fail(f"{value!r} is no time; write seconds (90.5), or [hours:]minutes:seconds (1:30.5)", param, ctx)
        return seconds


class Attempts(click.ParamType):
    """A number of attempts, or ``forever`` (-1)."""

    name = "N|forever"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "forever":
            return FOREVER
        if not str(value).isdigit():
            self.fail(f"{value!r} is neither a number of attempts nor forever", param, ctx)
        return int(value)


class NumberOrWord(click.ParamType):
    """An integer, or a word that the option itself validates."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return int(value) if str(value).isdigit() else value


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        name, _, value = text.partition("=")
        if not name or not value:
            raise click.BadParameter("must be NAME=VALUE", ctx, param)  # the value may be a secret, so it is not shown
        pairs[name] = value
    return pairs


_TYPES: dict[str, Any] = {
    "float": click.FLOAT, "SigmaLike": click.FLOAT, "int": click.INT, "Seconds": Seconds(), "Attempts": Attempts(),
    "int | str": NumberOrWord(),
}  # fmt: skip
"""Click's type for the type of a field; others are text."""

_LEADING = ("overwrite", "resume", "segment_seconds")
"""Options listed first in the help: what a run does with its output."""

_KINDS: tuple[type[Checked], ...] = (
    ImageOptions, DenoiseOptions, SourceOptions, FileOptions, SinkOptions, DeviceOptions, ThreadOptions,
)  # fmt: skip
"""Kinds of options in the order of the help."""


def file_options(command: Command) -> Command:
    """Add all options of :func:`vidnoise.denoise_file` to a command, under the same names."""
    for name in reversed(_names()):
        command = _click_option(named_fields(FileOptions)[name])(command)
    return command


def file_option(name: str, **changed: Any) -> Callable[[Command], Command]:
    """Add one of the options of :func:`file_options` to a command.

    Args:
        name: Name of the option.
        changed: Arguments of ``click.option`` that differ, such as a narrower ``help``.
    """
    return _click_option(named_fields(FileOptions)[name], **changed)


def device_option(command: Command) -> Command:
    """Add ``--device`` to a command that takes a single device."""
    return file_option("device", help="auto, cpu, cuda, cuda:N or mps.  [default: auto]")(command)


def limits(name: str) -> click.ParamType:
    """Return the type of numbers within the range of the option ``name``."""
    field = named_fields(FileOptions)[name]
    make: Any = click.IntRange if str(field.type).startswith("int") else click.FloatRange
    return make(about(field).least, about(field).most)


def choices_text(name: str) -> str:
    """Return the values of the option ``name`` in words, as in ``a, b or c``."""
    return about(named_fields(FileOptions)[name]).range_text


def flag(name: str) -> str:
    """Return the command-line spelling of the option ``name``, when it takes a value."""
    if name == "model":
        return "--model"
    spellings = (about(named_fields(FileOptions)[name]).flag or _plain(name)).split("/")
    return next((each for each in spellings if each.startswith("--")), spellings[0])


def spelled(text: str, options: tuple[str, ...] = ()) -> str:
    """Rewrite a message of the library with options as the command line spells them.

    Args:
        text: A message that names options as Python does, as in ``use device="cpu"``.
        options: Names of options that the message mentions without a value.
    """
    text = _ADVICE.sub(_as_flag, text)
    for name in sorted(set(options) & {*named_fields(FileOptions)}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){name}(?![\w/=-]|\.\w)", flag(name), text, count=1)
    return text


def _names() -> list[str]:
    """Return the names of all options in the order of the help."""
    found = dict.fromkeys(_LEADING)
    for kind in _KINDS:
        found |= dict.fromkeys(name for name in kind.__annotations__ if name in named_fields(kind))
    return list(found)


def _plain(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _click_option(field: Field[Any], **changed: Any) -> Callable[[Command], Command]:
    """Make the click option for a field, with its name, type, limits and help, except for what is ``changed``."""
    known, kind = about(field), str(field.type).removesuffix(" | None")

    def make(*declared: str, **given: Any) -> Callable[[Command], Command]:
        return click.option(*declared, cls=GroupedOption, group=known.group, **{**given, **changed})

    declared = [*_declared(known.flag or _plain(field.name)), field.name]
    help = known.help
    is_shown = field.default not in (None, "", (), MISSING) and not isinstance(field.default, bool)
    if is_shown and "[default" not in help:
        help = f"{help}  [default: {field.default}]"
    if kind == "bool":
        if field.default is True:  # --no-...: the flag negates it
            return make(*declared, is_flag=True, callback=lambda _, __, given: not given, help=help)
        if "/" in known.flag:
            return make(*declared, default=field.default, help=help)
        return make(*declared, is_flag=True, help=help)
    if kind.startswith("dict["):
        return make(*declared, metavar=known.metavar, multiple=True, callback=_pairs, help=help)
    if kind.startswith("Sequence["):
        return make(*declared, metavar=known.metavar, multiple=True, help=help)
    is_choice = bool(known.choices) and known.metavar is None
    type = click.Choice(known.choices) if is_choice else _TYPES.get(kind, click.STRING)
    return make(*declared, metavar=known.metavar, type=type, default=field.default, help=help)


def _declared(flags: str) -> Iterator[str]:
    """Yield Click's declarations: a switch (yes/no) stays together, two spellings of an option are separated."""
    yes, slash, no = flags.partition("/")
    is_switch = slash and yes.startswith("--") == no.startswith("--")
    yield from [flags] if is_switch or not slash else [yes, no]


def _as_flag(found: re.Match[str]) -> str:
    name, value = flag(found[1]), found[2]
    if value.startswith("{"):
        return " ".join(f"{name} {key}={text}" for key, text in ast.literal_eval(value).items())
    if value == "True":
        return name
    value = value.strip('"')
    return f"{name}={value}" if value.startswith("-") else f"{name} {value}"


_ADVICE = re.compile(
    rf"(?<![\w?&./-])({'|'.join([*named_fields(FileOptions), 'model'])})=(\"[^\"]*\"|True|[A-Z]+\b|{{[^{{}}]*}})"
)
"""An option with a value in a message of the library: in quotes, in capitals for a placeholder, True, or as pairs."""
