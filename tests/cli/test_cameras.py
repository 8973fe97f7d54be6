"""Several cameras from one file: a process each, and a failure of one is no matter of the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.clips import pictures
from vidnoise.cli import cameras, main
from vidnoise.cli.batch import Job
from vidnoise.cli.cameras import read_cameras
from vidnoise.cli.child import CrashError
from vidnoise.errors import EncodeError, SourceLostError, UsageError
from vidnoise.pipeline.stats import RunStats

TWO = """
model = "fast"
reconnect = "forever"

[camera.door]
input = "rtsp://10.0.0.5/1"
output = "door.mkv"

[camera.yard]
input = "rtsp://10.0.0.6/1"
output = "yard.mkv"
tee = ["rtmp://server/live/yard"]
strength = 0.5
model = "standard"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "cameras.toml"
    path.write_text(text)
    return path


def test_options_of_all_cameras_and_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    door, yard = read_cameras(written(tmp_path, TWO))
    assert (door.name, door.source, door.output, door.model) == ("door", "rtsp://10.0.0.5/1", "door.mkv", "fast")
    assert (door.options.reconnect, door.options.strength, door.options.threads) == (-1, 1.0, 4)
    assert (yard.options.reconnect, yard.options.strength, yard.model) == (-1, 0.5, "standard")
    assert list(yard.options.tee) == ["rtmp://server/live/yard"]
    monkeypatch.setenv("VIDNOISE_STRENGTH", "0.25")  # wins over a file, as everywhere
    assert [camera.options.strength for camera in read_cameras(written(tmp_path, TWO))] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("strength = 0.5", "strenght = 0.5", "camera.yard: unknown key 'strenght'; did you mean 'strength'"),
        ("strength = 0.5", "strength = 9", "camera.yard: strength must be between 0 and 2"),
        ("strength = 0.5", "crf = true", "camera.yard: crf must be a number or text"),
        ("strength = 0.5", "progress = true", "camera.yard: progress belongs to a single run"),
        ('output = "yard.mkv"', "", 'camera.yard needs output = "..."'),
        ('["rtmp://server/live/yard"]', '"a.mkv"', "camera.yard: tee must be a list"),
        ('reconnect = "forever"', 'tee = ["a.mkv"]', "tee belongs to a single run"),
        ('reconnect = "forever"', 'reconnect = "often"', "neither a number of attempts nor forever"),
        ("[camera.yard]", "[cameras.yard]", "unknown key 'cameras'; did you mean"),
        ("[camera.yard]", "[camera", "is no valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TWO
    with pytest.raises(UsageError) as caught:
        read_cameras(written(tmp_path, TWO.replace(old, new)))
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "cameras.toml"))
    assert message.partition("; did")[0] in text


def test_a_file_without_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cameras", str(written(tmp_path, 'model = "fast"\n'))]) == 2
    assert "has no camera; begin with [camera.NAME]" in capsys.readouterr().err
    assert main(["cameras", str(tmp_path / "none.toml")]) == 2
    assert "no such configuration file" in capsys.readouterr().err


def test_two_cameras_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = '[camera.{0}]\ninput = "lavfi:testsrc2=size=64x48:duration=0.4"\noutput = "{0}.mkv"\n'
    path = written(tmp_path, 'model = "fast"\nstrength = 0\ndevice = "cpu"\n' + table.format("a") + table.format("b"))
    assert main(["cameras", str(path)]) == 0
    assert [len(pictures(tmp_path / name)) for name in ("a.mkv", "b.mkv")] == [10, 10]
    err = capsys.readouterr().err
    assert "a: a.mkv: 10 frames" in err
    assert "b: b.mkv: 10 frames" in err
    assert main(["cameras", str(path)]) == 4  # nothing is overwritten
    assert "a.mkv: exists already" in capsys.readouterr().err
    assert main(["cameras", str(written(tmp_path, table.format("a") + 'overwrite = true\n[camera.c]\n'
        'input = "lavfi:testsrc2"\noutput = "./a.mkv"\n'))]) != 0  # fmt: skip
    assert "a.mkv" in capsys.readouterr().err


class FakeChild:
    """A process in which each camera's next outcome happens at once."""

    outcomes: dict[str, list[Exception | None]]
    outputs: list[str]

    def __init__(self, model: str, options: Any, label: str) -> None:
        self.label = label

    def denoise(self, job: Job, **_: Any) -> RunStats:
        self.outputs.append(job.output)
        outcome = self.outcomes[self.label].pop(0)
        if outcome is not None:
            Path(job.output).touch()
            raise outcome
        return SimpleNamespace()  # type: ignore[return-value]

    def close(self) -> None: ...


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeChild]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FakeChild, "outcomes", {}, raising=False)
    monkeypatch.setattr(FakeChild, "outputs", [], raising=False)
    monkeypatch.setattr(cameras, "Child", FakeChild)
    monkeypatch.setattr(cameras, "_RESTART_SECONDS", 0.01)
    monkeypatch.setattr("vidnoise.cli.cameras.summary", lambda stats, output: f"{output}: done")
    return FakeChild


def test_a_camera_that_fails_starts_again_in_another_file(
    fake: type[FakeChild], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = SourceLostError("the camera is silent", "rtsp://10.0.0.5/1")
    fake.outcomes |= {"door": [lost, CrashError("the program crashed"), None], "yard": [None]}
    assert main(["cameras", str(written(tmp_path, TWO))]) == 0
    assert sorted(fake.outputs) == ["door-2.mkv", "door-3.mkv", "door.mkv", "yard.mkv"]
    err = capsys.readouterr().err
    assert "door: the camera is silent; starts again in" in err
    assert "door: door-3.mkv: done" in err


def test_a_full_disk_is_final_and_the_others_go_on(
    fake: type[FakeChild], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.outcomes |= {"door": [EncodeError("door.mkv: no space left")], "yard": [None]}
    assert main(["cameras", str(written(tmp_path, TWO))]) == 4
    assert sorted(fake.outputs) == ["door.mkv", "yard.mkv"]
    err = capsys.readouterr().err
    assert "error: door: door.mkv: no space left" in err
    assert "yard: yard.mkv: done" in err
