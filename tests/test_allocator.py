"""Memory that is freed stays with the process, where the C library is glibc and nobody has said otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from vidnoise.allocator import keep_freed_memory
print(keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(6_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def run(**environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    return result.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_blocks_are_not_mapped_anew():
    kept, faults = run()
    assert kept == "True"
    assert int(faults) < 1000  # of 8 times 5,860 pages
    kept, _ = run(MALLOC_ARENA_MAX="2")
    assert kept == "False"


def test_other_systems_are_left_alone(monkeypatch):
    from vidnoise import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
