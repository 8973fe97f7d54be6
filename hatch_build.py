"""Compiles the kernels for the CPU when a wheel or an editable installation is built.

Without a compiler, the package is built without them: PyTorch and OpenCV then do their work, more slowly.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "vidnoise/kernels/compile.py"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the libraries to the wheel, which then is for one platform, and for any version of Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        spec = importlib.util.spec_from_file_location("build_kernels", Path(self.root, BUILD))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            libraries = module.compile_kernels()
        except module.CompileError as ex:
            self.app.display_warning(f"without compiled kernels: {ex}")
            return
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in libraries]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
