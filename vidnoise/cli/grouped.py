"""Options that appear in the help under headings."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from vidnoise.cli.completion import COMPLETED, complete
from vidnoise.option_groups import ADVANCED, GROUPS


class GroupedOption(click.Option):
    """A Click option with the heading under which the help lists it.

    Args:
        group: One of :data:`vidnoise.option_groups.GROUPS`.
    """

    def __init__(self, *declared: Any, group: str = ADVANCED, **about: Any) -> None:
        super().__init__(*declared, **about)
        self.group = group

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return complete(ctx, self, incomplete) if self.name in COMPLETED else super().shell_complete(ctx, incomplete)


class GroupedCommand(click.Command):
    """A command whose help lists its options by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records[getattr(parameter, "group", ADVANCED)].append(record)
        for group, found in records.items():
            if found:
                with formatter.section(group):
                    formatter.write_dl(found)
