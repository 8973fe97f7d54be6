"""Importing the package is cheap, and so is asking the command line for help."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.realtime

IMPORT_SECONDS = 0.1
"""What `import vidnoise` may add to starting Python, in time of the processor, as others may be busy. Measured: 0.01 to
0.04 s; `import torch` alone takes over 1 s."""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=110).stdout


def test_import_is_quick_and_loads_neither_torch_nor_av():
    code = (
        "import sys, time; start = time.process_time(); import vidnoise; print(time.process_time() - start);"
        "print([m for m in ('torch', 'numpy', 'av', 'cv2', 'rich', 'click') if m in sys.modules]);"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] == 'vidnoise'))"
    )
    times = []
    for _ in range(3):  # the best of a few: the first may compile
        seconds, heavy, own = python(code).splitlines()
        assert heavy == "[]"
        assert ast.literal_eval(own) == ["vidnoise", "vidnoise._version", "vidnoise.errors", "vidnoise.text"]
        times.append(float(seconds))
    assert min(times) < IMPORT_SECONDS


def test_every_public_name_is_there_and_nothing_else_is_promised():
    code = (
        "import vidnoise; print([n for n in vidnoise.__all__ if getattr(vidnoise, n, None) is None]);"
        "print(sorted(vidnoise.__all__) == vidnoise.__all__ and set(vidnoise.__all__) <= set(dir(vidnoise)))"
    )
    assert python(code).splitlines() == ["[]", "True"]


def test_an_unknown_name_is_an_attribute_error():
    import vidnoise

    with pytest.raises(AttributeError, match="no attribute 'denoize'"):
        vidnoise.denoize  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "--help"]])
def test_help_loads_no_torch(arguments):
    code = (
        "import sys; from vidnoise.cli import main\n"
        f"try: code = main({arguments!r})\nexcept SystemExit as ex: code = ex.code\n"
        "print('torch' in sys.modules, code or 0)"
    )
    assert python(code).splitlines()[-1] == "False 0"


def test_running_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "vidnoise", "--version"], capture_output=True, text=True, check=True, env=os.environ
    )
    import vidnoise

    assert result.stdout == f"vidnoise {vidnoise.__version__}\n"
