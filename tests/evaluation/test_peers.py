"""The classic filters: each does its work, at a strength that was searched, and its absence is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from support.scenes import scene
from vidnoise.errors import UsageError
from vidnoise.evaluation import ffmpeg
from vidnoise.evaluation.metrics import psnr
from vidnoise.evaluation.peers import PEERS, Peer, choose, search
from vidnoise.evaluation.protocol import evaluate, noisy_clip

BM3D_FRAMES = 1
"""BM3D takes seconds for a small frame."""

GAIN = {"atadenoise": 0.4}
"""dB by which a filter's best beats the noisy clip; 2 dB but for averaging over time under a moving camera."""


@pytest.mark.parametrize("name", PEERS)
def test_peers_denoise(name: str) -> None:
    peer = PEERS[name]
    if reason := peer.missing():
        pytest.skip(reason)
    clip = [("scene", scene(BM3D_FRAMES if name == "bm3d-pypi" else 5, size=64))]
    strength, _ = search(peer, clip, 30)
    mean = evaluate(peer.method(strength), clip, 30, idle=peer.idle_method())["mean"]
    noisy = noisy_clip(*clip[0], 30).clamp(0, 1)
    assert mean["psnr"] > psnr(noisy, clip[0][1]).mean().item() + GAIN.get(name, 2.0)
    assert mean["ms_per_megapixel"] > 0


@pytest.mark.parametrize("name", [p.name for p in PEERS.values() if p.least_frames == 1 and p.name != "bm3d-pypi"])
def test_peers_take_single_pictures(name: str) -> None:
    peer = PEERS[name]
    if reason := peer.missing():
        pytest.skip(reason)
    clean = scene(1, size=64)
    noisy = noisy_clip("scene", clean, 20)
    out = peer.method(peer.strengths(20)[2])(noisy, 0.0)
    assert out.shape == clean.shape
    assert psnr(out, clean).item() > psnr(noisy.clamp(0, 1), clean).item()


