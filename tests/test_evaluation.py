"""Metrics against known values; the protocol; the shipped models against plain references."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vidnoise.errors import SourceOpenError
from vidnoise.evaluation.metrics import psnr, ssim, temporal_error
from vidnoise.evaluation.peers import PEERS
from vidnoise.evaluation.protocol import evaluate, network_method, noisy_clip
from vidnoise.weights import list_models, load_model


def scene(n: int = 8, size: int = 96, speed: int = 2) -> torch.Tensor:
    """A textured scene under a moving camera, ``(n, 3, size, size)``: edges, gradients, fine detail."""
    rng = np.random.default_rng(7)
    canvas = cv2.resize(rng.random((6, 10, 3), np.float32), (size * 3, size + 32), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        corner = rng.integers(0, size * 3, 2)
        colour = tuple(float(c) for c in rng.random(3))
        cv2.rectangle(canvas, corner, corner + rng.integers(4, 30, 2), colour, -1)
    canvas = canvas.mean(2, keepdims=True) + 0.45 * (canvas - canvas.mean(2, keepdims=True))  # as colourful as photos
    frames = [canvas[8 : size + 8, i * speed : i * speed + size] for i in range(n)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).clamp(0, 1)


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(2, 3, 8, 8)
    assert psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0])


def test_ssim_of_known_pictures() -> None:
    a = scene(1)
    assert ssim(a, a).item() == pytest.approx(1.0)
    # Of two constants c and d only the luminance term is left: (2cd + C1) / (c² + d² + C1).
    c, d = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.6)
    assert ssim(c, d).item() == pytest.approx((0.48 + 1e-4) / (0.52 + 1e-4), abs=1e-4)


def test_ssim_agrees_with_kornia() -> None:
    kornia = pytest.importorskip("kornia")
    a = scene(2)
    b = noisy_clip("s", a, 20).clamp(0, 1)
    reference = kornia.metrics.ssim(a, b, window_size=11, padding="valid").mean((1, 2, 3))
    torch.testing.assert_close(ssim(a, b), reference, rtol=0, atol=1e-4)


def test_temporal_error_ignores_constant_bias() -> None:
    clean = scene(4)
    assert temporal_error(clean + 0.1, clean) == pytest.approx(0, abs=1e-4)
    flicker = torch.tensor([0.0, 0.1, 0.0, 0.1]).view(4, 1, 1, 1)
    assert temporal_error(clean + flicker, clean) == pytest.approx(25.5, abs=1e-3)


def test_protocol_noise_is_seeded_by_clip_and_sigma() -> None:
    clean = scene(3)
    noisy = noisy_clip("a", clean, 30)
    assert torch.equal(noisy, noisy_clip("a", clean, 30))
    assert not torch.equal(noisy, noisy_clip("b", clean, 30))
    assert (noisy - clean).std() * 255 == pytest.approx(30, rel=0.02)
    assert noisy.min() < 0  # not clipped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips")
    writer = cv2.VideoWriter(str(path / "scene.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 25, (96, 96))
    for frame in scene(5):
        writer.write(np.ascontiguousarray((frame.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)))
    writer.release()
    return path


def test_evaluate_averages_over_clips(folder: Path) -> None:
    result = evaluate(lambda noisy, sigma: noisy, folder, (30.0,), n_frames=4)
    # Clipping to [0, 1] removes a little of the noise, so the score lies just above the unclipped value.
    assert 0 < result["30"]["mean"]["psnr"] - 20 * np.log10(255 / 30) < 2
    assert result["30"]["mean"] == result["30"]["scene"]
    with pytest.raises(SourceOpenError, match="no clips"):
        evaluate(lambda noisy, sigma: noisy, folder.parent / "none", (30.0,))


@pytest.mark.parametrize("name", PEERS)
def test_peers_denoise(name: str) -> None:
    if name != "opencv-nlm" and shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg binary")
    clean = scene(4)
    noisy = noisy_clip("scene", clean, 30)
    scores = [psnr(PEERS[name].method(s)(noisy, 0.0), clean).mean() for s in PEERS[name].strengths(30)]
    assert max(scores) > psnr(noisy.clamp(0, 1), clean).mean() + 2


def test_command_writes_json_and_table(folder: Path, tmp_path: Path) -> None:
    from vidnoise.cli.evaluate import evaluate as command

    output = tmp_path / "out" / "quality.json"
    arguments = [str(folder), "--model", "fast", "--peers", "opencv-nlm", "--sigma", "30", "--frames", "3"]
    result = CliRunner().invoke(command, [*arguments, "--device", "cpu", "-o", str(output)])
    assert result.exit_code == 0, result.output
    scores = json.loads(output.read_text())
    assert set(scores) == {"fast", "opencv-nlm"}
    assert scores["fast"]["30"]["mean"]["psnr"] > 20
    table = output.with_suffix(".md").read_text()
    assert f"{scores['fast']['30']['mean']['psnr']:.2f}" in table


MARGIN = {"fast": 0.8, "standard": 3.0}
"""dB. The scene is drawn, smooth and colourful, which suits blurring; on real clips the margins are larger."""


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("sigma", [15, 40])
@pytest.mark.parametrize("name", ["fast", "fast-awgn", "standard", "standard-awgn"])
def test_shipped_models_beat_plain_references(name: str, sigma: int, blind: bool) -> None:
    """Better than Gaussian blur and OpenCV's non-local means, each at its best strength, by the tier's margin."""
    assert name in list_models()
    clean = scene(8)
    noisy = noisy_clip("scene", clean, sigma)
    blurs = [
        torch.from_numpy(np.stack([cv2.GaussianBlur(f, (0, 0), s) for f in noisy.permute(0, 2, 3, 1).numpy()]))
        for s in (0.5, 0.7, 1.0, 1.4)
    ]
    peer = PEERS["opencv-nlm"]
    references = [b.permute(0, 3, 1, 2).clamp(0, 1) for b in blurs]
    references += [peer.method(s)(noisy, 0.0) for s in peer.strengths(sigma)]
    best = max(psnr(r, clean).mean().item() for r in references)
    network, _ = load_model(name)
    ours = psnr(network_method(network, blind=blind)(noisy, sigma / 255).clamp(0, 1), clean).mean().item()
    assert ours > best + MARGIN[name.partition("-")[0]]
