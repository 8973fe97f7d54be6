"""The command line. Each subcommand is a module here and a line in :data:`COMMANDS`."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from vidnoise.allocator import keep_freed_memory
from vidnoise.cli.options import spelled
from vidnoise.errors import ReaderClosedError, VidnoiseError
from vidnoise.text import safe

COMMANDS: dict[str, str] = {
    "run": "vidnoise.cli.run:run",
    "cameras": "vidnoise.cli.cameras:cameras",
    "info": "vidnoise.cli.info:info",
    "compare": "vidnoise.cli.compare:compare",
    "models": "vidnoise.cli.models:models",
    "doctor": "vidnoise.cli.doctor:doctor",
    "bench": "vidnoise.cli.bench:bench",
    "evaluate": "vidnoise.cli.evaluate:evaluate",
    "export": "vidnoise.cli.export:export",
    "train": "vidnoise.cli.train:train",
    "help": "vidnoise.cli.help:show_help",
}
"""Subcommand to ``module:command``, imported on use."""

DEFAULT = "run"
"""The default subcommand: ``vidnoise FILE`` is ``vidnoise run FILE``."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, by the convention of shells: 128 + SIGINT."""


class Commands(click.Group):
    """A command group that imports commands on demand, and passes other arguments to the default command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in COMMANDS and args[0] not in own:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.7)
            if near and not os.path.splitext(args[0])[1] and not os.path.exists(args[0]):
                raise click.UsageError(f"there is no file or command {args[0]!r}; did you mean {near[0]!r}?", ctx)
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("vidnoise", "INPUT -o OUTPUT [OPTIONS]")
        formatter.write_usage("vidnoise", "COMMAND ...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        command = self.get_command(ctx, DEFAULT)
        assert command is not None
        command.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vidnoise import __version__

        click.echo(f"vidnoise {__version__}")
        ctx.exit()


def _print_manual(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vidnoise.cli.manual import manual

        click.echo(manual(ctx))
        ctx.exit()


@click.group(cls=Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Version.")
@click.option("--man", is_flag=True, is_eager=True, expose_value=False, callback=_print_manual, help="Manual page.")
def group() -> None:
    """Remove noise from videos and pictures. Audio, subtitles, chapters, timestamps, colour tags and EXIF are kept.

    Examples: vidnoise night.mp4 -o clean.mp4, vidnoise photo.jpg -o clean.png
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 success, 1 failure, 2 usage, 3 input, 4 output, 5 format, 6 model, 7 device, 130 interrupted,
    141 the reader of the output has closed it.
    """
    keep_freed_memory()
    _open_standard_files()
    try:
        return _run(args)
    finally:
        _flush_stderr()


def _run(args: Sequence[str] | None) -> int:
    try:
        result: Any = group.main(args, prog_name="vidnoise", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as ex:
        _print_error(ex.format_message())
        return ex.exit_code
    except click.UsageError as ex:
        return _fail(f"{ex.format_message()} (vidnoise --help shows the options)", ex.exit_code)
    except click.ClickException as ex:
        return _fail(ex.format_message(), ex.exit_code)
    except ReaderClosedError as ex:
        return ex.exit_code
    except VidnoiseError as ex:
        return _fail(spelled(str(ex), ex.options), ex.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`vidnoise models | head -1`), which is not a failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as ex:  # a bug: still one line, and the traceback with -vv
        return _fail(f"internal error: {type(ex).__name__}: {ex} (please report it, with the output of -vv)", 1)


def _fail(message: str, code: int) -> int:
    _print_error("vidnoise: " + safe(" ".join(message.split())))
    return code


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error is closed
        click.echo(text, err=True)


def _flush_stderr() -> None:
    """Flush standard error, since Python would exit with a status of its own if that failed later."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _open_standard_files() -> None:
    """Open missing standard streams, so that no other file gets their numbers and receives messages."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
