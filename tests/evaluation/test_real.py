"""The protocol ``real``: its material, its measures, its filters, its results."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from support.paths import ROOT
from support.scenes import scene
from vidnoise.errors import SourceOpenError, UsageError
from vidnoise.evaluation import ffmpeg, real
from vidnoise.evaluation.plane_filters import PLANE_FILTERS, PlaneFilter, Run
from vidnoise.evaluation.scenarios import SCENARIOS, Shot, shoot, to_planes
from vidnoise.evaluation.tables import markdown
from vidnoise.frame import Frame
from vidnoise.session.fields import fields
from vidnoise.weights import load_model

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg binary on PATH")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip, 94 x 98: neither side divisible by 4."""
    path = tmp_path_factory.mktemp("clips")
    writer = cv2.VideoWriter(str(path / "scene.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 25, (98, 94))
    for frame in scene(6, size=98)[:, :, :94]:
        writer.write(np.ascontiguousarray((frame.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)))
    writer.release()
    return path


@functools.cache
def make(folder: Path, name: str) -> Shot:
    return shoot(SCENARIOS[name], "scene", folder / "scene.avi", 6)


def errors(shot: Shot) -> dict[str, float]:
    scores = real.score(shot.noisy, shot.clean)
    return {p: scores[f"rms_{p}"] for p in "yuv"}


EXPECTED = {
    "planes20": (3, 12, 2, 12), "planes10": (2, 7, 1, 7), "chroma20": (0, 0, 10.5, 12.5), "dark": (1, 12, 1, 8),
    "camera": (4, 10, 0, 6), "tape": (7.5, 8.5, 11, 13), "tape-interlaced": (7.5, 8.5, 11, 13),
    "grain": (3, 10, 0.3, 4), "grain-half": (3, 10, 0.3, 4),
}  # fmt: skip
"""Least and greatest error of luma, then of chroma, in 8-bit codes."""


@needs_ffmpeg
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_touch_their_planes_and_can_be_made_again(folder: Path, name: str) -> None:
    shot = make(folder, name)
    assert len(shot.noisy) == len(shot.clean) == (3 if SCENARIOS[name].interlaced else 6)
    frame = shot.noisy[0]
    assert (frame.format.name, frame.color.matrix, frame.color.range) == ("yuv420p", 6, 1)
    assert (frame.height, frame.width, frame.interlaced) == (92, 98, SCENARIOS[name].interlaced)
    found, (least, most, least_chroma, most_chroma) = errors(shot), EXPECTED[name]
    assert least <= found["y"] <= most
    assert least_chroma <= found["u"] <= most_chroma
    assert least_chroma <= found["v"] <= most_chroma
    again = make.__wrapped__(folder, name)
    for a, b in zip([*shot.noisy, *shot.clean], [*again.noisy, *again.clean], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))


@needs_ffmpeg
def test_noise_differs_by_clip_and_by_plane(folder: Path) -> None:
    first = make(folder, "tape")
    other = shoot(SCENARIOS["tape"], "other", folder / "scene.avi", 6)
    assert torch.equal(first.clean[0].planes[0], other.clean[0].planes[0])
    assert not torch.equal(first.noisy[0].planes[0], other.noisy[0].planes[0])
    shot = make(folder, "chroma20")
    noise = [
        torch.stack([a.planes[i].float() - b.planes[i].float() for a, b in zip(shot.noisy, shot.clean, strict=True)])
        for i in (1, 2)
    ]
    assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]) < 0.05


@needs_ffmpeg
def test_half_strength_is_measured_on_the_same_grain(folder: Path) -> None:
    whole, half = make(folder, "grain"), make(folder, "grain-half")
    assert all(torch.equal(a.planes[0], b.planes[0]) for a, b in zip(whole.noisy, half.noisy, strict=True))


