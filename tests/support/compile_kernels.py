"""Compiles every kernel for a GPU that need not be there, as its wrapper would launch it; test_kernels.py runs it.

Prints a line for each. What the interpreter forgives, the compiler does not.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from support.frames import make_frame
from vidnoise.kernels import bands, planes_in, planes_out, warp

DTYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8", torch.uint16: "*u16",
}  # fmt: skip


class Compiled:
    """Stands where a kernel stands; launched with a grid, it compiles."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.capability = kernel, capability

    def __getitem__(self, grid: Any) -> Any:
        return self._compile

    def _compile(self, *given: Any, **options: Any) -> None:
        constants, signature = {}, {}
        for i, (parameter, value) in enumerate(zip(self.kernel.params, given, strict=True)):
            if parameter.is_constexpr:
                constants[(i,)], signature[parameter.name] = value, "constexpr"
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = DTYPES[value.dtype]
            else:
                signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        source = ASTSource(self.kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", self.capability, 32), options=options)
        size = len(compiled.asm["cubin"])
        assert size > 0
        print(f"{self.kernel.__name__}: {size} bytes for sm_{self.capability}")  # noqa: T201


def main(capability: int) -> None:
    for module, names in (
        (bands, ("_rgb_to_bands", "_bands_to_rgb", "_remove_noise")),
        (planes_in, ("_planes_to_rgb",)),
        (planes_out, ("_apply",)),
        (warp, ("_warp_bands", "_warp_ratio", "_reset")),
    ):
        for name in names:
            setattr(module, name, Compiled(getattr(module, name), capability))
    whole, left = torch.zeros(1, 12, 16, 16), torch.zeros(1, 6, 16, 16)
    bands.rgb_to_bands(torch.zeros(1, 3, 32, 32))
    bands.bands_to_rgb(whole)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for remembered in (whole, torch.zeros_like(whole)):
            bands.remove_noise(whole, left, torch.zeros(1, 12, 16, 16, dtype=dtype), remembered)
    for name in ("yuv420p", "p010le", "rgb24", "gray"):
        frame = make_frame(name, 30, 44)
        x = planes_in.to_rgb(frame, 16)
        planes_out.apply_correction(frame, x, x, 0.5)
        planes_out.apply_correction(frame, x)
    warp.warp_bands(torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 16, 16))
    warp.warp_ratio(torch.zeros(1, 4, 16, 16), torch.zeros(1, 2, 16, 16), 1000.0)
    warp.reset(torch.zeros(1, 3, 32, 32), torch.ones(1, dtype=torch.bool), 0.0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 90)
