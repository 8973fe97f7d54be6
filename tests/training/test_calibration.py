"""int8: ranges of activations are found, and training goes on through the rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.networks import TINY, noisy_frames
from support.training_setup import config, make_data
from vidnoise.errors import UsageError
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.model.quantisation import quantised_layers
from vidnoise.training import calibration
from vidnoise.training.batch import Batch
from vidnoise.training.calibration import calibrate, observed_ranges, quantise
from vidnoise.training.config import Stage, load_config
from vidnoise.training.distillation import pictures
from vidnoise.training.loop import Trainer
from vidnoise.weights import load_model


def batch(frames: int = 1) -> Batch:
    """A scene, and the same with noise."""
    noisy = noisy_frames(frames)
    sigma = torch.stack([uniform_sigma(0.1, frame) for frame in noisy])
    return Batch(noisy - 0.01, noisy, sigma, torch.full((1,), 0.1))


def network() -> DenoiseNetwork:
    torch.manual_seed(2)
    return DenoiseNetwork(replace(TINY, quantised=True)).eval().requires_grad_(False)


def test_observed_ranges_are_those_of_the_layers_inputs() -> None:
    model, seen = network(), []
    model.core.to3.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ranges = observed_ranges(model, [batch(), batch(3)])
    assert len(seen) == 4
    assert ranges["core.to3"] == (min(x.min().item() for x in seen), max(x.max().item() for x in seen))
    assert ranges["core.middle.0.conv2"][0] == 0, "behind a ReLU"
    assert set(ranges) == {name for name, _ in quantised_layers(model)}


@pytest.mark.parametrize("best", [1.0, 0.25])
def test_a_range_is_narrowed_for_as_long_as_pictures_get_better(monkeypatch: pytest.MonkeyPatch, best: float) -> None:
    model = network()
    ranges = observed_ranges(model, [batch()])

    def error(model: DenoiseNetwork, _: object) -> float:
        (name, layer), *others = [(n, layer) for n, layer in quantised_layers(model) if layer.rounds]
        assert not others, "one at a time"
        low, high = ranges[name]
        return abs(layer.input_scale.item() * 255 / ((max(high, 0.0) - min(low, 0.0)) or 255) - best)

    monkeypatch.setattr(calibration, "_error", error)
    calibrate(model, [batch()])
    for name, layer in quantised_layers(model):
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        assert layer.input_scale * 255 == pytest.approx(best * (high - low) or 255, rel=1e-3)


def test_calibration_follows_the_pictures() -> None:
    """With a range of the wrong size, pictures are worse than with the one that is found."""
    model, given = network(), batch()
    given = given._replace(clean=pictures(model, given))
    calibrate(model, [given])

    def error(model: DenoiseNetwork) -> float:
        found = pictures(model.in_precision(torch.int8), given) - pictures(model, given)
        return found.square().mean().item()

    found = error(model)
    for factor in (8.0, 1 / 64):
        other = network()
        for (_, layer), (_, theirs) in zip(quantised_layers(other), quantised_layers(model), strict=True):
            layer.input_scale.copy_(theirs.input_scale * factor)
            layer.input_zero_point.copy_(theirs.input_zero_point)
        assert error(other) > 2 * found


def test_quantising_keeps_weights_and_what_is_quantised() -> None:
    torch.manual_seed(2)
    plain = DenoiseNetwork(TINY)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    quantise(plain, [batch()])
    assert plain.config.quantised
    assert all(torch.equal(plain.state_dict()[key], value) for key, value in before.items())
    assert all(layer.rounds for _, layer in quantised_layers(plain))
    ranges = [layer.input_scale.item() for _, layer in quantised_layers(plain)]
    quantise(plain, [batch(2)])
    assert [layer.input_scale.item() for _, layer in quantised_layers(plain)] == ranges


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in floats to start from."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "tiny.safetensors"
    Trainer(config(), data, folder / "run", cache=folder).export(path)
    return path


STAGE = Stage("clips", 2, 2, 32, steps=4, still_share=0.5, part="core")


def test_training_through_the_rounding_moves_the_core_and_resumes(data: Path, model: Path, tmp_path: Path) -> None:
    settings = config(int8=True, initial=str(model), model={}, stages=(STAGE,))
    whole = Trainer(settings, data, tmp_path / "whole", cache=tmp_path)
    before = {key: value.clone() for key, value in whole.network.state_dict().items()}
    assert all(layer.rounds for _, layer in quantised_layers(whole.network))
    whole.fit(every=2)
    after = whole.network.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert {key.split(".")[0] for key in changed} == {"core"}
    assert "core.to2.weight" in changed
    assert not [key for key in changed if "input" in key], "ranges stay"
    # In two goes, the same
    half = replace(settings, stages=(replace(STAGE, steps=4),))
    first = Trainer(half, data, tmp_path / "halves", cache=tmp_path)
    for _ in range(2):
        first.train_step()
    first._save()
    second = Trainer(half, data, tmp_path / "halves", cache=tmp_path)
    second.fit()
    for key, value in after.items():
        torch.testing.assert_close(second.network.state_dict()[key], value, rtol=0, atol=1e-6)
    stored = load_file(tmp_path / "whole" / "tiny.safetensors")
    assert stored["core.to2.weight"].dtype is torch.int8
    assert load_model(tmp_path / "whole" / "tiny.safetensors").network.config.quantised


@pytest.mark.parametrize("text", ["int8 = true\n", 'int8 = true\ninitial = "fast"\nreparameterise = true\n'])
def test_int8_needs_a_model_to_start_from(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        f'tier = "fast"\n{text}noise = {{ gaussian = 1 }}\n[[stages]]\nname = "a"\nbatch = 1\nframes = 1\n'
        "patch = 16\nsteps = 1\n"
    )
    with pytest.raises(UsageError, match="int8 needs the name or file of a model as initial"):
        load_config(str(path))