def test_the_window_of_opencvs_multi_shrinks_at_the_ends() -> None:
    pictures = (noisy_clip("s", scene(5, size=48), 20).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    multi, single = (PEERS[name].run(pictures, 12.0) for name in ("opencv-nlm-multi", "opencv-nlm"))
    alike = [np.array_equal(a, b) for a, b in zip(multi, single, strict=True)]
    assert alike == [True, False, False, False, True]  # windows of 1, 3, 5, 3, 1 frames
    bgr = [np.ascontiguousarray(p[..., ::-1]) for p in pictures]
    whole = cv2.fastNlMeansDenoisingColoredMulti(bgr, 2, 5, None, 12.0, 12.0, 7, 21)
    assert np.array_equal(multi[2], whole[..., ::-1])


def blend(best: float, limits: tuple[float, float] = (0.0, 1e9)) -> Peer:
    """A filter that is best at ``best`` times sigma: it knows the clean scene, and adds an error elsewhere."""
    clean = scene(2).permute(0, 2, 3, 1).numpy()

    def run(pictures: np.ndarray, strength: float) -> np.ndarray:
        return (clean * 0.5 + 0.2 + 0.1 * abs(np.log(strength / (30 * best)))).astype(np.float32)

    return Peer("blend", run, (0.5, 1.0, 2.0), limits, floating=True)


@pytest.mark.parametrize(
    ("best", "limits", "expected", "edge"),
    [
        (1.0, (0.0, 1e9), 30.0, False),
        (1.4, (0.0, 1e9), 42.43, False),  # halfway between 30 and 60
        (1.9, (0.0, 1e9), 60.0, True),
        (0.3, (0.0, 1e9), 15.0, True),
        (2.0, (0.0, 40.0), 40.0, True),  # the filter's own limit
    ],
)
def test_search_says_when_the_best_lies_at_the_edge(
    best: float, limits: tuple[float, float], expected: float, edge: bool
) -> None:
    assert search(blend(best, limits), [("scene", scene(2) * 0.5 + 0.2)], 30) == (expected, edge)


def test_a_single_factor_is_not_searched() -> None:
    def never(pictures: np.ndarray, strength: float) -> np.ndarray:
        raise AssertionError

    assert search(Peer("one", never, (1.0,)), [], 25) == (25.0, False)


def test_without_ffmpeg_its_filters_are_left_out_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(ffmpeg, "_packaged", lambda: None)
    chosen, lines = choose("all", 20, PEERS)
    assert {p.name for p in chosen} >= {"opencv-nlm", "opencv-nlm-multi"}
    assert not {p.name for p in chosen} & {"hqdn3d", "nlmeans", "bm3d-ffmpeg"}
    assert "hqdn3d is left out: there is no ffmpeg binary on PATH" in lines
    with pytest.raises(UsageError, match="hqdn3d cannot run: there is no ffmpeg"):
        choose("opencv-nlm,hqdn3d", 20, PEERS)


def test_an_ffmpeg_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/ffmpeg")
    monkeypatch.setattr(ffmpeg, "_packaged", lambda: None)
    monkeypatch.setattr(ffmpeg, "_filters", lambda binary: frozenset({"nlmeans"}))
    assert "owdenoise is left out: /opt/ffmpeg was built without the filter owdenoise" in choose("all", 20, PEERS)[1]


def test_without_the_bm3d_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    assert [line for line in choose("all", 20, PEERS)[1] if line.startswith("bm3d-pypi is left out")]
    with pytest.raises(UsageError, match=r"vidnoise\[peers\]"):
        choose("bm3d-pypi", 20, PEERS)


def test_choices() -> None:
    assert choose("none", 20, PEERS) == ([], [])
    with pytest.raises(UsageError, match="unknown peer 'median'"):
        choose("median", 20, PEERS)


def test_clips_can_be_too_short_for_a_peer() -> None:
    with pytest.raises(UsageError, match="opencv-nlm-multi cannot run: it needs clips of at least 2 frames"):
        choose("opencv-nlm-multi", 1, PEERS)
    assert not {p.name for p in choose("all", 1, PEERS)[0]} & {"atadenoise", "opencv-nlm-multi"}
    with pytest.raises(UsageError, match="got 1"):  # a clip may be shorter than what was asked for
        PEERS["opencv-nlm-multi"].method(10.0)(scene(1), 0.0)


def test_an_ffmpeg_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := PEERS["hqdn3d"].missing():
        pytest.skip(reason)
    monkeypatch.setattr(ffmpeg, "PATIENCE_SECONDS", (1e-3, 0.0))
    with pytest.raises(UsageError, match="hqdn3d did not end within"):
        PEERS["hqdn3d"].method(10.0)(scene(2, size=64), 0.0)


def test_help_names_every_peer() -> None:
    from vidnoise.cli.evaluate import evaluate as command

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert all(f"{name}" in text for name in PEERS)


@pytest.mark.parametrize("named", [True, False])
def test_a_peer_that_fails_does_not_end_a_run_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    from vidnoise.cli.evaluate import evaluate as command

    def fail(pictures: np.ndarray, strength: float) -> np.ndarray:
        raise UsageError("the filter failed")

    for name in [*PEERS]:
        monkeypatch.delitem(PEERS, name)
    for peer in (Peer("broken", fail, (1.0,)), Peer("fine", lambda p, s: p, (0.5, 1.0, 2.0))):
        monkeypatch.setitem(PEERS, peer.name, peer)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.png"), (torch.rand(32, 32).numpy() * 255).astype(np.uint8))
    options = [str(pictures), "--stills", "--model", "none", "--sigma", "25", "--threads", "1", "--device", "cpu"]
    result = CliRunner().invoke(command, [*options, "--peers", "broken,fine" if named else "all"])
    if named:
        assert isinstance(result.exception, UsageError)
    else:
        assert result.exit_code == 0, result.output
        assert "broken is left out: the filter failed" in result.output
        assert "| fine |" in result.output
        assert "edge of those tried" in result.output  # all strengths do the same, so the first is taken
        assert "best strength is the weakest or strongest" in result.output
