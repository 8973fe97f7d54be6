"""The library of compiled kernels for the CPU.

Each does in one pass over memory what a chain of PyTorch operations does in many. They are C (``native/``), built into
a shared library with the package (:mod:`.compile`): for x86 with AVX2, with AVX-512, and elsewhere for what the
compiler targets by default. Where there is no library, :class:`.CpuOperations` does without.

They run on PyTorch's own threads: the library is linked against no OpenMP runtime, and so finds that of PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vidnoise.kernels import wanted
from vidnoise.kernels.compile import FOLDER, X86, library_name

LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""Microarchitecture levels by what PyTorch calls the capability of a CPU."""

SMALL = 16_384
"""Pixels below which one thread alone is faster than several."""


class Library:
    """A shared library of kernels.

    Args:
        path: The library.

    Raises:
        OSError: The library cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._run = self._library.run
        self._run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3 + [ctypes.c_int]
        self._run.restype = None

    @functools.cache  # noqa: B019  # there is one library
    def _address(self, name: str) -> int | None:
        return ctypes.cast(getattr(self._library, name), ctypes.c_void_p).value

    def run(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], size: tuple[int, int], *parameters: float,
        rows: int | None = None, work: int = 1,
    ) -> None:  # fmt: skip
        """Run a kernel on one picture, on PyTorch's threads.

        Args:
            name: The kernel's.
            inputs, outputs: Contiguous, in the order and of the shapes that the kernel's comment lists.
            size: Height and width that the kernel calls h and w.
            parameters: The kernel's.
            rows: What threads share, if that is not each of the height.
            work: How much there is to do for a pixel, as a multiple of what most kernels do.
        """
        height, width = size
        threads = torch.get_num_threads() if height * width * work > SMALL else 1
        self._run(
            self._address(name), _addresses(inputs), _addresses(outputs),
            (ctypes.c_float * len(parameters))(*parameters), height, width, rows or height, threads,
        )  # fmt: skip


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


@functools.cache
def library() -> Library | None:
    """Return the library for this CPU, or ``None`` if there is none or it cannot be loaded here."""
    level = LEVELS.get(torch.backends.cpu.get_cpu_capability()) if platform.machine() in X86 else None
    if level is None and platform.machine() in X86:
        return None
    try:
        return Library(FOLDER / library_name(level))
    except OSError:
        return None


def kernels_in_use() -> Library | None:
    """Return the compiled kernels, if there are any for this CPU and they are wanted."""
    return library() if wanted() else None
