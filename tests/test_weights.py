"""Model files: strict, honest, whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from test_model import TINY
from vidnoise.errors import UnknownModelError, WeightsError
from vidnoise.model import DenoiseNetwork
from vidnoise.weights import ModelCard, list_models, load_model, read_card, save_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    path = tmp_path / "tiny-1.safetensors"
    save_model(DenoiseNetwork(TINY), ModelCard("tiny", "fast", metrics={"psnr": 1.5}), path)
    return path


def rewrite(path: Path, **metadata: str) -> None:
    card, config = read_card(path)
    base = {
        "vidnoise_format": "1",
        "config": json.dumps(config),
        "card": json.dumps({"name": card.name, "tier": "fast"}),
    }
    save_file(load_file(path), path, metadata={**base, **metadata})


def test_round_trip(saved: Path) -> None:
    network, card = load_model(saved)
    assert card == ModelCard("tiny", "fast", metrics={"psnr": 1.5})
    assert network.config == TINY
    assert not network.training
    assert not list(saved.parent.glob("*.part"))
    for key, value in load_file(saved).items():
        assert torch.equal(network.state_dict()[key], value)


def test_unknown_names_suggest_a_near_one() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'standard'"):
        load_model("standart")
    with pytest.raises(UnknownModelError, match="does not exist"):
        load_model("nowhere/model.safetensors")


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.safetensors"
    broken.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_model(broken)
    rewrite(saved, vidnoise_format="9")
    with pytest.raises(WeightsError, match="format 9"):
        load_model(saved)


def test_foreign_settings_are_refused(saved: Path) -> None:
    rewrite(saved, config=json.dumps({**TINY.to_dict(), "attention": True}))
    with pytest.raises(WeightsError, match="attention"):
        load_model(saved)
    rewrite(saved, config=json.dumps({**TINY.to_dict(), "hidden": 5}))
    with pytest.raises(WeightsError, match="size mismatch"):
        load_model(saved)


def test_shipped_models_load_and_name_themselves() -> None:
    names = list_models()
    assert {"fast", "standard", "quality"} <= set(names)
    for name in names:
        network, card = load_model(name)
        assert card.name == name
        assert card.training, f"{name}: the card does not say how it was trained"
        assert all(torch.isfinite(v).all() for v in network.state_dict().values())