@needs_ffmpeg
def test_the_noise_of_a_tape_is_smeared_along_lines(folder: Path) -> None:
    shot = make(folder, "tape")
    noise = shot.noisy[2].planes[1].float() - shot.clean[2].planes[1].float()

    def neighbours(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    assert neighbours(noise[:, 1:], noise[:, :-1]) > 0.8
    assert abs(neighbours(noise[1:], noise[:-1])) < 0.3


@needs_ffmpeg
def test_fields_of_the_interlaced_tape_are_of_two_moments(folder: Path) -> None:
    shot, whole = make(folder, "tape-interlaced"), make(folder, "tape")
    lines = shot.clean[1].planes[0]
    # Only the conversion of a field by itself lies between them.
    assert (lines[0::2].int() - whole.clean[2].planes[0][0::2].int()).abs().max() <= 1
    assert (lines[1::2].int() - whole.clean[3].planes[0][1::2].int()).abs().max() <= 1


@needs_ffmpeg
@pytest.mark.parametrize("name", ["planes10", "tape-interlaced"])
def test_strength_0_gives_the_noisy_clip(folder: Path, name: str) -> None:
    shot = make(folder, name)
    out = real.denoising("fast", strength=0)(shot.noisy)
    assert all(
        torch.equal(p, q) for a, b in zip(out, shot.noisy, strict=True) for p, q in zip(a.planes, b.planes, strict=True)
    )
    assert real.evaluate(real.denoising("fast", strength=0), [shot]) == real.evaluate(list, [shot])


@needs_ffmpeg
def test_a_model_denoises_fields(folder: Path) -> None:
    shot = make(folder, "tape-interlaced")
    run = real.denoising("fast")
    assert real.evaluate(run, [shot])["mean"]["psnr"] > real.evaluate(list, [shot])["mean"]["psnr"] + 0.5


def test_scores_of_known_errors() -> None:
    planes = tuple(torch.full(shape, 120, dtype=torch.uint8) for shape in ((16, 16), (8, 8), (8, 8)))
    clean = [Frame(planes, real.PIXEL_FORMATS["yuv420p"])] * 3
    worse = [replace(f, planes=(planes[0] + 4, planes[1], planes[2] - i)) for i, f in enumerate(clean)]
    scores = real.score(worse, clean)
    assert scores["rms_y"] == pytest.approx(4)
    assert scores["psnr_y"] == pytest.approx(20 * np.log10(255 / 4))
    assert scores["rms_u"] == 0
    assert scores["rms_v"] == pytest.approx(np.sqrt(5 / 3))
    assert scores["psnr_first"] == pytest.approx(20 * np.log10(219 / 4), abs=1e-3)
    # The error of Y does not flicker; one more step of V each time moves red by 1.596 steps and green by -0.813.
    assert scores["temporal_error"] == pytest.approx((1.596 + 0.813) / 3, abs=0.01)
    assert set(real.score(worse[:1], clean[:1])) == set(scores) - {"psnr_first", "temporal_error"}


@needs_ffmpeg
@pytest.mark.parametrize("name", PLANE_FILTERS)
def test_filters_at_their_best(folder: Path, name: str) -> None:
    peer = PLANE_FILTERS[name]
    if reason := peer.unusable(6):
        pytest.skip(reason)
    shot = make(folder, "chroma20")
    found = real.evaluate_filter(peer, [shot])
    mean = found["mean"]
    assert isinstance(mean, dict)
    assert mean["rms_y"] == 0  # nothing is wrong with luma, so the best is to leave it
    assert mean["psnr"] > real.score(shot.noisy, shot.clean)["psnr"] + 2
    assert str(found["strength"]).startswith("luma 0")


@needs_ffmpeg
@pytest.mark.parametrize("name", PLANE_FILTERS)
def test_filters_at_0_change_nothing_and_each_plane_has_its_own_strength(folder: Path, name: str) -> None:
    peer = PLANE_FILTERS[name]
    if reason := peer.unusable(6):
        pytest.skip(reason)
    noisy = make(folder, "tape").noisy[:2]
    none, some = peer.ladders[0][0], peer.ladders[0][5]

    def changed(luma: tuple[float, ...], chroma: tuple[float, ...]) -> list[bool]:
        out = peer.run(luma, chroma)(noisy)
        return [not torch.equal(p, q) for p, q in zip(out[1].planes, noisy[1].planes, strict=True)]

    assert changed(none, none) == [False, False, False]
    assert changed(some, none) == [True, False, False]
    assert changed(none, some) == [False, True, True]
    together, apart = peer.run(some, some)(noisy), peer.run(some, none)(noisy)
    assert torch.equal(together[1].planes[0], apart[1].planes[0])


@needs_ffmpeg
def test_filters_take_interlaced_frames_field_by_field(folder: Path) -> None:
    peer = PLANE_FILTERS["nlmeans"]
    if reason := peer.unusable(1):
        pytest.skip(reason)
    frame = make(folder, "tape-interlaced").noisy[0]
    run = peer.run((6.0,), (6.0,))
    out, (top,) = run([frame])[0], run([replace(fields(frame)[0], interlaced=False)])
    assert all(torch.equal(p[0::2], q) for p, q in zip(out.planes, top.planes, strict=True))
    whole = run([replace(frame, interlaced=False)])[0]
    assert not torch.equal(out.planes[0], whole.planes[0])


def climbing(best_luma: int, best_chroma: int, n: int = 12) -> tuple[list[tuple[float, float]], tuple[object, ...]]:
    """Settings tried and what :meth:`PlaneFilter.best` found where quality falls off from known rungs."""
    tried: list[tuple[float, float]] = []

    class Pretended(PlaneFilter):
        def run(self, luma: tuple[float, ...], chroma: tuple[float, ...]) -> Run:
            tried.append((luma[0], chroma[0]))
            return list

    def judge(run: Run) -> tuple[float, float]:
        luma, chroma = tried[-1]
        return -abs(luma - best_luma), -abs(chroma - best_chroma)

    peer = Pretended("p", "p", lambda a, b: "", (tuple((float(i),) for i in range(n)),), (1.0, 1.0))
    return tried, peer.best(judge, (4.0, 4.0))


@pytest.mark.parametrize(("luma", "chroma"), [(4, 4), (2, 8), (0, 5), (7, 0)])
def test_the_search_climbs_to_both_best_settings(luma: int, chroma: int) -> None:
    tried, found = climbing(luma, chroma)
    assert found == ((float(luma),), (float(chroma),), False)
    assert len(set(tried)) == len(tried) <= 8


def test_the_search_says_when_nothing_is_stronger() -> None:
    assert climbing(4, 11)[1] == ((4.0,), (11.0,), True)


@needs_ffmpeg
def test_conversion_to_planes() -> None:
    rgb = np.zeros((2, 8, 12, 3), np.uint8)
    rgb[1] = (255, 0, 0)
    y, u, v = to_planes(rgb)
    assert (y.shape, u.shape) == ((2, 8, 12), (2, 4, 6))
    assert [int(p[0, 2, 3]) for p in (y, u, v)] == [16, 128, 128]
    assert [int(p[1, 2, 3]) for p in (y, u, v)] == pytest.approx([81, 90, 240], abs=1)  # BT.601, limited range


def run_command(*arguments: object) -> Result:
    from vidnoise.cli.evaluate import evaluate as command

    return CliRunner().invoke(command, [*(str(a) for a in arguments), "--device", "cpu", "--threads", "1"])


@pytest.fixture
def short_ladders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search has little to try."""
    for name, peer in list(PLANE_FILTERS.items()):
        monkeypatch.setitem(PLANE_FILTERS, name, replace(peer, ladders=(peer.ladders[0][6:8],)))


@needs_ffmpeg
@pytest.mark.usefixtures("short_ladders")
def test_command_keeps_results_by_scenario(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "real.json"
    arguments = [folder, "--protocol", "real", "--frames", 4, "-o", output]
    chosen = ["--scenario", "chroma20", "--scenario", "grain-half"]
    result = run_command(
        *arguments, *chosen, "--model", "fast", "--lookahead", 0, "--lookahead", 2, "--peers", "hqdn3d"
    )
    assert result.exit_code == 0, result.output
    written = json.loads(output.read_text())
    assert written["protocol"].items() >= {"kind": "real", "clips": ["scene"], "frames": 4}.items()
    methods = written["methods"]
    assert set(methods) == {"noisy", "fast", "fast (lookahead 2)", "hqdn3d"}
    assert list(methods["fast"]["scenarios"]) == ["chroma20", "grain-half"]
    assert list(methods["hqdn3d"]["scenarios"]) == ["chroma20"]  # no filter at half our strength
    assert methods["fast"]["kmac_per_pixel"] > 5
    assert methods["fast"]["weights"]
    table = output.with_suffix(".md").read_text()
    assert "**chroma20**" in table
    assert f"{methods['fast']['scenarios']['chroma20']['mean']['psnr']:.2f}" in table
    assert not output.with_suffix(".png").exists()

    # A scenario more: the rest is kept; other weights are measured again, the filter is not.
    methods["fast"]["weights"] = "old"
    output.write_text(json.dumps(written))
    chosen = ["--scenario", "tape", "--scenario", "chroma20"]
    result = run_command(*arguments, *chosen, "--model", "fast", "--lookahead", 0, "--peers", "hqdn3d")
    assert result.exit_code == 0, result.output
    assert "hqdn3d, scenario chroma20: kept from" in result.output
    assert "fast: the weights have changed" in result.output
    again = json.loads(output.read_text())["methods"]
    assert list(again["fast"]["scenarios"]) == ["chroma20", "tape"]
    assert again["noisy"]["scenarios"]["chroma20"] == methods["noisy"]["scenarios"]["chroma20"]

    result = run_command(folder, "--protocol", "real", "--frames", 5, "-o", output)
    assert isinstance(result.exception, UsageError)
    assert "frames a clip: 4; now: 5" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "real", "--sigma", 30], "--sigma does not go with --protocol real"),
        (["--protocol", "real", "--stills"], "--stills does not go with --protocol real"),
        (["--protocol", "photos", "--lookahead", 3], "--lookahead does not go with --protocol photos"),
        (["--protocol", "real", "--scenario", "rain"], "unknown scenario 'rain'; there are: planes20, planes10"),
        (["--scenario", "dark"], "--scenario goes with --protocol real"),
        (["--protocol", "photos"], "no pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, arguments: list[object], words: str) -> None:
    result = run_command(folder, *arguments)
    assert isinstance(result.exception, (UsageError, SourceOpenError))
    assert words in str(result.exception)


def test_without_ffmpeg_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(ffmpeg, "_packaged", lambda: None)
    result = run_command(folder, "--protocol", "real")
    assert isinstance(result.exception, UsageError)
    assert "there is no ffmpeg binary on PATH" in str(result.exception)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two photographs with their truth, as JPEG at 4:2:0."""
    rng = np.random.default_rng(3)
    for i in range(2):
        clean = scene(1, size=64 + 16 * i)[0].permute(1, 2, 0).numpy() * 255
        for ending, picture in (("mean", clean), ("real", clean + rng.normal(0, 12, clean.shape))):
            options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x221111]
            cv2.imwrite(str(tmp_path / f"p{i}_{ending}.JPG"), picture.clip(0, 255).astype(np.uint8), options)
    return tmp_path


