"""Compile the kernels, as installing the package does: ``python -m vidnoise.kernels.compile``.

Needs GCC 12 or Clang 14, or newer. It stands alone, as a package's build imports neither the package nor PyTorch.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "native"
"""Their sources, and where the libraries go by default."""

X86 = ("x86_64", "AMD64")
"""Names of the architecture for which there are several libraries."""

LEVELS = ("x86-64-v3", "x86-64-v4")
"""Microarchitecture levels to compile for on x86: AVX2 and AVX-512."""

FLAGS = (
    "-O3", "-std=c11", "-fPIC", "-fvisibility=hidden",
    # What vectorising needs, short of -ffast-math, with which a library changes the rounding of the whole process.
    "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only", "-fno-signed-zeros", "-ffp-contract=fast",
)  # fmt: skip


class CompileError(Exception):
    """The kernels could not be compiled; the text says why, in one line."""


def library_name(level: str | None) -> str:
    """Return the file name of the library for a microarchitecture level; ``None`` is the compiler's default."""
    return f"libvidnoise-{level}.so" if level else "libvidnoise.so"


def compiler() -> list[str]:
    """Return the command of the C compiler: ``$CC``, or the first of the usual ones that is installed.

    Raises:
        CompileError: There is none.
    """
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise CompileError("no C compiler (cc, gcc or clang) is installed")
    return [found]


def compile_kernels(folder: Path = FOLDER) -> list[Path]:
    """Compile the kernels into ``folder``; return the libraries, one for each microarchitecture level.

    Raises:
        CompileError: There is no compiler, or it cannot compile them.
    """
    levels = LEVELS if platform.machine() in X86 else (None,)
    return [_compiled(compiler(), level, folder / library_name(level)) for level in levels]


def _compiled(command: list[str], level: str | None, path: Path) -> Path:
    flags = [*command, *FLAGS, *([f"-march={level}"] if level else [])]
    with tempfile.TemporaryDirectory() as temporary:
        objects = []
        for source in sorted(FOLDER.glob("*.c")):
            objects.append(os.path.join(temporary, f"{source.stem}.o"))
            step = ["-c", str(source), "-o", objects[-1]]
            try:
                _run([*flags, "-fopenmp", *step])
            except CompileError:
                _run([*flags, *step])  # Apple's compiler has no OpenMP: one thread, then
        # Linked without an OpenMP runtime: the library is to find PyTorch's, and share its threads.
        linked = os.path.join(temporary, path.name)
        undefined = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        _run([*command, "-shared", *undefined, *objects, "-o", linked, "-lm"])
        part = path.with_suffix(".part")
        shutil.copyfile(linked, part)
        os.replace(part, path)  # whole or not at all, even while a program has the old one loaded
    return path


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as ex:
        raise CompileError(f"{command[0]}: {ex.strerror}") from ex
    except subprocess.CalledProcessError as ex:
        error = next((line for line in ex.stderr.splitlines() if "error" in line), ex.stderr.strip()[:200])
        raise CompileError(f"{command[0]}: {error}") from ex


if __name__ == "__main__":
    try:
        for library in compile_kernels():
            print(library)
    except CompileError as ex:
        sys.exit(f"could not compile the kernels: {ex}")
