"""What a newcomer types, and what vidnoise answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidnoise.cli import main
from vidnoise.cli.suggestions import missing_output, suggest_name

QUICK = ("--model", "fast", "--threads", "1", "--device", "cpu")


def error(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Return the only line on standard error of a command line that is refused."""
    capsys.readouterr()
    assert main([str(a) for a in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_two_names_without_an_option_are_input_and_output(clips, tmp_path: Path, capsys) -> None:
    clip, out = clips("cfr"), tmp_path / "out.mp4"
    meant = f"did you mean: vidnoise {clip} -o {out}?"
    assert meant in error(capsys, clip, out)
    assert meant in error(capsys, "-i", clip, out)
    assert not out.exists()
    out.touch()
    assert meant in error(capsys, "-i", clip, out)


def test_names_that_all_exist_are_inputs(clips, capsys) -> None:
    line = error(capsys, clips("cfr"), clips("vfr"))
    assert "-o clean/" in line
    assert "did you mean" not in line


def test_no_input(capsys) -> None:
    assert "no input given" in error(capsys, "-o", "out.mp4")


def test_names_are_quoted_for_the_shell(tmp_path: Path) -> None:
    assert missing_output([], [f"{tmp_path}/my film.mp4"]).endswith(f"-o '{tmp_path}/my film-clean.mp4'")


def test_many_inputs_are_cut_short(tmp_path: Path) -> None:
    assert missing_output([], [str(tmp_path)] * 5).endswith(f"{tmp_path} ... -o clean/")
    assert suggest_name("tape.mkv") == "tape-clean.mkv"


def test_an_input_may_be_named_as_in_ffmpeg(clips, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    assert main(["-i", str(clips("cfr")), "-o", str(out), "-q", *QUICK]) == 0
    assert out.stat().st_size > 0


def test_help_is_a_command(capsys) -> None:
    assert main(["help"]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text[: len(text) // 2] == text[len(text) // 2 :]
    assert main(["help", "models"]) == main(["models", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: vidnoise models")
    assert text[: len(text) // 2] == text[len(text) // 2 :]
    assert "did you mean 'models'?" in error(capsys, "help", "modles")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["modles"], "'models'"), (["modles", "--json"], "'models'"), (["trian", "fast"], "'train'"),
     (["a.mp4", "-o", "b.mp4", "--strenght", "1"], "--strength"), (["models", "--jsn"], "--json")],
)  # fmt: skip
def test_typing_errors_are_recognised(capsys, typed: list[str], meant: str) -> None:
    line = error(capsys, *typed)
    assert "did you mean" in line.lower()
    assert meant in line
