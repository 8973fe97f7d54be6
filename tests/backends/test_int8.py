"""int8 in the backends: the pictures of the rounded network, on integers; refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vidnoise
from support import tolerances
from support.backends import CPU, backend, both_ways, outputs, worst_rms
from support.networks import TINY
from vidnoise.backends import open_backend, steady_backend
from vidnoise.backends.auto import IN_INT8, Auto
from vidnoise.backends.measurements import Measurements
from vidnoise.backends.openvino import OpenVino, offers
from vidnoise.cli import main
from vidnoise.errors import BackendError, UsageError
from vidnoise.model import DenoiseNetwork
from vidnoise.session import placement
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import INT8, list_models, load_model

pytestmark = pytest.mark.usefixtures("backend_cache")


@pytest.fixture(scope="module")
def rounded() -> DenoiseNetwork:
    return load_model(f"fast{INT8}").network


@pytest.mark.parametrize(
    ("name", "run", "blind"),
    [
        ("openvino", outputs, True),
        ("openvino", both_ways, False),
        ("onnxruntime", outputs, True),
        ("onnxruntime", both_ways, False),
    ],
)
def test_pictures_are_those_of_the_rounded_network(rounded: DenoiseNetwork, name: str, run, blind: bool) -> None:
    reference = run(backend("eager", rounded, torch.int8), blind=blind)
    found = run(backend(name, rounded, torch.int8), blind=blind)
    if name == "openvino" and offers("BF16"):  # what is not in int8 runs in that
        assert worst_rms(found, reference) < tolerances.BACKEND_INT8_IN_BF16
    else:
        assert worst_rms(found, reference) < tolerances.BACKEND_INT8
        # The first frame, before any decision of the motion search, is the same up to sums in another order.
        assert worst_rms(found[:1], reference[:1]) < tolerances.BACKEND_FP32
    plain = run(backend("eager", load_model("fast").network), blind=blind)
    assert worst_rms(plain[:1], reference[:1]) > 2 * tolerances.BACKEND_FP32, "int8 is something else"


def test_openvino_computes_on_integers(rounded: DenoiseNetwork) -> None:
    made = backend("openvino", rounded, torch.int8)
    assert isinstance(made, OpenVino)
    outputs(made, blind=False)
    graph = next(iter(made.core._requests.values())).get_compiled_model().get_runtime_model()
    about = [op.get_rt_info() for op in graph.get_ordered_ops()]
    types = [i["primitiveType"].astype(str) for i in about if i["layerType"].astype(str) == "Convolution"]
    layers = sum(
        1 for name, _ in rounded.named_modules() if name.endswith(("conv1", "conv2", "to2", "to3", "from2", "from3"))
    )
    assert sum("I8" in name.upper() for name in types) == layers - 2, "all but those of the last block"


def test_a_model_is_run_by_its_int8_weights() -> None:
    denoiser = Denoiser("fast", device="cpu", precision="int8", backend="eager")
    assert denoiser.dtype is torch.int8
    assert denoiser.model.name == f"fast{INT8}"
    assert Denoiser(load_model("fast"), device="cpu", precision="int8", backend="eager").model.name == f"fast{INT8}"


def test_int8_weights_are_no_models_of_their_own() -> None:
    assert not [name for name in list_models() if name.endswith(INT8)]
    assert load_model("fast").int8 == f"fast{INT8}"
    assert load_model(f"fast{INT8}").network.config.quantised
    assert load_model("standard-awgn").int8 is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "standard-awgn"}, "model standard-awgn has no int8 weights .these have: fast"),
        ({"model": DenoiseNetwork(TINY)}, "model custom has no int8 weights"),
        ({"max_memory": 500}, 'only imitates int8: use precision="fp32"'),
    ],
)
def test_what_cannot_be_is_an_error(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Denoiser(**{"model": "fast", "device": "cpu", "precision": "int8", "backend": "auto", **given})


def test_compile_refuses(rounded: DenoiseNetwork) -> None:
    with pytest.raises(BackendError, match="compile does not run in int8"):
        open_backend("compile", rounded, device=CPU, dtype=torch.int8)


def test_a_cpu_without_int8_is_an_error(rounded: DenoiseNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr("vidnoise.backends.openvino.openvino_core", Core)
    with pytest.raises(BackendError, match='no int8 on this CPU: use precision="fp32"'):
        open_backend("openvino", rounded, device=CPU, dtype=torch.int8)


def test_the_command_line_says_it_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clip = Path(__file__).parents[2] / "samples"
    source = next(p for p in clip.iterdir() if p.suffix in (".mp4", ".mkv"))
    out = tmp_path / "out.mkv"
    assert main([str(source), "-o", str(out), "--precision", "int8", "--model", "standard-awgn", "--device", "cpu"])
    error = capsys.readouterr().err
    assert "model standard-awgn has no int8 weights" in error
    assert "Traceback" not in error
    assert not out.exists()


def test_precision_int8_takes_a_backend_that_has_it(rounded: DenoiseNetwork) -> None:
    pytest.importorskip("onnx")
    assert open_backend("auto", rounded, device=CPU, dtype=torch.int8).name == "openvino"
    assert steady_backend("auto", CPU, "int8") == "auto"


def test_auto_tries_int8_where_the_card_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def candidates() -> tuple[str, ...]:
        made = Denoiser("fast", device="cpu", precision="auto", backend="auto").backend
        assert isinstance(made, Auto)
        assert made.name == "eager"
        return tuple(made._candidates)

    monkeypatch.setattr(placement, "INT8_TOLERANCE_DB", 100.0)
    assert IN_INT8 in candidates()
    monkeypatch.setattr(placement, "INT8_TOLERANCE_DB", -100.0)
    assert IN_INT8 not in candidates()
    given = Denoiser("fast", device="cpu", precision="fp32", backend="auto").backend
    assert isinstance(given, Auto)
    assert IN_INT8 not in given._candidates, "fp32 was asked for"


def test_other_int8_weights_are_measured_anew(rounded: DenoiseNetwork) -> None:
    plain = load_model("fast").network
    from vidnoise.backends.measurements import Kind

    kind = Kind(torch.Size((1, 3, 32, 48)), blind=True, both_ways=False)
    keys = {Measurements(plain, CPU, torch.float32, int8)._key(kind) for int8 in (None, rounded, plain)}
    assert len(keys) == 3


def test_the_card_has_both_figures() -> None:
    metrics = vidnoise.load_model(f"fast{INT8}").card.metrics
    assert metrics["psnr"].keys() == metrics["psnr_fp32"].keys() > {"sigma 10", "sigma 50 blind", "camera"}
    worst = max(metrics["psnr_fp32"][name] - value for name, value in metrics["psnr"].items())
    assert metrics["int8_loss_db"] == pytest.approx(worst, abs=1e-3)
