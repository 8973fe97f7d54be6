"""Memory that is freed stays with the process, where the C library is glibc and nobody has said otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from vidnoise.allocator import keep_freed_memory
print(keep_freed_memory())
class Info(ctypes.Structure):  # <malloc.h>
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.aligned_alloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = libc.mallinfo2().hblkhd
block = libc.aligned_alloc(ctypes.c_size_t(64), ctypes.c_size_t(80_000_000))  # as PyTorch asks for a tensor's memory
print(libc.mallinfo2().hblkhd - before)
libc.free(block)
print(libc.mallinfo2().fordblks)
"""


def run(**environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment, timeout=110
    )
    return result.stdout.split()


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="glibc's, and what tells of it")
def test_blocks_are_kept_and_not_mapped_anew():
    done, mapped, free = run()
    assert (done, mapped) == ("True", "0")
    assert int(free) >= 80_000_000
    done, mapped, free = run(MALLOC_ARENA_MAX="2")  # somebody has an opinion
    assert done == "False"
    assert int(mapped) >= 80_000_000 > int(free)


def test_other_systems_are_left_alone(monkeypatch):
    from vidnoise import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
