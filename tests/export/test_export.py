"""Exported graphs: what is written can be run, gives PyTorch's pictures, and is refused where it does not."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from support import tolerances
from support.backends import clip
from support.paths import ROOT
from vidnoise.backends import open_backend
from vidnoise.backends.window import Window
from vidnoise.cli import main
from vidnoise.errors import BackendError
from vidnoise.export.check import difference, onnx_runner
from vidnoise.export.graph import KINDS, NetworkGraph, named_state, next_state, shape_of
from vidnoise.export.onnx import write_onnx
from vidnoise.model import DenoiseNetwork
from vidnoise.model.quantisation import quantised_layers
from vidnoise.weights import load_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
"""Not ``importorskip``: importing it plainly starts its telemetry, threads and all."""


@pytest.fixture(scope="module")
def fast() -> DenoiseNetwork:
    return load_model("fast").network


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All that ``vidnoise export --both-ways`` writes, by kind of graph."""
    path = tmp_path_factory.mktemp("export") / "fast.onnx"
    assert main(["export", "fast", "-o", str(path), "--both-ways"]) == 0
    written = {"step": path, **{k: path.with_name(f"fast-{k}.onnx") for k in ("measure", "look", "smooth")}}
    assert sorted(path.parent.iterdir()) == sorted(written.values())
    return written


