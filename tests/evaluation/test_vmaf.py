"""VMAF: which ffmpeg is taken, what it is given, how its answer is read, and what it says about known pictures."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from support.scenes import scene
from support.vmaf import SCORE, give_vmaf, take_vmaf_away
from vidnoise.errors import FormatError, UsageError
from vidnoise.evaluation import ffmpeg
from vidnoise.evaluation.ffmpeg import binary_with
from vidnoise.evaluation.vmaf import Vmaf, check_available, missing, read_score, too_small, vmaf

needs_vmaf = pytest.mark.skipif(missing() is not None, reason=f"VMAF: {missing()}")


def install(monkeypatch: pytest.MonkeyPatch, on_path: set[str] | None, packaged: set[str] | None) -> None:
    """Have two programs with these filters, or fewer programs."""
    monkeypatch.setattr(shutil, "which", lambda name: None if on_path is None else "/bin/ffmpeg")
    module = None if packaged is None else SimpleNamespace(get_ffmpeg_exe=lambda: "/site/ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", module)
    filters = {"/bin/ffmpeg": frozenset(on_path or ()), "/site/ffmpeg": frozenset(packaged or ())}
    monkeypatch.setattr(ffmpeg, "_filters", filters.__getitem__)


@pytest.mark.parametrize(
    ("on_path", "packaged", "expected"),
    [
        ({"libvmaf"}, {"libvmaf"}, "/bin/ffmpeg"),
        ({"null"}, {"libvmaf"}, "/site/ffmpeg"),
        (None, {"libvmaf"}, "/site/ffmpeg"),
    ],
)
def test_the_program_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, on_path, packaged, expected: str) -> None:
    install(monkeypatch, on_path, packaged)
    assert binary_with("libvmaf") == expected
    assert missing() is None


@pytest.mark.parametrize(
    ("on_path", "packaged", "words"),
    [
        (None, None, "there is no ffmpeg binary on PATH"),
        ({"null"}, None, "/bin/ffmpeg was built without the filter libvmaf"),
        ({"null"}, {"null"}, "/bin/ffmpeg was built without the filter libvmaf"),
        (None, {"null"}, "/site/ffmpeg was built without the filter libvmaf"),
    ],
)
def test_what_is_missing_and_helps_is_said(monkeypatch: pytest.MonkeyPatch, on_path, packaged, words: str) -> None:
    install(monkeypatch, on_path, packaged)
    with pytest.raises(UsageError) as caught:
        check_available()
    assert words in str(caught.value)
    assert "pip install 'vidnoise[vmaf]'" in str(caught.value)


def test_a_package_without_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    install(monkeypatch, {"null"}, None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", SimpleNamespace(get_ffmpeg_exe=none))
    assert "/bin/ffmpeg was built without" in str(missing())


def test_the_score_is_read() -> None:
    log = "[info] Stream mapping:\n[Parsed_libvmaf_3 @ 0x5] [info] VMAF score: 93.125000\n"
    assert read_score(log, 0) == 93.125
    with pytest.raises(UsageError, match=r"exit code 0"):
        read_score("[info] VMAF score: nan", 0)
    with pytest.raises(UsageError, match=r"failed: it gave no score \(exit code -11\)"):
        read_score(log, -11)
    with pytest.raises(UsageError, match="failed: could not load libvmaf model"):
        read_score("[libvmaf @ 0x5] [error] could not load libvmaf model\n[fatal] Error initializing", 1)


def test_sizes() -> None:
    assert too_small(32, 32) is None
    assert too_small(31, 640) == "it needs pictures of at least 32x32, got 640x31"
    with pytest.raises(FormatError, match="at least 32x32"):
        Vmaf(16, 64)


def test_it_is_given_the_luma_of_both_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = give_vmaf(tmp_path, monkeypatch)
    version, reference = torch.zeros(2, 3, 33, 35), torch.zeros(2, 3, 33, 35)
    version[:, 0], reference[0] = 1.0, 1.0
    assert vmaf(version, reference, (0.25, 0.5)) == SCORE
    (file,) = read.glob("*.yuv")
    frames = np.fromfile(file, "<u2").reshape(2, 68 * 35 + 2 * 34 * 18)
    luma = frames[:, : 68 * 35].reshape(2, 68, 35)
    assert (luma[:, :33] == 64 + 219).all()  # a quarter of 876
    assert (luma[0, 34:67] == 940).all()
    assert (luma[1, 34:67] == 64).all()
    assert (frames[:, 68 * 35 :] == 512).all()


def test_a_process_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = give_vmaf(tmp_path, monkeypatch) / "ffmpeg"
    program.write_text(program.read_text().replace("*) cat", '*) echo "[error] no such model" >&2; exit 1; cat'))
    clip = torch.zeros(50, 3, 64, 64)  # more than a pipe takes
    with pytest.raises(UsageError, match="ffmpeg's libvmaf failed: no such model"):
        vmaf(clip, clip)


def test_pictures_keep_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_vmaf(tmp_path, monkeypatch)
    with Vmaf(64, 64) as run, pytest.raises(FormatError, match="of one size: 64x64, not 32x48"):
        run.add(torch.zeros(3, 64, 64), torch.zeros(3, 48, 32))


@needs_vmaf
@pytest.mark.parametrize("size", [64, 33])
def test_more_noise_is_worse(size: int) -> None:
    clean = scene(5, size=size)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) / 255
    scores = [vmaf(clean + sigma * noise, clean) for sigma in (0, 20, 50)]
    assert 100 >= scores[0] > 95
    assert scores[0] > scores[1] + 5 > scores[2] + 10
    gray = clean.mean(1, keepdim=True)
    assert vmaf(gray, gray) > 95


# --- vidnoise evaluate --------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "a.png"), (scene(1, size=40)[0, 0].numpy() * 255).astype(np.uint8))
    return tmp_path / "pictures"


def run_command(*arguments: object) -> Result:
    from vidnoise.cli.evaluate import evaluate as command

    options = ("--model", "none", "--device", "cpu", "--threads", "1")
    return CliRunner().invoke(command, [*map(str, arguments), *options])


def test_evaluate_measures_again_what_lacks_it(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "quality.json"
    arguments = [pictures, "--stills", "--peers", "opencv-nlm", "--sigma", 25, "-o", output]
    give_vmaf(tmp_path, monkeypatch)

    def mean() -> dict[str, float]:
        return json.loads(output.read_text())["methods"]["opencv-nlm"]["sigmas"]["25"]["mean"]

    assert run_command(*arguments).exit_code == 0
    without = mean()
    assert "vmaf" not in without
    assert "VMAF" not in output.with_suffix(".md").read_text()
    result = run_command(*arguments, "--vmaf")
    assert result.exit_code == 0, result.output
    assert "kept from" not in result.output
    assert mean()["vmaf"] == SCORE
    assert mean()["psnr"] == without["psnr"]
    table = output.with_suffix(".md").read_text()
    assert "PSNR (dB) / SSIM / VMAF, mean over pictures" in table
    assert f"{without['psnr']:.2f} / {without['ssim']:.3f} / 12.5 |" in table
    for more in ([], ["--vmaf"]):
        assert "kept from" in run_command(*arguments, *more).output
        assert mean()["vmaf"] == SCORE


def test_evaluate_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = tmp_path / "photos", tmp_path / "photos.json"
    folder.mkdir()
    picture = (scene(1, size=64)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    for name in ("a_real.JPG", "a_mean.JPG"):
        cv2.imwrite(str(folder / name), picture)
    give_vmaf(tmp_path, monkeypatch)
    result = run_command(folder, "--protocol", "photos", "--peers", "none", "--vmaf", "-o", output)
    assert result.exit_code == 0, result.output
    assert json.loads(output.read_text())["methods"]["noisy"]["scenarios"]["photos"]["mean"]["vmaf"] == SCORE
    assert "| method | RGB | VMAF | Y |" in output.with_suffix(".md").read_text()


def test_evaluate_without_a_program_says_so_at_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_vmaf_away(monkeypatch)
    result = run_command(pictures, "--stills", "--peers", "opencv-nlm", "--vmaf")
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith("VMAF cannot be measured: /opt/ffmpeg was built without the filter libvmaf")