@pytest.mark.usefixtures("short_ladders")
def test_photographs(photographs: Path, tmp_path: Path) -> None:
    names = [shot.name for shot in real.photo_pairs(photographs)]
    assert names == ["p0", "p1"]
    output = tmp_path / "photos.json"
    peers = "none" if PLANE_FILTERS["nlmeans"].unusable(1) else "nlmeans"
    result = run_command(photographs, "--protocol", "photos", "--model", "fast", "--peers", peers, "-o", output)
    assert result.exit_code == 0, result.output
    methods = json.loads(output.read_text())["methods"]
    means = {label: method["scenarios"]["photos"]["mean"] for label, method in methods.items()}
    assert means["fast"]["psnr"] > means["noisy"]["psnr"] + 0.2  # blind, on one small picture
    assert peers == "none" or means["nlmeans"]["psnr"] > means["noisy"]["psnr"] + 2
    assert "flicker" not in output.with_suffix(".md").read_text().split("**photos**")[1].split("\n| ")[1]
    # Each is a stream of its own.
    pair = real.photo_pairs(photographs)[1]
    assert real.score(real.denoising("fast")(pair.noisy), pair.clean) == methods["fast"]["scenarios"]["photos"]["p1"]


def test_photographs_of_different_sizes(photographs: Path) -> None:
    shutil.copy(photographs / "p1_mean.JPG", photographs / "p0_mean.JPG")
    with pytest.raises(UsageError, match=r"p0_real\.JPG and p0_mean\.JPG differ in size"):
        real.photo_pairs(photographs)


