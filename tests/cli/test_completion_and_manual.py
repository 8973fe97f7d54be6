"""What shells complete, and the manual page."""

from __future__ import annotations

import click
import pytest
from click.shell_completion import ShellComplete

import vidnoise
from vidnoise.backends import BACKENDS
from vidnoise.cli import COMMANDS, group, main
from vidnoise.sinks.codecs import CODECS


def completed(args: list[str], typed: str) -> set[str]:
    shell = ShellComplete(group, {}, "vidnoise", "_VIDNOISE_COMPLETE")
    return {item.value for item in shell.get_completions(args, typed)}


@pytest.mark.parametrize(
    ("args", "typed", "found"),
    [(["in.mp4", "--model"], "", set(vidnoise.list_models())), (["in.mp4", "--codec"], "", set(CODECS)),
     (["in.mp4", "--codec"], "he", {"hevc"}), (["in.mp4", "--device"], "c", {"cpu", "cuda"}),
     (["run", "--backend"], "", {"auto", *BACKENDS}), (["in.mp4"], "--stren", {"--strength"}), ([], "mod", {"models"})],
)  # fmt: skip
def test_completion(args: list[str], typed: str, found: set[str]) -> None:
    assert found <= completed(args, typed)
    assert all(value.startswith(typed) for value in completed(args, typed))


def test_the_manual_names_every_command_and_option(capsys) -> None:
    assert main(["--man"]) == 0
    text = capsys.readouterr().out.replace(r"\-", "-")
    assert text.startswith(".TH VIDNOISE 1")
    assert not [line for line in text.splitlines() if line.startswith("'")]
    with group.make_context("vidnoise", [], resilient_parsing=True) as context:
        for name in COMMANDS:
            command = group.get_command(context, name)
            assert command is not None
            assert f"VIDNOISE {name.upper()}" in text
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert all(flag in text for flag in (*option.opts, *option.secondary_opts)), option.opts


def test_an_example_file_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cameras", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\n  [camera.door]\n  input = " in text
    assert "\\b" not in text
    assert main(["--man"]) == 0
    assert "\n    [camera.door]\n    input = " in capsys.readouterr().out
