"""The help: options under headings, what matters most first."""

from __future__ import annotations

import re

import click

from vidnoise.checked import about, named_fields
from vidnoise.cli import group
from vidnoise.cli.grouped import GroupedOption
from vidnoise.cli.run import run
from vidnoise.option_groups import ADVANCED, GROUPS, MAIN
from vidnoise.options import FileOptions


def sections() -> dict[str, list[str]]:
    """Return the flags by which each option is listed in ``vidnoise --help``, by heading."""
    with group.make_context("vidnoise", [], resilient_parsing=True) as context:
        text = group.get_help(context)
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"(\w.*):", line):
            found[heading[1]] = []
        elif option := re.match(r"  (-.*?)(?:  |$)", line):
            found[list(found)[-1]].append(option[1])
    return found


def test_the_groups_are_the_headings_in_their_order() -> None:
    assert [heading for heading in sections() if heading != "Commands"] == list(GROUPS)


def test_ten_options_come_first() -> None:
    first = [re.split(r"[ ,/]", text)[0] for text in sections()[MAIN]]
    assert set(first) == {
        "-o", "--model", "-y", "--strength", "--grain", "--start", "--duration", "--codec", "--crf", "--device"
    }  # fmt: skip


def test_every_option_is_listed_once_in_its_group() -> None:
    listed = [flag for flags in sections().values() for flag in flags]
    assert len(listed) == len(set(listed)) == len([p for p in run.params if isinstance(p, click.Option)]) + 1  # --help
    fields = named_fields(FileOptions)
    for parameter in run.params:
        if parameter.name in fields:
            assert isinstance(parameter, GroupedOption)
            assert parameter.group == about(fields[parameter.name]).group


def test_few_options_are_advanced() -> None:
    """Those that name no group are: a new option is not meant to end there unseen."""
    advanced = [name for name, field in named_fields(FileOptions).items() if about(field).group == ADVANCED]
    assert set(advanced) == {"input_options", "max_pixels"}
