"""The command line: what it writes, says and returns, above all when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vidnoise
from support.clips import EXACT_FORMATS, Clip, Recipe, truncate, write
from vidnoise.cli import COMMANDS, main
from vidnoise.cli.options import Seconds
from vidnoise.cli.suggestions import suggest_name
from vidnoise.frame import Frame
from vidnoise.sources import open_source

Clips = Callable[[str], Clip]
QUICK = ("--model", "fast", "--threads", "1", "--device", "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], str]]:
    """``run(...)`` is (exit status, lines on standard error, standard output) of that command line."""

    def call(*args: object) -> tuple[int, list[str], str]:
        capsys.readouterr()
        code = main([str(a) for a in args])
        captured = capsys.readouterr()
        return code, captured.err.splitlines(), captured.out

    return call


def components(path: object) -> list[dict[str, np.ndarray]]:
    """Samples of each frame by component, whatever the order in which a format holds them."""

    def of(frame: Frame) -> dict[str, np.ndarray]:
        found = {}
        for names, plane in zip(frame.format.layout, frame.planes, strict=True):
            for i, name in enumerate(names):
                if name != "x":
                    found[name] = (plane if plane.ndim == 2 else plane[..., i]).numpy() >> frame.format.msb_shift
        return found

    source = open_source(str(path), threads=1)
    return [of(frame) for frame in source]


def same_frames(a: object, b: object) -> bool:
    first, second = components(a), components(b)
    return len(first) == len(second) > 0 and all(
        # A picture without transparency may come back in a format that has it, and then it is opaque.
        all(np.array_equal(x[name], y[name]) for name in x)
        for x, y in zip(first, second, strict=True)
    )


# --- what it writes ---------------------------------------------------------------------------------------------------

RAW_FORMATS = ("nv12", "p010le", "rgb24", "gbrp", "yuv420p", "yuvj420p", "yuv440p", "gray16le", "rgb48le")
"""As uncompressed video, for formats that no lossless codec hands out."""


@pytest.mark.parametrize("format", [*EXACT_FORMATS, *(f"raw {name}" for name in RAW_FORMATS)])
def test_strength_0_is_identical_in_every_pixel_format(clips: Clips, tmp_path, run, format):
    if format.startswith("raw "):
        recipe = Recipe(
            ".nut", "rawvideo", {}, format[4:], ticks=(0, 1, 2), time_base=Fraction(1, 25), color=(1, 1, 1, 1)
        )
        clip = write(tmp_path / "in.nut", recipe)
    else:
        clip = clips(f"exact_{format}")
    out = tmp_path / "out.mkv"
    code, err, _ = run(clip, "-o", out, "--strength", 0, "--codec", "ffv1", *QUICK)
    assert code == 0, err
    assert same_frames(clip, out)


def test_strength_1_is_not_identical(clips: Clips, tmp_path, run):
    """Or the test above would prove nothing."""
    clip, out = clips("exact_yuv420p"), tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--codec", "ffv1", *QUICK)[0] == 0
    assert not same_frames(clip, out)


def test_preview_split(clips: Clips, tmp_path, run):
    clip, out = clips("exact_yuv420p"), tmp_path / "out.mkv"
    assert run(clip, "-o", out, "--codec", "ffv1", "--preview", "split", *QUICK)[0] == 0
    for before, after in zip(components(clip), components(out), strict=True):
        assert np.array_equal(before["y"][:, :32], after["y"][:, :32])
        assert not np.array_equal(before["y"][:, 34:], after["y"][:, 34:])
        assert (after["y"][:, 32:34] == 235).all()


def test_run_is_the_default_command(clips: Clips, tmp_path, run):
    for i, args in enumerate((("run",), ())):
        out = tmp_path / f"{i}.mkv"
        code, err, stdout = run(*args, clips("cfr"), "-o", out, *QUICK)
        assert (code, stdout) == (0, "")
        assert len(err) == 1
        assert "10 frames" in err[0]
        assert "model fast" in err[0]
        assert len(components(out)) == 10


def test_options_may_come_first(clips: Clips, tmp_path, run):
    assert run("-q", "-o", tmp_path / "out.mkv", *QUICK, clips("cfr"))[0] == 0


def test_audio_and_times_are_kept(clips: Clips, tmp_path, run):
    out = tmp_path / "out.mp4"
    assert run(clips("audio"), "-o", out, *QUICK)[0] == 0
    with av.open(str(out)) as container:
        assert [s.type for s in container.streams] == ["video", "audio"]


def test_start_and_duration(clips: Clips, tmp_path, run):
    out = tmp_path / "out.mkv"
    assert run(clips("cfr"), "-o", out, "--start", "0:00.12", "--duration", 0.16, *QUICK)[0] == 0
    assert len(components(out)) == 4


def test_one_frame_is_no_frames(tmp_path, run):
    code, err, _ = run("lavfi:testsrc2=size=64x48:rate=25:duration=0.04", "-o", tmp_path / "out.mkv", *QUICK)
    assert code == 0
    assert "out.mkv: 1 frame in" in err[0]


def test_quiet_says_nothing_and_verbose_says_more(clips: Clips, tmp_path, run):
    assert run(clips("cfr"), "-o", tmp_path / "a.mkv", "-q", *QUICK)[1] == []
    usual = run(clips("cfr"), "-o", tmp_path / "b.webm", *QUICK)[1]
    assert len(run(clips("cfr"), "-o", tmp_path / "c.webm", "-v", *QUICK)[1]) > len(usual) == 1


def test_json_statistics(clips: Clips, tmp_path, run):
    code, _, stdout = run(clips("cfr"), "-o", tmp_path / "a.mkv", "--json", "-", *QUICK)
    assert code == 0
    stats = json.loads(stdout)
    assert (stats["frames_in"], stats["frames_out"], stats["device"]) == (10, 10, "cpu")
    assert stats["model"].startswith("fast")
    assert stats["sigma_mean"] > 0
    path = tmp_path / "stats.json"
    assert run(clips("cfr"), "-o", tmp_path / "b.mkv", "--json", path, "--sigma", 20, *QUICK)[0] == 0
    assert json.loads(path.read_text())["sigma_mean"] == pytest.approx(20, abs=0.1)


def test_a_damaged_packet_is_skipped_counted_and_reported(clips: Clips, tmp_path, run):
    from support.clips import damage

    broken = damage(clips("gops").path, tmp_path / "broken.mp4", [7, 8])
    code, err, stdout = run(broken, "-o", tmp_path / "out.mkv", "--json", "-", *QUICK)
    assert code == 0
    assert json.loads(stdout)["packets_corrupt"] > 0
    assert "damaged" in err[-1]


def test_progress_on_request_shows_speed_and_noise(clips: Clips, tmp_path, run):
    code, err, _ = run(clips("cfr"), "-o", tmp_path / "out.mkv", "--progress", *QUICK)
    assert code == 0
    assert "fps" in "".join(err)


def test_the_bar_on_a_terminal(clips: Clips, tmp_path):
    """Through a pseudo-terminal, as a person sees it."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    clip = write(tmp_path / "in.mkv", Recipe(".mkv", "ffv1", {}, ticks=tuple(range(40)), time_base=Fraction(1, 25)))
    process = subprocess.Popen(
        [sys.executable, "-m", "vidnoise", str(clip), "-o", str(tmp_path / "out.mkv"), *QUICK],
        stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(ours)
    assert process.wait() == 0
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()
    text = shown.decode()
    assert "fps" in text
    assert "noise" in text
    assert "40/40" in text
    assert "40 frames" in text.splitlines()[-1]


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _missing(clips: Clips, folder: Path) -> list[object]:
    return [folder / "no.mp4", "-o", folder / "out.mp4"]


def _directory(clips: Clips, folder: Path) -> list[object]:
    return [folder, "-o", folder / "out.mp4"]


def _audio_only(clips: Clips, folder: Path) -> list[object]:
    path = folder / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return [path, "-o", folder / "out.mp4"]


def _empty(clips: Clips, folder: Path) -> list[object]:
    (folder / "empty.mp4").touch()
    return [folder / "empty.mp4", "-o", folder / "out.mp4"]


def _truncated(clips: Clips, folder: Path) -> list[object]:
    return [truncate(clips("cfr").path, folder / "half.mp4", 0.5), "-o", folder / "out.mp4"]


def _text(clips: Clips, folder: Path) -> list[object]:
    (folder / "notes.mp4").write_text("this is no video\n" * 100)
    return [folder / "notes.mp4", "-o", folder / "out.mp4"]


def _unknown_model(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--model", "standart"]


def _damaged_model(clips: Clips, folder: Path) -> list[object]:
    (folder / "m.safetensors").write_bytes(b"rubbish" * 100)
    return [clips("cfr"), "-o", folder / "out.mp4", "--model", folder / "m.safetensors"]


def _unknown_device(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--device", "cuda:77"]


def _odd_device(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--device", "toaster"]


def _no_output_folder(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "no" / "out.mp4"]


def _no_extension(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out"]


def _no_output(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr")]


def _strength(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--strength", 7]


def _codec(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--codec", "h265x"]


def _option(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--strenght", 1]


def _start(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--start", "soon"]


def _past_end(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--start", "1:00"]


def _json_folder(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--json", folder / "no" / "stats.json"]


def _precision(clips: Clips, folder: Path) -> list[object]:
    return [clips("cfr"), "-o", folder / "out.mp4", "--precision", "fp16", "--device", "cpu"]


BAD = [
    (_missing, 3, "no such file"),
    (_directory, 2, "names one file"),
    (_audio_only, 3, "no video"),
    (_empty, 3, "empty"),
    (_truncated, 3, "damaged"),
    (_text, 3, "not a video"),
    (_unknown_model, 6, "did you mean 'standard'"),
    (_damaged_model, 6, "not a readable safetensors"),
    (_unknown_device, 7, "cuda:77"),
    (_odd_device, 7, "unknown device 'toaster'"),
    (_no_output_folder, 4, "there is no directory"),
    (_no_extension, 5, "extension"),
    (_no_output, 2, "cfr-clean.mp4"),
    (_strength, 2, "between 0 and 2"),
    (_codec, 2, "h265x"),
    (_option, 2, "--strength"),
    (_start, 2, "is no time"),
    (_past_end, 2, "start"),
    (_json_folder, 4, "there is no directory"),
    (_precision, 2, "fp16"),
]


@pytest.mark.parametrize(("make", "code", "says"), BAD, ids=lambda v: v.__name__.strip("_") if callable(v) else "")
def test_bad_input_is_one_clear_line(clips: Clips, tmp_path, run, make, code, says):
    arguments = make(clips, tmp_path)
    before = set(tmp_path.rglob("*"))
    found, err, stdout = run(*arguments)
    assert found == code, err
    assert stdout == ""
    assert len(err) == 1
    assert err[0].startswith("vidnoise: ")
    assert says in err[0]
    assert "Traceback" not in err[0]
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flags", [(), ("-n",)])
def test_an_existing_output_is_kept_without_y(clips: Clips, tmp_path, run, flags):
    out = tmp_path / "out.mkv"
    out.write_text("precious")
    code, err, _ = run(clips("cfr"), "-o", out, *flags, *QUICK)
    assert (code, len(err)) == (4, 1)
    assert "-y" in err[0]
    assert out.read_text() == "precious"
    assert run(clips("cfr"), "-o", out, "-y", *QUICK)[0] == 0
    assert len(components(out)) == 10


def test_the_input_is_never_overwritten(tmp_path, run):
    clip = write(tmp_path / "in.mkv", Recipe(".mkv", "ffv1", {}, ticks=(0, 1), time_base=Fraction(1, 25)))
    kept = clip.path.read_bytes()
    code, err, _ = run(clip, "-o", clip, "-y", *QUICK)
    assert (code, len(err)) == (4, 1)
    assert clip.path.read_bytes() == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]


def test_an_input_whose_size_changes_leaves_what_came_before(tmp_path, run):
    """A size change cannot go into one file; the error comes when half of the output is written, and that is kept."""
    from support.clips import join_ts

    parts = [
        write(
            tmp_path / f"{i}.ts",
            Recipe(".ts", width=64 + 16 * i, ticks=tuple(90000 * i + 3600 * k for k in range(10))),
        ).path
        for i in range(2)
    ]
    joined = join_ts(parts, tmp_path / "joined.ts")
    code, err, _ = run(joined, "-o", tmp_path / "out.mkv", *QUICK)
    assert code == 5
    assert "changes from 64x48 yuv420p to 80x48" in err[-1]
    assert err[-1].endswith("What came before is finished")
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.mkv"]
    assert [frame.width for frame in open_source(tmp_path / "out.mkv")] == [64] * 10


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(tmp_path, run):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        recipe = Recipe(".mkv", "ffv1", {}, width=128, height=96, ticks=tuple(range(20)), time_base=Fraction(1, 25))
        clip = write(tmp_path / "in.mkv", recipe)
        code, err, _ = run(clip, "-o", disk / "out.mkv", "--codec", "ffv1", *QUICK)
        assert (code, len(err)) == (4, 1)
        assert "No space left" in err[0]
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vidnoise", *(str(a) for a in args)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_frames(statistics: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 100
    while not statistics.exists() or not statistics.read_text().endswith("\n"):
        assert process.poll() is None
        assert time.monotonic() < end, process.kill() or "no frame was ever written"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_in_the_middle_finishes_the_file_so_far(tmp_path, number):
    out, reports = tmp_path / "out.mkv", ["--json", tmp_path / "s.json", "--stats", tmp_path / "s.jsonl"]
    process = start("lavfi:testsrc2=size=64x48:rate=25:duration=4000", "-o", out, *reports, *QUICK)
    wait_for_frames(tmp_path / "s.jsonl", process)
    process.send_signal(number)
    stdout, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert "stopping" in lines[0]
    assert lines[1].startswith("vidnoise: interrupted; ")
    assert "Traceback" not in err
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["interrupted"]
    assert len(components(out)) == stats["frames_out"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mkv", "s.json", "s.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_at_once_leaves_nothing(tmp_path):
    process = start("lavfi:testsrc2=size=64x48:rate=25:duration=4000", "-o", tmp_path / "out.mkv", *QUICK)
    time.sleep(0.4)  # Python is up, torch is being loaded
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)  # the latter if it came before our code ran
    if process.returncode == 130:
        assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


# --- the group --------------------------------------------------------------------------------------------------------


def test_models_are_listed(run):
    code, err, stdout = run("models")
    assert (code, err) == (0, [])
    assert {line.split()[0] for line in stdout.splitlines()} == set(vidnoise.list_models())
    assert json.loads(run("models", "--json", "fast")[2])["fast"]["tier"] == "fast"
    assert run("models", "fats")[0] == 6


def test_every_command_of_the_table_exists_and_has_help(run):
    for name in COMMANDS:
        code, _, stdout = run(name, "--help")
        assert code == 0
        assert "Usage: vidnoise" in stdout
    stdout = run("--help")[2]
    assert all(name in stdout for name in (*COMMANDS, "--strength", "--list-devices"))


def test_a_command_misspelt(run):
    code, err, _ = run("modles")
    assert code == 2
    assert "did you mean 'models'" in err[0]


def test_no_arguments_show_the_help(run):
    code, err, _ = run()
    assert code == 2
    assert any("INPUT -o OUTPUT" in line for line in err)


def test_devices_are_listed(run):
    code, _, stdout = run("--list-devices")
    assert code == 0
    assert stdout.startswith("cpu")


def test_an_internal_error_is_one_line(clips: Clips, tmp_path, run, monkeypatch):
    def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr("vidnoise.api.denoise_file", broken)
    code, err, _ = run(clips("cfr"), "-o", tmp_path / "out.mkv", "-q")
    assert code == 1
    assert err == ["vidnoise: internal error: ZeroDivisionError: oh no (please report it, with the output of -vv)"]
    assert "Traceback" in "\n".join(run(clips("cfr"), "-o", tmp_path / "out.mkv", "-vv")[1])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("01:00:01.5", 3601.5), ("0.25", 0.25), (2.5, 2.5)]
)
def test_times_are_read(text, seconds):
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/b.mov", "a/b-clean.mov"), ("-", "clean.mkv"), ("rtsp://x/y.sdp", "clean.mkv"), ("/dev/video0", "clean.mkv")],
)
def test_names_are_suggested(source, name):
    assert suggest_name(source) == str(Path(name))


@pytest.mark.parametrize("size", [(64, 48), (2, 2), (17, 3), (1, 1)])
def test_a_single_frame_of_any_size(tmp_path, run, size):
    recipe = Recipe(".nut", "rawvideo", {}, "yuv444p", *size, ticks=(0,), time_base=Fraction(1, 25))
    clip = write(tmp_path / "in.nut", recipe)
    code, err, _ = run(clip, "-o", tmp_path / "out.nut", "--codec", "rawvideo", *QUICK)
    assert code == 0, err
    assert len(components(tmp_path / "out.nut")) == 1
