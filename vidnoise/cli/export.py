"""``vidnoise export``: writing a model as a graph for other programs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from vidnoise.cli.options import file_option
from vidnoise.errors import SinkOpenError, UsageError, VidnoiseError

_SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


def _size(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int] | None:
    """Parse ``WxH`` or ``dynamic``."""
    if value == "dynamic":
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise click.BadParameter(f"must be WIDTHxHEIGHT or dynamic, got {value!r}", ctx, param)
    return int(width), int(height)


@click.command()
@click.argument("model", default="standard")
@click.option("-o", "--output", metavar="FILE", required=True, help="model.onnx or model.xml.")
@file_option("overwrite")
@click.option(
    "--format", "kind", type=click.Choice(["onnx", "openvino", "tensorrt"]),
    help="tensorrt writes ONNX and a script that builds the engine.  [default: by the extension]",
)  # fmt: skip
@click.option(
    "--size", metavar="WxH", default="dynamic", show_default=True, callback=_size,
    help="Size of the pictures, rounded up to multiples of 16.",
)  # fmt: skip
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --size: number of streams in a batch.",
)
@click.option(
    "--sigma", "noise", type=click.Choice(["blind", "told"]), default="blind", show_default=True,
    help="The graph estimates the noise level, or takes it as an input.",
)  # fmt: skip
@click.option(
    "--both-ways", is_flag=True,
    help="Also write the graphs for lookahead: model-measure (blind only), model-look, model-smooth.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True,
    help="Precision of the convolutions; everything else is fp32. int8 is for ONNX Runtime and OpenVINO.",
)  # fmt: skip
def export(
    model: str,
    output: str,
    overwrite: bool,
    kind: str | None,
    size: tuple[int, int] | None,
    streams: int,
    noise: str,
    both_ways: bool,
    precision: str,
) -> None:
    """Write MODEL (a name or .safetensors file) as ONNX, OpenVINO IR, or for TensorRT.

    One call is one step: it takes a frame and the previous state, and returns the clean frame and the next state.
    With --both-ways, three more graphs look ahead at the following frames. docs/BACKENDS.md lists the inputs and
    outputs. The written graphs are run and compared with PyTorch.
    """
    if kind == "tensorrt" and precision == "int8":
        raise UsageError("--precision int8 is for ONNX Runtime and OpenVINO; with --format tensorrt use fp16")
    if streams > 1 and size is None:
        raise UsageError("--streams goes with --size; a graph of any size takes any number of streams")
    path = Path(output)
    kind = kind or _SUFFIXES.get(path.suffix)
    suffix = ".xml" if kind == "openvino" else ".onnx"
    if kind is None or path.suffix != suffix:
        raise UsageError(f"{output}: the name must end in {suffix if kind else '.onnx or .xml, or give --format'}")
    blind = noise == "blind"
    kinds = ["step" if blind else "step-told"]
    if both_ways:
        kinds += [*(["measure"] if blind else []), "look", "smooth"]
    paths = {k: path if k.startswith("step") else path.with_name(f"{path.stem}-{k}{suffix}") for k in kinds}
    companions = {graph_path: _companions(graph_path, kind) for graph_path in paths.values()}
    _check_paths([p for graph_path, others in companions.items() for p in (graph_path, *others)], overwrite)

    import torch

    from vidnoise.backends.device import PRECISIONS
    from vidnoise.export.check import LIMIT, difference, onnx_runner, openvino_runner
    from vidnoise.export.onnx import write_onnx
    from vidnoise.export.openvino import import_openvino, write_openvino
    from vidnoise.export.tensorrt import write_build_script
    from vidnoise.weights import as_int8, load_model

    if kind == "openvino":
        import_openvino()
    loaded = load_model(model)
    dtype = PRECISIONS[precision]
    network = loaded.network
    if dtype is torch.int8:
        loaded = as_int8(loaded)
        network = loaded.network.in_precision(dtype)
    fixed = None if size is None else (streams, _rounded(size[1]), _rounded(size[0]))
    # Small pictures suffice: the graph is the same for all sizes.
    test_size = fixed or (2, 48, 80)
    with tempfile.TemporaryDirectory(prefix=".vidnoise-", dir=path.parent) as name:
        folder = Path(name)
        graphs = {k: folder / f"{graph_path.stem}.onnx" for k, graph_path in paths.items()}
        for k, graph_path in paths.items():
            write_onnx(network, graphs[k], k, size=fixed, dtype=dtype)
            if kind == "openvino":
                write_openvino(graphs[k], folder / graph_path.name, network)
            if kind == "tensorrt":
                write_build_script(graph_path, folder / companions[graph_path][0].name, network, k, size=fixed)
        written = {k: folder / graph_path.name for k, graph_path in paths.items()}
        run = openvino_runner(written) if kind == "openvino" else onnx_runner(written)
        differences = [difference(network, run, blind=blind, size=test_size, both_ways=b) for b in {False, both_ways}]
        rms, largest = max(t.rms for t in differences), max(t.largest for t in differences)
        if not rms <= LIMIT[dtype]:
            raise VidnoiseError(
                f"the exported model differs from PyTorch by {rms:.1e} (root mean square; at most "
                f"{LIMIT[dtype]:.0e} is tolerated); nothing was written"
            )
        del run  # it may keep the files open
        for graph_path, others in companions.items():
            for target in (*others, graph_path):
                os.replace(folder / target.name, target)
    shape = "any size" if fixed is None else f"{fixed[2]}x{fixed[1]}" + (f", {streams} streams" if streams > 1 else "")
    click.echo(
        f"vidnoise: {', '.join(map(str, paths.values()))}: {loaded.name}, {noise}, {precision}, {shape}; differs from "
        f"PyTorch by {largest:.1e} at most, {rms:.1e} root mean square (of 0 to 1)", err=True,
    )  # fmt: skip
    if kind == "tensorrt":
        for scripts in companions.values():
            click.echo(f"vidnoise: {scripts[0]}: run it where the engine will run: python {scripts[0]}", err=True)


def _companions(path: Path, kind: str) -> list[Path]:
    """Return the files that are written along with a graph."""
    if kind == "openvino":
        return [path.with_suffix(".bin")]
    return [path.with_name(f"{path.stem}_build_engine.py")] if kind == "tensorrt" else []


def _rounded(side: int) -> int:
    """Round a size up to a multiple that the network supports."""
    from vidnoise.model.network import MULTIPLE

    return -(-side // MULTIPLE) * MULTIPLE


def _check_paths(paths: list[Path], overwrite: bool) -> None:
    """Check that the outputs can be created.

    Raises:
        SinkOpenError: An output exists already, or its folder does not.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise SinkOpenError(f"{path}: there is no directory {path.parent}", str(path))
        if not os.access(path.parent, os.W_OK):
            raise SinkOpenError(f"{path}: the directory {path.parent} is not writable", str(path))
        if path.is_dir() or (path.exists() and not overwrite):
            what = "is a directory" if path.is_dir() else "exists already; use -y to overwrite it"
            raise SinkOpenError(f"{path}: {what}", str(path))
