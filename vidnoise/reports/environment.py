"""Facts about this installation and machine for ``vidnoise doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from vidnoise import __version__
from vidnoise.backends import BACKENDS, open_backend
from vidnoise.backends.device import resolve_device
from vidnoise.cache import cache_folder
from vidnoise.errors import VidnoiseError
from vidnoise.kernels.library import kernels_in_use
from vidnoise.sinks.codecs import library_versions, working_encoders
from vidnoise.weights import find_model, list_models, load_model, read_card

PACKAGES = ("torch", "av", "numpy", "click", "safetensors")
OPTIONAL_PACKAGES = ("triton", "openvino", "onnxruntime", "onnx", "tensorrt")


def inspect_environment() -> dict[str, Any]:
    """Return all facts, as plain values for JSON.

    Home directories in messages are shortened; no paths but the cache's and the models' are included.
    """
    return {
        "versions": {
            "vidnoise": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **{name: _version(name) for name in (*PACKAGES, *OPTIONAL_PACKAGES)},
        },
        "opencv": _opencv_packages(),
        "ffmpeg": library_versions(),
        "threads": {"cpus": os.cpu_count(), "torch": torch.get_num_threads()},
        "gpus": _gpus(),
        "cpu_kernels": _cpu_kernels(),
        "backends": _backends(),
        "encoders": working_encoders(),
        "cache": _cache(),
        "models": _models(),
    }


def _version(package: str) -> str | None:
    """Return the version of an installed package; None if it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _opencv_packages() -> dict[str, str | None]:
    """Return the versions of the installed packages that bring ``cv2``; several overwrite each other."""
    found = importlib.metadata.packages_distributions().get("cv2", [])
    return {name: _version(name) for name in sorted(set(found))}


def _gpus() -> dict[str, str]:
    """Return the names of the GPUs by device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(count)}
    return found | ({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {})


def _cpu_kernels() -> str | None:
    """Return the name of the library of compiled kernels in use; None if there is none."""
    kernels = kernels_in_use()
    return kernels.path.name if kernels else None


def _backends() -> dict[str, str]:
    """Return why each backend cannot be opened, on the device that ``auto`` chooses; empty if it can."""
    device, found = resolve_device("auto"), {}
    try:
        network = load_model("fast", device).network
    except VidnoiseError as ex:
        return dict.fromkeys(BACKENDS, _plain(ex))
    for name in BACKENDS:
        try:
            open_backend(name, network, device=device, dtype=torch.float32)
            found[name] = ""
        except Exception as ex:  # a damaged installation may raise anything, and is what this report is about
            found[name] = _plain(ex)
    return found


def _cache() -> dict[str, Any]:
    """Return the folder of the cache and its size; the folder is None without a home directory."""
    folder = cache_folder()
    sizes = []
    for path in folder.rglob("*") if folder else ():
        try:
            sizes.append(path.stat().st_size if path.is_file() else 0)
        except OSError:  # another process has just removed it
            continue
    return {"folder": None if folder is None else str(folder), "megabytes": round(sum(sizes) / 2**20, 1)}


def _models() -> dict[str, Any]:
    """Return the versions of the models found, with the folders that they lie in."""
    versions, folders = {}, set()
    for name in list_models():
        path = find_model(name)
        folders.add(str(path.parent))
        try:
            versions[name] = read_card(path)[0].version
        except VidnoiseError as ex:
            versions[name] = _plain(ex)
    return {"folders": sorted(folders), "versions": versions}


def _plain(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(str(Path.home()), "~")
