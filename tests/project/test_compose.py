"""The services of compose.yaml, and the command lines that their shells begin; nothing here needs Docker."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.test_documents import check_command_line
from support.paths import ROOT
from vidnoise.cli.cameras import read_cameras

FILE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]

service = pytest.mark.parametrize("name", SERVICES)


def begun(name: str, folder: Path) -> tuple[Path, list[str]]:
    """Run the service's shell where ``vidnoise`` writes down its folder and arguments; they are returned."""
    program = folder / "bin" / "vidnoise"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\npwd\nfor argument; do echo "$argument"; done\n')
    program.chmod(0o755)
    command = [part.replace("$$", "$") for part in SERVICES[name]["entrypoint"]]
    environment = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "CAMERA": "rtsp://10.0.0.5/a b"}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    where, *args = said.splitlines()
    return Path(where), args


@service
def test_services_start_again_and_end_by_a_signal(name: str) -> None:
    found = SERVICES[name]
    assert found["restart"] == "unless-stopped"
    assert (found["stop_signal"], found["stop_grace_period"]) == ("SIGTERM", "1m")
    assert "./recordings:/work" in found["volumes"]
    assert "exec vidnoise" in found["entrypoint"][-1], "the shell would not pass the signal on"


def test_one_service_is_on_without_a_profile_and_one_has_a_gpu() -> None:
    assert [name for name, found in SERVICES.items() if "profiles" not in found] == ["camera"]
    cuda = SERVICES["camera-cuda"]
    assert cuda["build"]["args"] == {"DEVICE": "cuda"}
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert cuda["image"] != SERVICES["camera"]["image"]


@service
def test_command_lines_are_those_of_the_program(name: str, tmp_path: Path) -> None:
    where, args = begun(name, tmp_path)
    if name == "cameras":
        assert where.parent == tmp_path
        assert where.name[0].isdigit()
        assert args == ["cameras", "/etc/vidnoise/cameras.toml"]
        assert any(volume.split(":")[1] == args[1] for volume in SERVICES[name]["volumes"])
    else:
        assert args[0] == "rtsp://10.0.0.5/a b"
        check_command_line(args)


def test_the_file_of_cameras_is_read(tmp_path: Path) -> None:
    """The form that the comment points to."""
    (tmp_path / "cameras.toml").write_text('[camera.door]\ninput = "rtsp://10.0.0.5/1"\noutput = "door.mkv"\n')
    assert [camera.output for camera in read_cameras(tmp_path / "cameras.toml")] == ["door.mkv"]


def test_the_comment_names_services_that_exist() -> None:
    comment = [line for line in (ROOT / "compose.yaml").read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    named = [shlex.split(line, comments=True)[-1] for line in (x[1:] for x in comment) if "--profile" in line]
    assert named == ["camera-cuda", "cameras"]