def test_temporal_filters_are_not_for_photographs(photographs: Path) -> None:
    result = run_command(photographs, "--protocol", "photos", "--model", "none", "--peers", "hqdn3d")
    assert isinstance(result.exception, UsageError)
    assert "at least 2 frames" in str(result.exception)


@needs_ffmpeg
def test_quick_validation_needs_ffmpeg_only_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "QUICK_SIZE", 48)
    monkeypatch.setattr(real, "QUICK_FRAMES", 3)
    monkeypatch.setattr(real, "MADE_OF", 4)
    real.centre_material.cache_clear()
    material = real.centre_material(folder, tmp_path)
    assert list(material) == list(real.QUICK)
    ((noisy, clean),) = material["chroma20"]
    assert noisy.shape == clean.shape == (3, 3, 48, 48)
    shot = shoot(SCENARIOS["chroma20"], "scene", folder / "scene.avi", 4)
    # 92 x 98: luma from line 22 and column 24 on, chroma from 11 and 12 on.
    planes = [p[t : t + n, left : left + n] for p, t, left, n in zip(
        shot.noisy[1].planes, (22, 11, 11), (24, 12, 12), (48, 24, 24), strict=True)]  # fmt: skip
    torch.testing.assert_close(noisy[1:2], real.to_rgb(replace(shot.noisy[1], planes=tuple(planes)), centred=True))

    real.centre_material.cache_clear()
    monkeypatch.setenv("PATH", "")
    again = real.centre_material(folder, tmp_path)
    assert torch.equal(again["chroma20"][0][0], noisy)
    network = load_model("fast").network
    found = real.quick_real_validation(network, folder, tmp_path)
    real.centre_material.cache_clear()
    assert list(found) == list(real.QUICK)
    noisy_psnr = real.psnr(noisy.clamp(0, 1), clean.clamp(0, 1)).mean().item()
    assert found["chroma20"] > noisy_psnr + 0.5


