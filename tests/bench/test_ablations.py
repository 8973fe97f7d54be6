"""The variants that the ablations compare really are what they are called; every one of them can be trained."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from support.paths import ROOT
from support.training_setup import config
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.model.luma_chroma import rgb_to_bands
from vidnoise.model.network import Trace

SCRIPT = ROOT / "benchmarks" / "ablations.py"


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def second_step(change: Callable[[DenoiseNetwork], None] | None) -> tuple[torch.Tensor, Trace]:
    """Bands of the second noisy frame and the trace of its step."""
    torch.manual_seed(0)
    network = DenoiseNetwork(config().model_config()).requires_grad_(False)
    keys = network.state_dict().keys()
    if change:
        change(network)
    assert network.state_dict().keys() == keys  # weights of other variants still fit
    frames = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    state = network.initial_state(1, 32, 32)
    for frame in frames:
        _, state, trace = network(frame, uniform_sigma(0.1, frame), state)
    return rgb_to_bands(frames[1]), trace


def test_changed_networks_lack_what_they_should(ablations: ModuleType) -> None:
    frame, whole = second_step(None)
    assert whole.motion.found.abs().max() > 0
    assert (whole.fused - frame).abs().max() > 0.01
    assert (whole.ratio[:, 0] - whole.ratio[:, 1]).abs().max() > 1e-4
    assert not second_step(ablations.without_flow)[1].motion.flow.any()
    trace = second_step(ablations.without_fusion)[1]
    torch.testing.assert_close(trace.fused, frame)
    assert torch.equal(trace.ratio, torch.ones_like(trace.ratio))
    trace = second_step(ablations.with_one_gain)[1]
    assert torch.equal(trace.ratio[:, 0], trace.ratio[:, 1])
    assert (trace.fused - frame).abs().max() > 0.01


def test_without_hidden_features_the_core_ignores_them(ablations: ModuleType) -> None:
    torch.manual_seed(0)
    network = DenoiseNetwork(config().model_config()).requires_grad_(False)
    bands, hidden = torch.rand(1, 45, 16, 16), torch.rand(1, network.config.hidden, 8, 8)
    assert not torch.equal(network.core(bands, hidden).residual, network.core(bands, 0 * hidden).residual)
    ablations.without_hidden(network)
    assert torch.equal(network.core(bands, hidden).residual, network.core(bands, 0 * hidden).residual)


def test_every_variant_has_a_valid_configuration_of_its_own(ablations: ModuleType, tmp_path: Path) -> None:
    bench = ablations.Bench(tmp_path, tmp_path, tmp_path, tmp_path / "results.json", None)
    seen = []
    for key, group in ablations.GROUPS.items():
        assert group.variants[0].name == ablations.BASE
        names = [variant.name for variant in group.variants]
        assert len(set(names)) == len(names)
        assert group.initial is None or group.initial in ablations.GROUPS
        steps = {bench.stage(group, variant).steps for variant in group.variants}
        assert len(steps) == 1
        for variant in group.variants:
            settings = bench.config(key, variant)
            DenoiseNetwork(settings.model_config())
            if bench.differs(key, variant):
                thing = (settings, variant.change, variant.lookahead)
                assert thing not in seen
                seen.append(thing)


def test_tables_show_differences_from_the_base(ablations: ModuleType) -> None:
    base = {"what": "as it is", "steps": 5, "minutes": 1.0, "kmac": 8.4, "flicker": 3.0}
    base["psnr"] = {"10": 35.0, "30": 30.0, "50": 28.0}
    better = base | {"what": "AdamW", "psnr": {"10": 35.3, "30": 30.3, "50": 28.3}}
    text = ablations.tables({"spatial": {"base": base, "adamw-4e-3": better, "seed": base | {"steps": 4}}})
    assert "| AdamW | 8.4 | 5 | 1.0 | 35.00 → 35.30 | 30.00 → 30.30 | 28.00 → 28.30 | +0.30 | 3.00 |" in text
    assert text.count("as it is") == 1  # a run of another length is not compared
