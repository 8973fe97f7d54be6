"""What is said where OpenCV is missing, or does not load."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from vidnoise.errors import DependencyError

MISSING = "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')"
WITHOUT_GL = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (MISSING, r"^OpenCV is missing: pip install opencv-python \(.* opencv-python-headless\)$"),
        (WITHOUT_GL, "libGL.so.1.*pip uninstall opencv-python, .* opencv-python-headless"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "multiarray.*install it again"),
    ],
)
def test_the_error_says_what_to_install(code: str, expected: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "cv2.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with pytest.raises(DependencyError, match=expected):
        runpy.run_module("vidnoise.opencv")


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(WITHOUT_GL + "\n")
    command = [sys.executable, "-m", "vidnoise", "lavfi:testsrc2=size=64x48:duration=0.1", "-o", "out.mkv"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vidnoise: OpenCV cannot be loaded (libGL.so.1")
    assert not (tmp_path / "out.mkv").exists()