def test_tables() -> None:
    def row(psnr: float, **more: object) -> dict[str, object]:
        mean = {"psnr": psnr, "psnr_first": psnr - 1, "psnr_y": 40.0, "rms_y": 2.5, "temporal_error": 3.0}
        return {"a": mean, "mean": mean, **more}

    results = {
        "protocol": {"kind": "real", "scenarios": {"dark": "a night", "tape": "a tape", "grain": "film"}},
        "methods": {
            "noisy": {"scenarios": {"dark": row(30.0), "tape": row(20.0)}},
            "bad": {"scenarios": {"dark": row(31.0)}},
            "good": {"scenarios": {"tape": row(25.5, strength="luma 3, chroma 9", strength_at_edge=True)}},
        },
    }
    text = markdown(results)
    lines = text.splitlines()
    assert lines[2:7] == [
        "| method | dark | tape | grain |", "|---|---|---|---|", "| good | – | 25.50 | – |", "| bad | 31.00 | – | – |",
        "| noisy | 30.00 | 20.00 | – |",
    ]  # fmt: skip
    assert "**dark**: a night." in text
    assert "**grain**" not in text
    assert "| good | 25.50 | 24.50 | 40.00 | 2.50 | 3.00 | luma 3, chroma 9\\* |" in lines
    assert text.count("\\* the strongest of those tried") == 1


def test_documents_take_the_first_table_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    update_docs = importlib.import_module("update_docs")
    monkeypatch.setattr(update_docs, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "real.md").write_text("PSNR.\n\n| a |\n|---|\n| 1 |\n\n| b |\n|---|\n| 2 |\n")
    text = "x\n<!-- begin real:1 -->\nold\n<!-- end real:1 -->\n<!-- begin real --><!-- end real -->\n"
    assert update_docs.fill(text) == (
        "x\n<!-- begin real:1 -->\nPSNR.\n\n| a |\n|---|\n| 1 |\n<!-- end real:1 -->\n"
        "<!-- begin real -->\nPSNR.\n\n| a |\n|---|\n| 1 |\n\n| b |\n|---|\n| 2 |\n<!-- end real -->\n"
    )
