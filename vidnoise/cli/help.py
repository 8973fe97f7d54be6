"""``vidnoise help [COMMAND]``: the same as ``--help``."""

from __future__ import annotations

import difflib

import click


@click.command("help")
@click.argument("name", metavar="[COMMAND]", required=False)
@click.pass_context
def show_help(context: click.Context, name: str | None) -> None:
    """Show the help of vidnoise, or of COMMAND."""
    above = context.parent
    assert above is not None
    group = above.command
    assert isinstance(group, click.Group)
    if name is None:
        click.echo(above.get_help())
        return
    command = group.get_command(above, name)
    if command is None:
        names = group.list_commands(above)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise click.UsageError(f"there is no command {name!r}; {hint}")
    click.echo(command.get_help(click.Context(command, info_name=name, parent=above)))
