"""Options from environment variables and from a configuration file, where the command line does not give them."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import click
import platformdirs
from click.core import ParameterSource

from vidnoise.cache import user_folder
from vidnoise.cli.grouped import GroupedCommand
from vidnoise.errors import BackendError, DeviceError, ModelError, UsageError, VidnoiseError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

PREFIX = "VIDNOISE_"
"""Prefix of the environment variables."""

OF_ONE_RUN = frozenset(
    {"config", "input", "output", "tee", "mask", "grain-table", "json", "stats", "list-devices", "help"}
)
"""Options that a configuration file cannot set: what one run reads, writes or shows."""

_WITHOUT_VARIABLE = frozenset({"input", "list-devices", "help"})

_CONCERNING = {ModelError: "model", BackendError: "backend", DeviceError: "device"}
"""Errors that name no option, with the one that they are about. The first match counts."""

_FILE = "vidnoise.configuration"
"""Key of the configuration file's path in Click's context."""


def setting_name(option: click.Parameter) -> str:
    """Return the name of an option in a configuration file: its flag without hyphens before it."""
    return next((text[2:] for text in option.opts if text.startswith("--")), option.name or "")


def default_path() -> Path | None:
    """Return where the configuration file is looked for, existing or not; None without a home directory."""
    folder = user_folder(platformdirs.user_config_path)
    return None if folder is None else folder / "config.toml"


def load_configuration(ctx: click.Context, _: click.Parameter, given: str | None) -> None:
    """Set the defaults of a command from a configuration file: a callback of the option ``--config``.

    Raises:
        UsageError: The file cannot be read, or a key or the kind of its value is wrong.
    """
    if ctx.resilient_parsing or _FILE in ctx.meta:  # has its defaults already
        return
    path = default_path() if given is None else Path(given)
    if path is None or (given is None and not os.path.exists(path)):
        return
    ctx.default_map = defaults_of(ctx.command, read_toml(path), os.fspath(path), without=OF_ONE_RUN)
    ctx.meta[_FILE] = path


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: The file does not exist, cannot be read, or is not valid.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as ex:
        raise UsageError(f"{path}: no such configuration file") from ex
    except OSError as ex:
        raise UsageError(f"{path}: the configuration cannot be read: {ex.strerror or ex}") from ex
    except (ValueError, RecursionError) as ex:
        raise UsageError(f"{path}: is no valid TOML: {ex}") from ex


def defaults_of(command: click.Command, values: Mapping[str, Any], place: str, *, without: Set[str]) -> dict[str, Any]:
    """Return the values of a table as defaults of the options of a command.

    Args:
        command: The command.
        values: The table, with keys as in :func:`setting_name`, or with underscores for hyphens.
        place: Where the table is, for error messages.
        without: Options that such a table cannot set.

    Raises:
        UsageError: A key, or the kind of its value, is wrong.
    """
    options = {setting_name(each): each for each in command.params if isinstance(each, click.Option)}
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("_", "-")
        if name in without:
            raise UsageError(f"{place}: {key} belongs to a single run, and cannot be set in a file")
        if name not in options:
            near = difflib.get_close_matches(name, options.keys() - without, n=1)
            raise UsageError(f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        defaults[options[name].name or ""] = _value(options[name], value, f"{place}: {key}")
    return defaults


def parse_with_defaults(
    command: click.Command, args: list[str], defaults: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Parse arguments for a command whose defaults come from the file ``path``; returns its parameters.

    Raises:
        UsageError: An argument or a default has no valid value.
    """
    above = click.Context(command)
    above.meta[_FILE] = path
    try:
        return command.make_context(command.name, args, parent=above, default_map=defaults).params
    except click.UsageError as ex:
        raise UsageError(ex.format_message()) from ex


def _value(option: click.Option, value: Any, place: str) -> Any:
    """Return a value as Click takes it."""
    if option.multiple and option.callback is None:
        if isinstance(value, list):
            return [str(each) for each in value]
        raise UsageError(f'{place} must be a list, as in ["a.mkv", "b.mkv"]')
    if option.multiple:
        if isinstance(value, dict):
            return [f"{name}={each}" for name, each in value.items()]
        raise UsageError(f"{place} must be a table, as in {{ name = value }}")
    if option.is_flag and not isinstance(value, bool):
        raise UsageError(f"{place} must be true or false, got {value!r}")
    if not option.is_flag and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        raise UsageError(f"{place} must be a number or text, got {_toml(value)}")
    return value


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


class ConfiguredCommand(GroupedCommand):
    """A command whose options can be set by environment variables, too, and whose errors say where a value was set."""

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **about)
        for option in self.params:
            name = setting_name(option)
            if isinstance(option, click.Option) and name not in _WITHOUT_VARIABLE:
                option.envvar = PREFIX + name.replace("-", "_").upper()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as ex:
            if ex.param is not None:
                ex.param_hint = _origin(ctx, ex.param) or ex.param_hint
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VidnoiseError as ex:
            about = ex.options or [name for kind, name in _CONCERNING.items() if isinstance(ex, kind)][:1]
            origins = [_origin(ctx, option) for option in self.params if option.name in about]
            if any(origins):
                ex.args = (f"{ex} (set by {' and '.join(filter(None, origins))})",)
            raise


def _origin(ctx: click.Context, option: click.Parameter) -> str | None:
    """Describe where the value of an option was set; None if it is the default or on the command line."""
    source = ctx.get_parameter_source(option.name or "")
    if source is ParameterSource.ENVIRONMENT:
        return str(option.envvar)
    if source is ParameterSource.DEFAULT_MAP:
        return f"{setting_name(option)} in {os.fspath(ctx.meta[_FILE])}"
    return None
