"""What stands around the program: the container image, hosted CI, hooks and templates, as far as they can be tried."""

from __future__ import annotations

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import vidnoise
from support.paths import ROOT

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "LABEL", "RUN", "USER", "VOLUME", "WORKDIR"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def supported_pythons() -> list[str]:
    (oldest,) = re.findall(r'requires-python = ">=3\.(\d+)"', text_of("pyproject.toml"))
    return [f"3.{minor}" for minor in range(int(oldest), 15)]


# --- the image --------------------------------------------------------------------------------------------------------


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction of a Dockerfile, continued lines joined."""
    code = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    lines = code.replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    sources = [rest.split()[:-1] for name, rest in instructions(text_of("Dockerfile")) if name == "COPY"]
    return [source for line in sources for source in line]


def is_sent(name: str) -> bool:
    """Whether .dockerignore lets what lies at the top of the repository into the build. The last match counts."""
    sent = True
    for line in text_of(".dockerignore").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and fnmatch(name, pattern.lstrip("!").rstrip("/")):
            sent = pattern.startswith("!")
    return sent


def test_the_dockerfile_has_instructions_that_exist_in_an_order_that_works() -> None:
    found = instructions(text_of("Dockerfile"))
    names = [name for name, _ in found]
    assert set(names) <= INSTRUCTIONS
    assert names[0] == "FROM"
    assert names.count("ENTRYPOINT") == names.count("CMD") == 1
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN"), "root installs, another runs"
    for name, rest in found:
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(yaml.safe_load(rest), list), "a program, not a shell that swallows signals"


def test_the_image_has_a_supported_python_and_a_choice_of_device() -> None:
    found = dict(instructions(text_of("Dockerfile")))
    image, _, tag = found["FROM"].partition(":")
    assert image == "python"
    assert tag.partition("-")[0] in supported_pythons()
    assert found["ARG"] == "DEVICE=cpu"
    script = found["RUN"].partition("&&")[0]  # up to the installation
    for device, expected in (("cpu", "whl/cpu"), ("cuda", "index=<>")):
        shell = ["sh", "-c", f'{script}\necho index="<$index>"']
        done = subprocess.run(shell, env={"DEVICE": device}, capture_output=True, text=True)
        assert done.returncode == 0
        assert expected in done.stdout
    refused = subprocess.run(["sh", "-c", script], env={"DEVICE": "gpu"}, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "not gpu" in refused.stdout


def test_what_the_image_is_built_from_is_there_and_is_sent() -> None:
    assert len(copied()) > 4
    for name in copied():
        assert (ROOT / name).exists(), name
        assert is_sent(name), name
    for name in (".git", ".venv", "runs", "tests", "samples"):
        assert not is_sent(name), name


def test_the_image_gets_all_that_the_package_is_built_from() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    shown = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    needed = [
        *(fragment["path"] for fragment in shown["fragments"]),
        *project["project"]["license-files"],
        *wheel["only-include"],
    ]
    assert set(needed) <= set(copied())
    assert project["project"]["scripts"]["vidnoise"]


def container_tool() -> str:
    """docker or podman, if one is installed and can be used."""
    for tool in ("docker", "podman"):
        if shutil.which(tool) and subprocess.run([tool, "info"], capture_output=True, timeout=60).returncode == 0:
            return tool
    pytest.skip("neither docker nor podman can be used here (is the daemon running?)")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_image_builds_and_denoises(tmp_path: Path) -> None:
    tool = container_tool()
    tmp_path.chmod(0o777)
    subprocess.run([tool, "build", "--tag", "vidnoise-test", "."], cwd=ROOT, check=True)
    run = [tool, "run", "--rm", "--network", "none", "--volume", f"{tmp_path}:/work", "vidnoise-test"]
    said = subprocess.run([*run, "--version"], check=True, capture_output=True, text=True).stdout
    assert said.strip() == f"vidnoise {vidnoise.__version__}"
    subprocess.run([*run, "lavfi:testsrc2=size=64x48:rate=25:duration=0.2", "-o", "clean.mkv"], check=True)
    assert len(list(vidnoise.open_source(tmp_path / "clean.mkv"))) == 5


# --- hosted CI, hooks, templates --------------------------------------------------------------------------------------


def workflow() -> dict[str, Any]:
    return yaml.safe_load(text_of(".github/workflows/ci.yml"))


def test_hosted_ci_runs_what_ci_runs_for_every_supported_python() -> None:
    jobs = workflow()["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == supported_pythons()
    assert [step["run"] for step in jobs["test"]["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_targets_that_hosted_ci_makes_exist() -> None:
    commands = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    targets = [target for command in commands for target in re.findall(r"^make (\w+)", command, re.MULTILINE)]
    assert targets == ["test", "docs"]
    released = [row["releases"] for row in workflow()["jobs"]["releases"]["strategy"]["matrix"]["include"]]
    assert set(released) == {"oldest", "newest"}
    assert re.search(r"^test-oldest test-newest:", text_of("Makefile"), re.MULTILINE)
    assert all(re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE) for target in targets)


def test_the_oldest_releases_are_the_bounds() -> None:
    """Of every library that the wheel needs; a bound such as 2.3 may be met first by 2.3.1."""
    oldest = dict(re.findall(r"^([a-z-]+)==(\S+)$", text_of("constraints-oldest.txt"), re.MULTILINE))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    for requirement in project["dependencies"]:
        name, bound = re.match(r"([a-z-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        assert f"{oldest[name]}.".startswith(f"{bound}."), name


def test_the_hooks_have_the_ruff_of_the_project() -> None:
    (repository,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    (pinned,) = re.findall(r"^ruff==(\S+)$", text_of("constraints.txt"), re.MULTILINE)
    assert repository["rev"] == f"v{pinned}"
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_are_whole(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]
