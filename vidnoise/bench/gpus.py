"""Published peak figures of common GPUs, all from NVIDIA and without sparsity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peak figures as stated by the vendor; real programs do not reach them."""

    name: str
    half_tflops: float
    """Dense float16 products with float32 accumulation on tensor cores, in TFLOP/s."""
    single_tflops: float
    """float32 on ordinary cores, in TFLOP/s."""
    gbps: float
    """Memory bandwidth, in GB/s."""
    source: str


GPUS = (
    Gpu("H100 SXM", 989.4, 66.9, 3350, "NVIDIA H100 Tensor Core GPU datasheet: 1,979 TFLOPS with sparsity, 3.35 TB/s"),
    Gpu("A100 SXM 80 GB", 312, 19.5, 2039, "NVIDIA A100 Tensor Core GPU datasheet (nvidia-a100-datasheet-us-1758950)"),
    Gpu("RTX 4090", 165.2, 82.6, 1008, "NVIDIA Ada GPU Architecture whitepaper, table of the GeForce RTX 4090"),
    Gpu(
        "RTX 3060 12 GB", 25.5, 12.7, 360,
        "NVIDIA Ampere GA102 GPU Architecture whitepaper: 256 float16 multiply-adds with float32 sums a clock and SM; "
        "28 SMs at 1.777 GHz, 192 bits of 15 Gbit/s (GeForce RTX 3060 specifications)",
    ),
    Gpu("T4", 65, 8.1, 320, "NVIDIA T4 Tensor Core GPU datasheet"),
    Gpu(
        "Jetson AGX Orin 64 GB", 42.5, 5.3, 204.8,
        "NVIDIA Jetson AGX Orin Series Technical Brief: 170 sparse INT8 TOPS, a quarter of it for dense float16",
    ),
)  # fmt: skip
