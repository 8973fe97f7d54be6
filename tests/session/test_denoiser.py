"""A stream's session: resets, padding, strength, cuts, several streams on one network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from support.streams import RGB, denoise, frames, moving_scene, values
from vidnoise.backends.device import resolve_device, resolve_precision
from vidnoise.errors import DeviceError, UnknownModelError, UsageError
from vidnoise.frame import PIXEL_FORMATS, ColorInfo, Frame
from vidnoise.kernels.conversion import to_network
from vidnoise.model import DenoiseNetwork
from vidnoise.session.cuts import detect_cut, thumbnail
from vidnoise.session.denoiser import Denoiser
from vidnoise.session.sample_noise import sample_noise
from vidnoise.session.stream_batch import StreamBatch
from vidnoise.training.batch import measured_sigma
from vidnoise.weights import Model, ModelCard


def test_every_frame_comes_back_with_its_time(network: DenoiseNetwork) -> None:
    out = list(Denoiser(network, sigma=13, device="cpu")(frames(4)))
    assert [(f.index, f.pts) for f in out] == [(i, i) for i in range(4)]


def test_a_loaded_model_is_known_by_its_card_wherever_it_is_shared(network: DenoiseNetwork) -> None:
    loaded = Model(network, ModelCard("mine", tier="fast"))
    first = Denoiser(loaded, device="cpu")
    assert first.network is network
    assert first.model_name == Denoiser(first.model, device="cpu", backend=first.backend).model_name == "mine"
    assert StreamBatch(loaded, device="cpu").open(sigma=5).model_name == "mine"
    assert Denoiser(network, device="cpu").model_name == "custom"


def test_strength_zero_is_the_identity(network: DenoiseNetwork) -> None:
    stream = frames(3)
    for before, after in zip(stream, denoise(network, stream, strength=0.0), strict=True):
        assert torch.equal(values(before), after)


def test_strength_mixes_linearly(network: DenoiseNetwork) -> None:
    stream = frames(2)
    full, half = (denoise(network, stream, strength=s)[1] for s in (1.0, 0.5))
    torch.testing.assert_close(half, (full + values(stream[1])) / 2, rtol=0, atol=1e-5)


def test_reset_equals_a_fresh_session(network: DenoiseNetwork) -> None:
    stream = frames(4)
    denoiser = Denoiser(network, sigma=13, device="cpu", precision="fp32")
    for frame in stream[:2]:
        denoiser.push(frame)
    denoiser.reset()
    out = [values(denoiser.push(f)[0]) for f in stream[2:]]
    for a, b in zip(out, denoise(network, stream[2:]), strict=True):
        assert torch.equal(a, b)


def test_discontinuity_forgets_the_past(network: DenoiseNetwork) -> None:
    stream = frames(3)
    jump = [*stream[:2], replace(stream[2], discontinuity=True)]
    assert torch.equal(denoise(network, jump)[2], denoise(network, stream[2:])[0])
    assert not torch.equal(denoise(network, stream)[2], denoise(network, stream[2:])[0])


def test_size_change_starts_anew(network: DenoiseNetwork) -> None:
    small, large = frames(2), frames(1, 40, 64)
    assert torch.equal(denoise(network, small + large)[2], denoise(network, large)[0])


def test_interleaved_streams_do_not_touch_each_other(network: DenoiseNetwork) -> None:
    a, b = frames(3, seed=1), frames(3, seed=2)
    first, second = (Denoiser(network, sigma=13, device="cpu", precision="fp32") for _ in range(2))
    mixed = [(values(first.push(x)[0]), values(second.push(y)[0])) for x, y in zip(a, b, strict=True)]
    for (x, y), alone_x, alone_y in zip(mixed, denoise(network, a), denoise(network, b), strict=True):
        assert torch.equal(x, alone_x)
        assert torch.equal(y, alone_y)


@pytest.mark.parametrize("size", [(33, 47), (16, 16), (7, 5), (1, 1)])
def test_any_size_works(network: DenoiseNetwork, size: tuple[int, int]) -> None:
    for out in denoise(network, frames(2, *size)):
        assert out.shape == (3, *size)
        assert torch.isfinite(out).all()


def cut_indices(pictures: list[torch.Tensor]) -> list[int]:
    memory, cuts = None, []
    for index, picture in enumerate(pictures):
        cut, memory = detect_cut(thumbnail(picture[None]), memory)
        if cut:
            cuts.append(index)
    return cuts


def test_cuts_are_found_and_nothing_else() -> None:
    a, b, c = (moving_scene(seed, 8, speed) for seed, speed in ((1, 0), (2, 6), (3, 2)))
    assert cut_indices(a + b + c) == [8, 16]


@pytest.mark.parametrize("change", ["pan", "flash", "fade", "noise"])
def test_what_is_not_a_cut(change: str) -> None:
    pictures = moving_scene(4, 12, 8 if change == "pan" else 0)
    if change == "flash":
        pictures[6] = pictures[6] * 0.5 + 0.5
    elif change == "fade":
        pictures = [p * (1 - i / 12) for i, p in enumerate(pictures)]
    elif change == "noise":
        generator = torch.Generator().manual_seed(0)
        pictures = [p + 0.25 * torch.randn(p.shape, generator=generator) for p in pictures]
    assert cut_indices(pictures) == []


def test_a_wild_pan_is_cut_once_at_most() -> None:
    assert len(cut_indices(moving_scene(4, 12, 24))) <= 1


def test_nothing_crosses_a_cut(network: DenoiseNetwork) -> None:
    """The frame after a cut comes out as if it were the first of a stream, and the cut is counted."""
    pictures = moving_scene(1, 4, 0) + moving_scene(2, 3, 0)
    stream = [Frame(tuple(p), RGB, index=i) for i, p in enumerate(pictures)]
    denoiser = Denoiser(network, sigma=25, device="cpu", precision="fp32")
    out = [values(denoiser.push(f)[0]) for f in stream]
    assert denoiser.n_cuts == 1
    alone = denoise(network, stream[4:], sigma=25)
    for a, b in zip(out[4:], alone, strict=True):
        assert torch.equal(a, b)
    kept = denoise(network, stream, sigma=25, detect_cuts=False)
    assert not torch.equal(kept[4], alone[0])


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_preview_leaves_the_left_half_as_one_sees_it(network: DenoiseNetwork, rotation: int) -> None:
    stream = frames(3)
    whole = denoise(network, stream)
    for before, after, both in zip(
        stream, whole, denoise(network, stream, preview="split", rotation=rotation), strict=True
    ):
        source, clean, mixed = (torch.rot90(p, rotation // 90, (1, 2)) for p in (values(before), after, both))
        middle = mixed.shape[2] // 2
        assert torch.equal(mixed[..., : middle - 2], source[..., : middle - 2])
        assert torch.equal(mixed[..., middle + 2 :], clean[..., middle + 2 :])
        assert (mixed[..., middle - 1 : middle + 1] == 1).all()


def test_bad_options_are_refused(network: DenoiseNetwork) -> None:
    for options, match in (({"sigma": -1}, "sigma"), ({"sigma": 256}, "sigma"), ({"strength": 3}, "strength"),
                           ({"preview": "left"}, "preview")):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            Denoiser(network, device="cpu", **options)
    with pytest.raises(UnknownModelError):
        Denoiser("none-such", device="cpu")


def test_devices_and_precisions_are_never_swapped_silently() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:x", "cpu:1", "cuda:99"):
        with pytest.raises(DeviceError):
            resolve_device(name)
    with pytest.raises(UsageError, match="fp16"):
        resolve_precision("fp16", torch.device("cpu"))
    with pytest.raises(UsageError, match="fp64"):
        resolve_precision("fp64", torch.device("cpu"))


@pytest.mark.parametrize("name", ["gray", "gray16le", "rgb24", "yuv444p", "yuv420p", "yuv422p10le", "nv12", "yuv411p"])
def test_a_told_sigma_is_of_the_samples(name: str) -> None:
    """It is what the noise is found to be in the network's channels and bands, in every format."""
    form, sigma, size = PIXEL_FORMATS[name], 12, 256
    unit = 2.0 ** (form.bit_depth - 8 + form.msb_shift)
    dtype = torch.uint8 if form.bit_depth == 8 else torch.uint16
    torch.manual_seed(0)
    shapes = [form.plane_shape(i, size, size) for i in range(len(form.layout))]
    noise = [(torch.randn(shape) * sigma * unit).round() for shape in shapes]
    noisy, clean = (
        Frame(tuple((110 * unit + n * i).to(dtype) for n in noise), form, ColorInfo(matrix=1, range=1)) for i in (1, 0)
    )
    true = measured_sigma((to_network(noisy, 16) - to_network(clean, 16))[None], window=size).mean((0, 2, 3)) * 255
    told = torch.tensor(sample_noise(noisy)) * sigma * 255
    assert torch.allclose(told, true, rtol=0.03, atol=0.3)


def test_gray_noise_is_told_as_it_is_measured() -> None:
    """Of gray noise as much is removed when its sigma is told as when it is found."""
    rng = torch.Generator().manual_seed(0)
    scene = torch.full((64, 96), 120.0)
    planes = [(scene + 20 * torch.randn(scene.shape, generator=rng)).round().clamp(0, 255) for _ in range(4)]
    stream = [Frame((plane.to(torch.uint8),), PIXEL_FORMATS["gray"], index=i, pts=i) for i, plane in enumerate(planes)]

    def error(sigma: float | None) -> float:
        (*_, last) = Denoiser("fast", device="cpu", precision="fp32", sigma=sigma)(stream)
        return float((last.planes[0] - scene).square().mean().sqrt())

    assert error(20) < 1.2 * error(None)
    assert error(20) < 3


def test_known_sigma_is_reported(network: DenoiseNetwork) -> None:
    denoiser = Denoiser(network, sigma=25, device="cpu")
    assert denoiser.estimated_sigma is None
    denoiser.push(frames(1)[0])
    assert denoiser.estimated_sigma == pytest.approx(25, abs=0.1)
