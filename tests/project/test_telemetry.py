"""Nothing goes anywhere that was not asked for: no files of dependencies' own, no look-up, no connection."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

WATCH = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
static void note(const char *what, const char *which) {
    FILE *file = fopen(getenv("WATCH_LOG"), "a");
    if (file) { fprintf(file, "%s %s\n", what, which ? which : ""); fclose(file); }
}
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    note("look-up", name);
    return real(name, service, hints, found);
}
int connect(int fd, const struct sockaddr *address, socklen_t size) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6) note("connect", "");
    return real(fd, address, size);
}
ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *address, socklen_t size) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
    if (address && (address->sa_family == AF_INET || address->sa_family == AF_INET6)) note("sendto", "");
    return real(fd, data, n, flags, address, size);
}
"""

OURS = """
import torch
from vidnoise.backends import open_backend
from vidnoise.weights import load_model
network = load_model("fast").network
for name in ("onnxruntime", "openvino"):
    backend = open_backend(name, network, device=torch.device("cpu"), dtype=torch.float32)
    backend.step(torch.rand(1, 3, 32, 48), None, 1.0, torch.ones(1, dtype=torch.bool), backend.initial_state(1, 32, 48))
"""

THEIRS = """
import onnxruntime
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": __import__("numpy").ones(1, "f")})
"""

OURS_QUICK = THEIRS.replace(
    "import onnxruntime", "import vidnoise.export.onnxruntime as ours; onnxruntime = ours.import_onnxruntime()"
)

LOOKS_UP = "import socket; socket.getaddrinfo('localhost', 80)"


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that notes what the process asks of the network."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("watching the network needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch.c").write_text(WATCH)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "watch.so", folder / "watch.c", "-ldl"], check=True)
    return folder / "watch.so"


def seen(script: str, watcher: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Files made below the home of a process, but for our cache; and what it asked of the network."""
    home, log = folder / "home", folder / "log"
    home.mkdir()
    log.touch()
    # Little of our own environment: on a machine of continuous integration (CI=true) ONNX Runtime keeps quiet anyway.
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG") or k.startswith(("PYTHON", "LD_LIBRARY"))}
    away = {"HOME": str(home), "TMPDIR": str(folder), "LD_PRELOAD": str(watcher), "WATCH_LOG": str(log)}
    subprocess.run([sys.executable, "-c", script], env={**kept, **away}, check=True, timeout=300)
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    ours = os.path.join(".cache", "vidnoise")
    return [file for file in files if not file.startswith(ours)], log.read_text().splitlines()


def test_onnxruntime_as_we_import_it_tells_nobody(watcher: Path, tmp_path: Path) -> None:
    assert seen(OURS_QUICK, watcher, tmp_path) == ([], [])


@pytest.mark.slow  # graphs are traced
@pytest.mark.timeout(300)
def test_backends_tell_nobody(watcher: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:  # importing it here would start its telemetry
        pytest.skip("openvino is not installed")
    assert seen(OURS, watcher, tmp_path) == ([], [])


def test_control_the_watcher_sees_files_and_look_ups(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    files, _ = seen(THEIRS, watcher, tmp_path / "1")
    assert any("deviceid" in file for file in files), "ONNX Runtime has no telemetry any more: the test proves nothing"
    assert "look-up localhost" in seen(LOOKS_UP, watcher, tmp_path / "2")[1]