@pytest.fixture
def traced_before(dynamic: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after tracing gets what was traced already, which takes seconds."""

    def copied(network: DenoiseNetwork, path: Path, kind: str, *, size: Any, dtype: torch.dtype) -> None:
        assert (size, dtype) == (None, torch.float32)
        shutil.copy(dynamic[kind], path)

    monkeypatch.setattr("vidnoise.export.onnx.write_onnx", copied)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_are_true(fast: DenoiseNetwork, kind: str) -> None:
    """Of names and shapes, of what comes out of a frame and goes into the next."""
    inputs, outputs, _ = KINDS[kind]
    graph, size = NetworkGraph(fast, kind), (2, 32, 48)
    found = graph(*graph.example(size))
    assert [t.shape for t in found] == [shape_of(name, fast, size) for name in outputs]
    remembered = {name for name in inputs if f"next_{name}" in outputs or (name == "previous" and "clean" in outputs)}
    about_the_frame = {"noisy", "sigma", "levels", "boost", "keep", "future_bands", "future_ratio", "core_input"}
    assert remembered == set(inputs) - about_the_frame


@pytest.mark.parametrize("blind", [True, False])
def test_the_graph_is_the_networks_step(fast: DenoiseNetwork, blind: bool) -> None:
    kind = "step" if blind else "step-told"
    graph = NetworkGraph(fast, kind)
    given = dict(zip(KINDS[kind].inputs, graph.example((2, 32, 48)), strict=True))
    before = fast.initial_state(2, 32, 48)
    for name, tensor in named_state(before).items():
        assert name not in given or torch.equal(given[name], tensor)
    outputs = dict(zip(KINDS[kind].outputs, graph(*given.values()), strict=True))
    expected = fast.step(given["noisy"], given.get("sigma"), given["boost"], given["keep"], before)
    assert torch.equal(outputs["clean"], expected.clean)
    assert torch.equal(outputs["level"], expected.level)
    assert all(torch.equal(a, b) for a, b in zip(next_state(before, outputs), expected.state, strict=True))


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("size", [(1, 16, 16), (2, 32, 80)])
def test_graphs_of_open_size_take_any(
    fast: DenoiseNetwork, dynamic: dict[str, Path], size: tuple[int, int, int], both_ways: bool
) -> None:
    found = difference(fast, onnx_runner(dynamic), blind=True, size=size, both_ways=both_ways)
    assert found.rms <= tolerances.BACKEND_FP32


def test_the_check_sees_a_graph_that_is_wrong(fast: DenoiseNetwork, dynamic: dict[str, Path]) -> None:
    """One that ignores cuts, or what is ahead, and one whose pictures are a little off."""
    run = onnx_runner(dynamic)

    def careless(kind: str, inputs: dict[str, torch.Tensor]) -> Any:
        return run(kind, {**inputs, "keep": torch.ones_like(inputs["keep"])})

    def off(kind: str, inputs: dict[str, torch.Tensor]) -> Any:
        first, *rest = run(kind, inputs)
        return (first + 0.01 if "clean" in KINDS[kind].outputs else first), *rest

    def blinkered(kind: str, inputs: dict[str, torch.Tensor]) -> Any:
        ahead = {"future_ratio": torch.full_like(inputs["future_ratio"], 1e3)} if kind == "smooth" else {}
        return run(kind, {**inputs, **ahead})

    for wrong, both_ways in ((careless, False), (careless, True), (off, False), (off, True), (blinkered, True)):
        assert difference(fast, wrong, blind=True, size=(1, 32, 48), both_ways=both_ways).rms > 3e-3


def _blind_layers(network: DenoiseNetwork) -> int:
    """Convolutions that only estimate the noise level."""
    return sum(isinstance(m, torch.nn.Conv2d) for m in network.noise_level.modules())


@pytest.mark.slow
def test_export_onnx_of_halves_told_and_of_one_size(
    fast: DenoiseNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fast.onnx"
    command = ["export", "fast", "-o", str(path), "--size", "80x45", "--sigma", "told", "--precision", "fp16"]
    assert main(command) == 0
    said = re.search(r"fast, told, fp16, 80x48; differs from PyTorch by (\S+) at most", capsys.readouterr().err)
    assert said is not None
    assert float(said[1]) < 0.01
    # ONNX Runtime computes in float32 on a CPU, so only the file can tell.
    import onnx

    weights = [w for w in onnx.load(path).graph.initializer if len(w.dims) == 4]
    assert len(weights) == sum(isinstance(m, torch.nn.Conv2d) for m in fast.modules()) - _blind_layers(fast)
    assert {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}
    found = difference(fast, onnx_runner({"step-told": path}), blind=False, size=(1, 48, 80))
    assert found.rms <= tolerances.BACKEND_BF16
    assert list(tmp_path.iterdir()) == [path]
    assert main(command) == 4
    assert "exists already" in capsys.readouterr().err


@needs_openvino
@pytest.mark.usefixtures("traced_before")
def test_export_openvino(fast: DenoiseNetwork, tmp_path: Path) -> None:
    from vidnoise.export.check import openvino_runner

    assert main(["export", "fast", "-o", str(tmp_path / "fast.xml")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fast.bin", "fast.xml"]
    found = difference(fast, openvino_runner({"step": tmp_path / "fast.xml"}), blind=True, size=(1, 32, 48))
    assert found.rms <= tolerances.BACKEND_FP32


@needs_openvino
@pytest.mark.slow
def test_export_openvino_told_and_both_ways(fast: DenoiseNetwork, tmp_path: Path) -> None:
    from vidnoise.export.check import openvino_runner

    command = ["export", "fast", "-o", str(tmp_path / "fast.xml"), "--both-ways", "--sigma", "told"]
    assert main(command) == 0
    stems = {"step-told": "fast", "look": "fast-look", "smooth": "fast-smooth"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{stem}.{suffix}" for stem in stems.values() for suffix in ("bin", "xml")
    )
    run = openvino_runner({kind: tmp_path / f"{stem}.xml" for kind, stem in stems.items()})
    for both_ways in (False, True):
        found = difference(fast, run, blind=False, size=(1, 32, 48), both_ways=both_ways)
        assert found.rms <= tolerances.BACKEND_FP32
    (tmp_path / "fast.xml").unlink()
    (tmp_path / "fast.bin").unlink()
    assert main(command) == 4, "one of the other files is there"


@pytest.mark.slow
@needs_openvino
def test_openvino_is_imported_without_its_telemetry() -> None:
    program = (
        "import sys, threading; from vidnoise.export.openvino import import_openvino; import_openvino();"
        "assert 'openvino_telemetry' not in sys.modules; assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


class _TensorRT(ModuleType):
    """As much of TensorRT as the build script uses, which remembers what it was asked for."""

    def __init__(self, *, is_able: bool = True) -> None:
        super().__init__("tensorrt")
        self.shapes: dict[str, tuple[Any, ...]] = {}
        self.parsed = b""
        parser = SimpleNamespace(parse=self._parse, num_errors=1, get_error=lambda i: "no such operator")
        self._is_able = is_able
        self.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=3)
        self.OnnxParser = lambda network, logger: parser
        self.Builder = lambda logger: SimpleNamespace(
            create_network=lambda flags: flags,
            create_builder_config=lambda: SimpleNamespace(add_optimization_profile=lambda profile: None),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self._set_shape),
            build_serialized_network=lambda network, config: b"an engine" if network == 1 << 3 else None,
        )

    def _parse(self, data: bytes) -> bool:
        self.parsed = data
        return self._is_able

    def _set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = shapes


@pytest.mark.usefixtures("traced_before")
def test_export_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fast.onnx"
    assert main(["export", "fast", "-o", str(path), "--format", "tensorrt"]) == 0
    script = tmp_path / "fast_build_engine.py"
    fake = _TensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "fast.engine").read_bytes() == b"an engine"
    assert fake.parsed == path.read_bytes()
    # The file's own inputs, in shapes that its open axes allow.
    import onnx

    for value in onnx.load(path).graph.input:
        axes = [d.dim_value or None for d in value.type.tensor_type.shape.dim]
        for shape in fake.shapes.pop(value.name):
            assert len(shape) == len(axes)
            assert all(fixed in (None, length) for fixed, length in zip(axes, shape, strict=True))
    assert not fake.shapes
    monkeypatch.setitem(sys.modules, "tensorrt", _TensorRT(is_able=False))
    with pytest.raises(SystemExit, match="no such operator"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["fast", "-o", "{}/x.bin"], 2, "must end in .onnx or .xml"),
        (["fast", "-o", "{}/x.onnx", "--format", "openvino"], 2, "must end in .xml"),
        (["fast", "-o", "{}/none/x.onnx"], 4, "no directory"),
        (["fast", "-o", "{}/x.onnx", "--size", "big"], 2, "WIDTHxHEIGHT or dynamic"),
        (["fast", "-o", "{}/x.onnx", "--streams", "2"], 2, "--streams goes with --size"),
        (["faster", "-o", "{}/x.onnx"], 6, "unknown model"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert main(["export", *(a.format(tmp_path) for a in arguments)]) == code
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_onnx_it_says_what_to_install(
    fast: DenoiseNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match=r"pip install 'vidnoise\[export\]'"):
        write_onnx(fast, tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def example(dynamic: dict[str, Path]) -> dict[str, Any]:
    """What the programs of the documentation define."""
    text = (ROOT / "docs" / "BACKENDS.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(dynamic["step"].parent)
        for program in programs:
            exec(compile(program, "docs/BACKENDS.md", "exec"), names)
    return names


def scene() -> np.ndarray:
    """Three noisy frames of something that moves. (Motion without structure is a close decision of its own.)"""
    return np.stack([noisy[0].numpy() for noisy, _ in clip(3, streams=1)])


def test_the_example_of_the_documentation(fast: DenoiseNetwork, example: dict[str, Any]) -> None:
    eager = open_backend("eager", fast, device=torch.device("cpu"), dtype=torch.float32)
    state = eager.initial_state(1, 32, 48)
    for frame, clean in zip(scene(), example["denoise"](scene()), strict=True):
        result = eager.step(torch.from_numpy(frame[None]), None, 1.0, torch.ones(1, dtype=torch.bool), state)
        state = result.state
        np.testing.assert_allclose(clean, result.clean[0].numpy(), rtol=0, atol=1e-4)


def test_the_example_both_ways(fast: DenoiseNetwork, example: dict[str, Any]) -> None:
    window: Window[None] = Window(open_backend("eager", fast, device=torch.device("cpu"), dtype=torch.float32), 3)
    keep = torch.ones(1, dtype=torch.bool)
    assert not [r for frame in scene() for r in window.push(None, torch.from_numpy(frame[None]), None, 1.0, keep)]
    found = list(example["denoise_both_ways"](scene()))
    for clean, (_, result) in zip(found, window.flush(), strict=True):
        np.testing.assert_allclose(clean, result.clean[0].numpy(), rtol=0, atol=1e-4)
    assert np.abs(found[0] - next(example["denoise"](scene()))).max() > 0.01, "what follows counts"


def test_the_documentation_names_every_input_and_output() -> None:
    text = (ROOT / "docs" / "BACKENDS.md").read_text(encoding="utf-8")
    for kind in (kind for name, kind in KINDS.items() if name != "core"):  # which is exported for ourselves only
        for name in (*kind.inputs, *kind.outputs):
            assert f"`{name}`" in text


def quantise_linear(path: Path) -> list[tuple[Any, list[np.ndarray]]]:
    """The nodes that round, each with those of its inputs that are constants of the file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return [(n, [constants[name] for name in n.input if name in constants]) for n in nodes]


def test_int8_is_exported_as_integers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, plain = tmp_path / "fast8.onnx", tmp_path / "fast.onnx"
    assert main(["export", "fast", "-o", str(path), "--precision", "int8"]) == 0
    assert "fast-int8, blind, int8, any size" in capsys.readouterr().err
    found = quantise_linear(path)
    weights = [values[0] for node, values in found if node.op_type == "DequantizeLinear" and values[0].ndim == 4]
    inputs = [node for node, _ in found if node.op_type == "QuantizeLinear"]
    assert len(weights) == len(inputs) == sum(1 for _ in quantised_layers(load_model("fast-int8").network))
    assert {w.dtype for w in weights} == {np.dtype(np.int8)}
    write_onnx(load_model("fast").network, plain)
    saved = plain.stat().st_size - path.stat().st_size
    assert saved > 2.5 * sum(w.size for w in weights), "three bytes a weight, less the scales"


@needs_openvino
@pytest.mark.slow
def test_int8_as_an_openvino_ir(tmp_path: Path) -> None:
    path = tmp_path / "fast8.xml"
    assert main(["export", "fast", "-o", str(path), "--precision", "int8", "--sigma", "told"]) == 0
    assert 'element_type="i8"' in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast", "-o", "a.onnx", "--format", "tensorrt"], "is for ONNX Runtime and OpenVINO"),
        (["standard-awgn", "-o", "a.onnx"], "model standard-awgn has no int8 weights"),
    ],
)
def test_int8_that_cannot_be_exported(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments, "--precision", "int8"])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
