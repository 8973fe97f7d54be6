"""Options from the environment and from a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from vidnoise.cli import configuration, main
from vidnoise.cli.configuration import OF_ONE_RUN, default_path, setting_name
from vidnoise.cli.run import run

OPTIONS = {setting_name(each): each for each in run.params if isinstance(each, click.Option)}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file at the default place, which the environment does not override."""
    monkeypatch.delenv("VIDNOISE_CONFIG", raising=False)
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setattr(configuration, "default_path", lambda: path)
    return path


def parsed(*args: str) -> dict[str, Any]:
    """Return the options with which a run would begin."""
    return run.make_context("run", ["in.mkv", "-o", "out.mkv", *args]).params


def error(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Return the only line on standard error of a run that is refused for its options."""
    capsys.readouterr()
    assert main([*args, "-o", "out.mkv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_command_line_wins_then_the_environment_then_the_file(file: Path, monkeypatch) -> None:
    assert parsed()["strength"] == 1.0
    file.write_text("strength = 0.25\n")
    assert parsed()["strength"] == 0.25
    monkeypatch.setenv("VIDNOISE_STRENGTH", "0.5")
    assert parsed()["strength"] == 0.5
    assert parsed("--strength", "0.75")["strength"] == 0.75


def test_values_of_every_kind_in_a_file(file: Path) -> None:
    file.write_text(
        'model = "fast"\nstart = "1:30"\nreconnect = "forever"\nlookahead = 2\nno_cuts = true\nlive = false\n'
        'overwrite = true\nsegment = 30\nverbose = 2\nraw-rate = 25\ninput-option = { framerate = 30, size = "2x2" }\n'
    )
    found = parsed()
    assert (found["model"], found["start"], found["reconnect"], found["lookahead"]) == ("fast", 90.0, -1, 2)
    assert (found["detect_cuts"], found["live"], found["overwrite"]) == (False, False, True)
    assert (found["segment_seconds"], found["verbose"], found["raw_rate"]) == (30.0, 2, "25")
    assert found["input_options"] == {"framerate": "30", "size": "2x2"}


def test_values_of_every_kind_in_the_environment(monkeypatch) -> None:
    values = {
        "NO_CUTS": "1", "LIVE": "no", "OVERWRITE": "yes", "VERBOSE": "2", "TEE": "a.mkv b.mkv", "OUTPUT": "x.mkv",
        "START": "1:30", "THREADS": "",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"VIDNOISE_{name}", value)
    found = run.make_context("run", ["in.mkv"]).params
    assert (found["detect_cuts"], found["live"], found["overwrite"], found["verbose"]) == (False, False, True, 2)
    assert (found["tee"], found["output"], found["start"]) == (("a.mkv", "b.mkv"), "x.mkv", 90.0)
    assert found["threads"] == 0


def test_every_option_has_a_variable_of_its_own() -> None:
    named = {name: each.envvar for name, each in OPTIONS.items() if each.envvar}
    assert set(OPTIONS) - set(named) == {"input", "list-devices"}
    assert len(set(named.values())) == len(named)
    assert named["max-latency"] == "VIDNOISE_MAX_LATENCY"
    # These have meanings of their own.
    assert not {"VIDNOISE_DATA", "VIDNOISE_KERNELS"} & set(named.values())


def test_another_file_replaces_the_default_one(file: Path, tmp_path: Path, monkeypatch) -> None:
    file.write_text("strength = 0.25\ncrf = 30\n")
    other = tmp_path / "other.toml"
    other.write_text("crf = 20\n")
    for found in (parsed("--config", str(other)), monkeypatch.setenv("VIDNOISE_CONFIG", str(other)) or parsed()):
        assert (found["strength"], found["crf"]) == (1.0, 20.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("strenght = 1", "unknown key 'strenght'; did you mean 'strength'?"),
        ("[run]\nstrength = 1", "unknown key 'run'"),
        ("strength = true", "strength must be a number or text, got true"),
        ("strength = [1]", "strength must be a number or text, got [1]"),
        ("live = 1", "live must be true or false, got 1"),
        ('input-option = "a=b"', "input-option must be a table"),
        ("strength = ", "is no valid TOML"),
    ],
)
def test_mistakes_in_a_file_name_file_and_key(file: Path, capsys, text: str, says: str) -> None:
    file.write_text(text)
    assert f"vidnoise: {file}: {says}" in error(capsys, "in.mkv")


@pytest.mark.parametrize("name", sorted(OF_ONE_RUN))
def test_inputs_and_outputs_are_not_set_in_a_file(file: Path, capsys, name: str) -> None:
    file.write_text(f'{name} = "x"\n')
    assert f"{file}: {name} belongs to a single run" in error(capsys, "in.mkv")


@pytest.mark.parametrize(
    ("text", "key"),
    [('strength = "much"', "strength"), ("strength = 9", "strength"), ('precision = "fp8"', "precision"),
     ('backend = "egaer"', "backend"), ('codec = "h256"', "codec")],
)  # fmt: skip
def test_values_out_of_range_name_where_they_were_set(clips, file: Path, capsys, monkeypatch, text, key) -> None:
    file.write_text(text)
    line = error(capsys, str(clips("cfr")), "--model", "fast")
    assert f"{key} in {file}" in line
    file.unlink()
    name = f"VIDNOISE_{key.upper()}"
    monkeypatch.setenv(name, text.split("= ")[1].strip('"'))
    assert name in error(capsys, str(clips("cfr")), "--model", "fast")


def test_a_model_that_does_not_exist_is_traced_to_the_file(clips, file: Path, capsys) -> None:
    file.write_text('model = "standart"')
    assert main([str(clips("cfr")), "-o", str(file.parent / "out.mkv")]) == 6
    assert f"(set by model in {file})" in capsys.readouterr().err


def test_a_file_that_is_asked_for_must_exist(tmp_path: Path, capsys) -> None:
    assert "no such configuration file" in error(capsys, "in.mkv", "--config", str(tmp_path / "no.toml"))
    assert "cannot be read" in error(capsys, "in.mkv", "--config", str(tmp_path))


def test_the_default_file_is_the_users(monkeypatch) -> None:
    path = default_path()
    assert path is not None
    assert path.parts[-2:] == ("vidnoise", "config.toml")
