"""Memory does not grow with the length of the video: whole runs in processes of their own, from decoder to encoder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import tolerances

resource = pytest.importorskip("resource")

# The peak is of the process so far, so each length needs its own process.
SCRIPT = """
import json, resource, sys
import torch
import vidnoise
from vidnoise.allocator import keep_freed_memory
keep_freed_memory()  # as the command does
torch.set_num_threads(1)
seconds, out = float(sys.argv[1]), sys.argv[2]
stats = vidnoise.denoise_file(
    f"lavfi:testsrc2=size=128x96:rate=25:duration={seconds},noise=alls=20:allf=t", out, model="fast", device="cpu",
    precision="fp32", codec="h264", preset="ultrafast", threads=1,
)
print(json.dumps([stats.frames_out, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def peak_mib(seconds: float, out: str) -> tuple[int, float]:
    """Frames written and the peak of the resident memory of a run."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seconds), out], capture_output=True, text=True, check=True, timeout=110
    )
    frames, peak = json.loads(result.stdout)
    return frames, peak / (1024 if sys.platform != "darwin" else 1024 * 1024)


def test_ten_times_the_frames_need_the_same_memory(tmp_path):
    frames, short = peak_mib(1.2, str(tmp_path / "short.mp4"))
    assert frames == 30
    frames, long = peak_mib(12, str(tmp_path / "long.mp4"))
    assert frames == 300
    # 270 frames that were kept would be 5 MiB as yuv420p and 40 MiB as float RGB.
    assert long - short < tolerances.MEMORY_MIB
