"""The same results on CUDA as on the CPU, and nothing waits for what it need not."""

from __future__ import annotations

import pytest
import torch

from support.networks import noisy_frames
from support.streams import frames, values
from vidnoise.evaluation.metrics import psnr
from vidnoise.frame import PIXEL_FORMATS, Frame
from vidnoise.pipeline.device_transfer import make_device_transfer
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import load_model

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 would round inputs to 10 bits and hide real differences."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("name", ["fast", "standard"])
def test_network_agrees_with_the_cpu(name: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        network = load_model(name, device).network
        state = network.initial_state(1, 32, 48, device=device)
        for frame in noisy_frames(4):
            noisy = frame.to(device)
            sigma, state = network.estimate_sigma(noisy, state)
            clean, state, _ = network(noisy, sigma, state)
        results.append(clean.cpu())
    torch.testing.assert_close(*results, rtol=0, atol=1e-3)


def test_half_precision_is_close_to_float32() -> None:
    stream = frames(5, 64, 96)
    outputs = []
    for precision in ("fp32", "fp16"):
        denoiser = Denoiser("fast", device="cuda", precision=precision)
        transfer = make_device_transfer(denoiser.device)
        outputs.append([values(f) for f in transfer.download(denoiser(transfer.upload(iter(stream))))])
    for a, b in zip(*outputs, strict=True):
        assert psnr(a[None], b[None]) > 50


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "p010le", "rgb24", "gray"])
def test_strength_zero_is_bit_exact_on_the_device(name: str) -> None:
    form = PIXEL_FORMATS[name]
    top = 2**form.bit_depth
    planes = tuple(
        (torch.randint(0, top, form.plane_shape(i, 48, 64)) << form.msb_shift).to(
            torch.uint8 if top <= 256 else torch.uint16
        )
        for i in range(len(form.layout))
    )
    denoiser = Denoiser("fast", device="cuda", strength=0.0)
    transfer = make_device_transfer(denoiser.device)
    out = list(transfer.download(denoiser(transfer.upload(iter([Frame(planes, form)] * 3)))))
    assert len(out) == 3
    for frame in out:
        for before, after in zip(planes, frame.planes, strict=True):
            assert torch.equal(before, after)
