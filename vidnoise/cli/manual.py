"""``vidnoise --man``: the help as a manual page in the man macros of roff."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vidnoise import __version__


def manual(ctx: click.Context) -> str:
    """Return the manual page of the command group of ``ctx``."""
    return "\n".join(_lines(ctx))


def _lines(ctx: click.Context) -> Iterator[str]:
    group = ctx.command
    assert isinstance(group, click.Group)
    yield f'.TH VIDNOISE 1 "" "vidnoise {__version__}"'
    yield from (".SH NAME", r"vidnoise \- remove noise from video")
    yield from (".SH SYNOPSIS", r".B vidnoise", r"INPUT \-o OUTPUT [OPTIONS]", ".br", ".B vidnoise", "COMMAND ...")
    yield from (".SH DESCRIPTION", *_paragraphs(group.help or ""))
    yield from (".SH OPTIONS", *_options(group, ctx))
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=ctx)
        yield f'.SH "VIDNOISE {_escaped(name.upper())}"'
        yield _escaped(" ".join(["vidnoise", name, *command.collect_usage_pieces(below)]))
        yield from (".PP", *_paragraphs(command.help or ""))
        yield from _options(command, below)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
        if record is not None:
            yield from (".TP", rf"\fB{_escaped(record[0])}\fR", _escaped(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.lstrip(" ").startswith("\b"):  # click's mark of lines that stay as they are
            lines = paragraph.lstrip(" ").removeprefix("\b").strip("\n").split("\n")
            yield from (".nf", *map(_escaped, lines), ".fi", ".PP")
        else:
            yield from (_escaped(" ".join(paragraph.split())), ".PP")


def _escaped(text: str) -> str:
    """Escape what roff would take for a command."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text
