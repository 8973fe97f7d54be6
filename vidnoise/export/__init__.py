"""Export of the network as a graph for other programs: ONNX, OpenVINO IR, and ONNX with a TensorRT build script."""
