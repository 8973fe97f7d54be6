"""The documents: links lead somewhere, snippets run, command lines exist, lists are whole, the site builds."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import vidnoise
from support.paths import ROOT
from vidnoise.cli import COMMANDS, DEFAULT, group, main

PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "examples/*.md",
        "models/*.md",
        "samples/*.md",
        "benchmarks/*.md",
        ".github/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
LONGEST_WALK = 12

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def text_of(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# --- links ------------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(path: Path) -> list[str]:
    """Those to files of ours that are not there, and to headings that they do not have."""
    broken = []
    for link in re.findall(r"\]\(([^()\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists():
            broken.append(link)
        elif heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            if heading not in map(anchor, headings):
                broken.append(link)
    return broken


@page
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A b, `c`!\n[1](a.md) [2](no.md) [3](#a-b-c) [4](a.md#d) [5](https://example.org/no.md)\n")
    assert broken_links(document) == ["no.md", "a.md#d"]


# --- snippets ---------------------------------------------------------------------------------------------------------


def blocks(path: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def test_the_readme_program_runs(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    shutil.copy(clips("cfr").path, tmp_path / "input.mp4")
    monkeypatch.chdir(tmp_path)
    frames = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(2)]
    names: dict[str, Any] = {"frames": frames}
    exec(compile(program, "README.md", "exec"), names)
    assert (names["clean"].shape, names["clean"].dtype) == (frames[0].shape, frames[0].dtype)
    assert len(list(vidnoise.open_source("clean.mp4"))) == 10
    assert names["denoiser"].sigma == 25


def test_the_program_of_the_api_reference_runs() -> None:
    (program,) = blocks(ROOT / "docs/API.md", "python")
    names: dict[str, Any] = {}
    exec(compile(program, "docs/API.md", "exec"), names)
    assert len(names["clean"]) == 3
    assert names["both"].shape == (48, 130, 3)


def test_every_python_snippet_is_run_by_some_test() -> None:
    tested = {
        "README.md": "here",
        "docs/API.md": "here",
        "docs/SERVER.md": "test_streams.py",
        "docs/BACKENDS.md": "test_export.py",
        "docs/EDITORS.md": "test_vapoursynth.py",
    }
    assert {str(path.relative_to(ROOT)) for path in PAGES if blocks(path, "python")} == set(tested)


def command_lines(path: Path) -> Iterator[list[str]]:
    """The arguments of each `vidnoise ...` in the shell snippets of a page, cut at pipes."""
    for block in blocks(path, "sh", ""):
        for line in re.findall(r"^.*\bvidnoise .*$", block.replace("\\\n", " "), re.MULTILINE):
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
            lexer.whitespace_split = True
            command: list[str] = []
            for token in [*lexer, "|"]:
                if not set(token) <= set("|<>&;"):
                    command.append(token)
                    continue
                if command and command[0] == "vidnoise" and "..." not in command:
                    yield command[1:]
                command = []


def check_command_line(args: list[str]) -> None:
    """Parse it as the program does, without running anything."""
    with group.make_context("vidnoise", list(args)) as context:
        name, *rest = args if args[0] in COMMANDS else [DEFAULT, *args]
        command = group.get_command(context, name)
        assert command is not None
        command.make_context(name, rest, parent=context)


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a command line names need not exist."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


@page
@pytest.mark.usefixtures("any_path")
def test_command_lines_have_the_options_that_the_program_has(path: Path) -> None:
    for args in command_lines(path):
        try:
            check_command_line(args)
        except click.exceptions.Exit:
            pass  # --help, --version
        except click.UsageError as error:
            pytest.fail(f"vidnoise {shlex.join(args)}: {error.format_message()}")


def test_command_lines_are_found_and_refused() -> None:
    assert len(list(command_lines(ROOT / "docs/USAGE.md"))) > 20
    with pytest.raises(click.UsageError, match="--no-such-option"):
        check_command_line(["in.mp4", "-o", "out.mp4", "--no-such-option"])


# --- what lists something, lists all of it ----------------------------------------------------------------------------


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^\.\. (?:autofunction|autoclass|data):: (\w+)$", text_of("docs/API.md"), re.MULTILINE)
    assert sorted(listed) == sorted(set(vidnoise.__all__) - {"VidnoiseError"})
    assert ".. automodule:: vidnoise.errors" in text_of("docs/API.md")


def test_the_changelog_names_the_version() -> None:
    newest, *_ = re.findall(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest == vidnoise.__version__


def test_the_site_has_every_page() -> None:
    contents = text_of("docs/conf.py")
    for path in ROOT.glob("docs/*.md"):
        assert f"\ndocs/{path.stem}\n" in contents, f"{path.name} is in no list of docs/conf.py"


def walk() -> list[str]:
    """The modules that docs/ARCHITECTURE.md names as a frame's way."""
    return re.findall(r"^\| \d+ \| `(\S+)` \|", text_of("docs/ARCHITECTURE.md"), re.MULTILINE)


def test_a_frame_goes_through_all_modules_of_the_walk(clips: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    modules = walk()
    assert 5 < len(modules) <= LONGEST_WALK
    assert len(set(modules)) == len(modules)
    called: set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        code = main([str(clips("cfr").path), "-o", str(tmp_path / "clean.mp4"), "--quiet", *tiny])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert code == 0
    assert [module for module in modules if str(ROOT / "vidnoise" / module) not in called] == []


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """By the command of `make docs`; a broken link is a warning, and a warning an error."""
    for tool in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed: pip install -c constraints.txt -e '.[docs]'")
    recipe = re.search(r"^docs:.*\n\t\$\(BIN\)/python (-m sphinx .*) build/docs$", text_of("Makefile"), re.MULTILINE)
    assert recipe is not None
    result = subprocess.run(
        [sys.executable, *recipe[1].split(), str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert 'id="vidnoise.denoise"' in (tmp_path / "docs" / "API.html").read_text(encoding="utf-8")
    assert "README.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
