"""The network as a graph for other programs: ONNX, OpenVINO IR, and ONNX with a build script for TensorRT."""
