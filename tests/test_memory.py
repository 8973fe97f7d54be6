"""Memory does not grow with the length of the video: whole runs in a process of their own, from decoder to encoder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tolerances

resource = pytest.importorskip("resource")

# The peak is of the process so far: what a longer run adds to that of a shorter one before it.
SCRIPT = """
import json, resource, sys
import torch
import vidnoise
from vidnoise.allocator import keep_freed_memory
keep_freed_memory()  # as the command does
torch.set_num_threads(1)
for seconds in (1.2, 12):
    stats = vidnoise.denoise_file(
        f"lavfi:testsrc2=size=192x144:rate=25:duration={seconds},noise=alls=20:allf=t", f"{sys.argv[1]}/{seconds}.mp4",
        model="fast", device="cpu", precision="fp32", codec="h264", preset="ultrafast", threads=1,
    )
    print(json.dumps([stats.frames_out, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def test_ten_times_the_frames_need_the_same_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=110
    )
    (few, short), (many, long) = (json.loads(line) for line in done.stdout.splitlines())
    assert (few, many) == (30, 300)
    # 270 frames that were kept would be 11 MiB as yuv420p and 85 MiB as float RGB.
    assert (long - short) / (1024 if sys.platform != "darwin" else 1024 * 1024) < tolerances.MEMORY_MIB
