"""What is kept between runs: any trouble with it means that nothing is kept, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidnoise import cache
from vidnoise.export.store import stored_onnx
from vidnoise.model import TIERS, DenoiseNetwork


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {
        "empty": b"", "cut": content[: len(content) // 2], "one byte": content[:1], "flipped": bytes(flipped),
        "zeros": bytes(len(content)), "longer": content + b"x",
    }  # fmt: skip


@pytest.mark.parametrize("kind", damaged(b"12"))
def test_what_is_damaged_is_not_there(tmp_path: Path, kind: str) -> None:
    cache.store("folder/name", b"content")
    assert cache.load("folder/name") == b"content"
    path = tmp_path / "vidnoise" / "folder" / "name"
    path.write_bytes(damaged(path.read_bytes())[kind])
    assert cache.load("folder/name") is None


def test_what_is_no_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "vidnoise" / "name").mkdir(parents=True)
    assert cache.load("name") is None
    cache.store("name", b"content")
    assert cache.load("name") is None
    assert [path.name for path in (tmp_path / "vidnoise").iterdir()] == ["name"]


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped"])
def test_a_damaged_graph_is_made_anew(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a power cut leaves one."""
    network = DenoiseNetwork(TIERS["fast"])
    monkeypatch.setattr("vidnoise.export.store.write_onnx", lambda network, path, kind, **_: path.write_bytes(b"graph"))
    with stored_onnx(network, "step") as path:
        assert path.read_bytes() == b"graph"
    (kept,) = (tmp_path / "vidnoise" / "onnx").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(damaged(good)[kind])
    with stored_onnx(network, "step") as path:
        assert path.read_bytes() == b"graph"
    assert kept.read_bytes() == good


def test_no_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a user of its own (systemd's DynamicUser) has none; XDG_CACHE_HOME must not be relative."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    folder = cache.cache_folder()
    assert folder is None or folder.is_absolute()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is where neither HOME nor the system knows
    assert cache.cache_folder() is None
    cache.store("name", b"content")
    assert cache.load("name") is None


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="becomes another user, as root can")
def test_a_user_without_an_entry_in_the_system_runs(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = (
        f"import os; from vidnoise.cache import cache_folder, store, load; os.chdir({str(tmp_path)!r})\n"
        "os.setuid(12345); os.environ.pop('XDG_CACHE_HOME', None)\n"
        "for home in (None, '/nonexistent'):\n"
        "    os.environ.pop('HOME', None) if home is None else os.environ.update(HOME=home)\n"
        "    store('name', b'content'); assert load('name') is None\n"
        "print(os.listdir())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
