"""Writer of scripts that build a TensorRT engine from an ONNX file.

Engines are bound to a GPU and a version of TensorRT, so they are built on the machine that will run them; the script
needs neither vidnoise nor PyTorch. The network is strongly typed: precisions are those of the ONNX file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidnoise.export.graph import KINDS, Size, shape_of
from vidnoise.model import DenoiseNetwork

LARGEST = (8, 2160, 3840)
"""Largest streams, height and width of an engine with dynamic sizes."""

TYPICAL = (1, 1088, 1920)
"""Streams, height and width that such an engine is tuned for."""

SMALLEST = (1, 64, 64)


def write_build_script(
    onnx_path: str | os.PathLike[str],
    path: str | os.PathLike[str],
    network: DenoiseNetwork,
    kind: str,
    *,
    size: Size | None,
    sizes: Sequence[Size] = (SMALLEST, TYPICAL, LARGEST),
) -> None:
    """Write a Python program that builds ``<onnx_path without suffix>.engine``.

    Args:
        onnx_path: The model; the script looks for it in its own folder.
        path: File to write.
        network: The network of the graph.
        kind: Kind of graph, see :data:`KINDS`.
        size: Streams, height and width of the file; ``None`` if dynamic.
        sizes: Smallest, typical and largest size of a dynamic file.
    """
    profile = {
        name: [shape_of(name, network, s) for s in sizes] for name in KINDS[kind].inputs if size is None
    }  # fmt: skip
    name = Path(onnx_path).name
    text = _SCRIPT.format(onnx=name, engine=f"{Path(name).stem}.engine", profile=_lines(profile))
    Path(path).write_text(text, encoding="utf-8")


def _lines(profile: dict[str, list[tuple[int, ...]]]) -> str:
    if not profile:
        return "{}"
    return "{\n" + "".join(f'    "{name}": {tuple(shapes)},\n' for name, shapes in profile.items()) + "}"


_SCRIPT = '''\
"""Builds {engine} from {onnx} beside this file, for the GPU of this machine: python THIS_FILE

Needs the package tensorrt (10 or newer): pip install tensorrt. Takes minutes. Inputs and outputs are those of the ONNX
file; the outputs next_... and clean of one frame are inputs of the next.
"""

import sys
from pathlib import Path

PROFILE = {profile}
"""Least, typical and greatest shape of each input; empty where the file has fixed shapes."""


def build(folder: Path) -> Path:
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse((folder / "{onnx}").read_bytes()):
        sys.exit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if PROFILE:
        profile = builder.create_optimization_profile()
        for name, (least, typical, greatest) in PROFILE.items():
            profile.set_shape(name, least, typical, greatest)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        sys.exit("TensorRT could not build the engine; its messages above say why")
    path = folder / "{engine}"
    path.write_bytes(bytes(engine))
    return path


if __name__ == "__main__":
    print(build(Path(__file__).parent))
'''
