"""``vidnoise doctor``: complete, and alive where things are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vidnoise
from vidnoise.backends import BACKENDS
from vidnoise.cli import main
from vidnoise.errors import BackendError
from vidnoise.reports import environment
from vidnoise.sinks import codecs


def output(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["doctor", *args]) == 0
    return capsys.readouterr().out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the backend that needs nothing is tried for real."""

    def opened(name: str, *given: object, **more: object) -> None:
        if name != "eager":
            raise BackendError(f"{Path.home()}/lib: no {name}")

    monkeypatch.setattr(environment, "open_backend", opened)


@pytest.mark.usefixtures("quick")
def test_json_has_everything(capsys) -> None:
    found = json.loads(output(capsys, "--json"))
    assert found["versions"]["vidnoise"] == vidnoise.__version__
    assert found["versions"]["numpy"]
    assert "libavcodec" in found["ffmpeg"]
    assert all(name.startswith("opencv") and version for name, version in found["opencv"].items())
    assert found["cpu_kernels"] is None or found["cpu_kernels"].startswith("libvidnoise")
    assert found["backends"].keys() == BACKENDS.keys()
    assert found["backends"]["eager"] == ""
    assert found["backends"]["openvino"] == "~/lib: no openvino"
    assert found["encoders"].keys() == codecs.CODECS.keys()
    assert found["encoders"]["ffv1"] == {"ffv1": ""}
    assert set(found["models"]["versions"]) == set(vidnoise.list_models())


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = (line.split("  ", 1) for line in output(capsys).splitlines())
    return {label.strip(): text.strip() for label, text in lines}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["click"], "click 8."),
        (["click", "numpy", "click"], "(they overwrite each other: uninstall all of them, then install one)"),
        ([], "by no package of this Python"),
    ],
)
def test_packages_with_opencv(capsys, monkeypatch, found: list[str], expected: str) -> None:
    """Any installed packages stand for those of OpenCV."""
    monkeypatch.setattr(environment.importlib.metadata, "packages_distributions", lambda: {"cv2": found})
    row = rows(capsys)["OpenCV"]
    assert expected in row
    assert ("overwrite" in row) == (len(set(found)) > 1)


@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_said(capsys, monkeypatch) -> None:
    monkeypatch.setenv("VIDNOISE_KERNELS", "off")
    monkeypatch.setattr(environment, "OPTIONAL_PACKAGES", ("no-such-package",))
    monkeypatch.setattr(environment, "cache_folder", lambda: None)
    monkeypatch.setattr(environment, "list_models", list)
    monkeypatch.setattr(codecs, "CODECS", {"h264": ("no-such-encoder",), "ffv1": ("ffv1",)})
    monkeypatch.setattr(codecs, "_QUALITY", {"ffv1": codecs._QUALITY["ffv1"]})
    found = rows(capsys)
    assert found["no-such-package"] == "not installed"
    assert found["compiled kernels"].startswith("none: install a C compiler")
    assert found["cache"] == "none: no home directory"
    assert found["models"] == "none found"
    assert found["codec h264"] == "this build of FFmpeg has no encoder for it"
    assert found["codec ffv1"] == "ffv1: ok"
    assert found["backend eager"] == "ok"
    assert found["backend openvino"] == "~/lib: no openvino"


def test_an_encoder_that_does_not_open_says_why(monkeypatch) -> None:
    monkeypatch.setattr(codecs, "CODECS", {"ffv1": ("ffv1",)})
    monkeypatch.setattr(codecs, "encoder_options", lambda *given: {"slices": "nonsense"})
    assert codecs.working_encoders()["ffv1"]["ffv1"] != ""


def test_the_cache_is_measured(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(environment, "cache_folder", lambda: tmp_path)
    assert environment._cache() == {"folder": str(tmp_path), "megabytes": 3.0}
