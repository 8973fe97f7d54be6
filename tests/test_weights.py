"""Model files: strict, honest, whole."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.networks import TINY
from vidnoise.errors import UnknownModelError, UsageError, WeightsError
from vidnoise.model import DenoiseNetwork
from vidnoise.weights import (
    FORMAT,
    ModelCard,
    as_model,
    checksum,
    list_models,
    load_model,
    read_card,
    save_model,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    path = tmp_path / "tiny-1.safetensors"
    save_model(DenoiseNetwork(TINY), ModelCard("tiny", "fast", metrics={"psnr": 1.5}), path)
    return path


def rewrite(path: Path, **metadata: str) -> None:
    card, config = read_card(path)
    base = {
        "vidnoise_format": FORMAT,
        "config": json.dumps(config),
        "card": json.dumps({"name": card.name, "tier": "fast"}),
    }
    save_file(load_file(path), path, metadata={**base, **metadata})


def test_round_trip(saved: Path) -> None:
    model = load_model(saved)
    network, card = model.network, model.card
    assert card == ModelCard("tiny", "fast", metrics={"psnr": 1.5}, sha256=checksum(load_file(saved)))
    assert network.config == TINY
    assert not network.training
    assert not list(saved.parent.glob("*.part"))
    for key, value in load_file(saved).items():
        assert torch.equal(network.state_dict()[key], value)


def test_a_model_says_what_it_is_and_stays_as_it_is(saved: Path) -> None:
    model = load_model(saved)
    count = sum(values.numel() for values in load_file(saved).values())
    assert repr(model) == f"Model('tiny', tier fast, version 1, {count:,} weights on cpu)"
    assert model.name == model.card.name == "tiny"
    with pytest.raises(AttributeError):
        model.card = ModelCard("other", "fast")  # type: ignore[misc]
    with pytest.raises(TypeError):
        _ = model[0]  # type: ignore[index]


def test_whatever_names_a_model_is_taken_for_one(saved: Path) -> None:
    model = load_model(saved)
    assert as_model(model) is model
    assert as_model(saved).card == as_model(str(saved)).card == model.card
    alone = as_model(model.network)
    assert (alone.name, alone.network) == ("custom", model.network)
    for wrong in ((model.network, model.card), None, 3):
        with pytest.raises(UsageError, match="model must be") as caught:
            as_model(wrong)  # type: ignore[arg-type]
        assert caught.value.option == "model"


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
        model = load_model(name)
        network, card = model.network, model.card
        assert card.name == name
        assert card.training, f"{name}: the card does not say how it was trained"
        assert all(torch.isfinite(v).all() for v in network.state_dict().values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved: Path, value: float) -> None:
    card, config = read_card(saved)
    weights = load_file(saved)
    weights[next(iter(weights))].view(-1)[0] = value
    card = {"name": card.name, "tier": "fast"}
    metadata = {"vidnoise_format": FORMAT, "config": json.dumps(config), "card": json.dumps(card)}
    save_file(weights, saved, metadata=metadata)
    with pytest.raises(WeightsError, match="no finite numbers"):
        load_model(saved)


def test_weights_that_are_not_the_cards_are_refused(saved: Path) -> None:
    """A bit that has turned over gives pictures that are wrong and look right."""
    whole = bytearray(saved.read_bytes())
    whole[-5] ^= 1
    saved.write_bytes(whole)
    with pytest.raises(WeightsError, match="not those that its card was written for"):
        load_model(saved)


@pytest.mark.parametrize(
    "settings",
    [
        {"blocks": [1e7, 1, 1, 1, 1]}, {"blocks": [10**7, 1, 1, 1, 1]}, {"widths": [10**9, 8, 8]}, {"hidden": -1},
        {"hidden": 10**30}, {"hidden": "8"}, {"hidden": None}, {"widths": [[8], 8, 8]}, {"widths": {"a": 8}},
        {"widths": []}, {"blocks": "11111"}, {"widths": [8] * 10**5}, {"widths": [8, 8]}, {"blocks": [1, 1, 1]},
    ],
    ids=lambda s: str(s)[:30],
)  # fmt: skip
def test_sizes_are_bounded_before_anything_is_built(saved: Path, settings: dict) -> None:
    rewrite(saved, config=json.dumps({**TINY.to_dict(), **settings}))
    start = time.monotonic()
    with pytest.raises(WeightsError):
        load_model(saved)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "metadata",
    [
        {"card": "[" * 100_000}, {"config": "[" * 100_000}, {"card": "[]"}, {"config": "[]"}, {"card": "{"},
        {"card": '{"name": 3, "tier": "fast"}'}, {"card": '{"name": "a", "tier": "fast", "training": []}'},
        {"card": '{"name": "a", "tier": "fast", "nose": 1}'}, {"config": "null"},
    ],
    ids=lambda m: str(m)[:40],
)  # fmt: skip
def test_cards_of_wrong_types_are_refused(saved: Path, metadata: dict[str, str]) -> None:
    rewrite(saved, **metadata)
    with pytest.raises(WeightsError) as caught:
        load_model(saved)
    assert len(str(caught.value)) < 500
