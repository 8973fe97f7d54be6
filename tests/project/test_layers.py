"""Imports go one way. This walks the source of every module, late imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

PACKAGE = ROOT / "vidnoise"

LAYERS = [
    {"text", "notices", "option_groups", "option_values"},
    {"option_keywords"},
    {"errors", "_version"},
    {"disk", "checked", "opencv"},
    {"options", "stills"},
    {"frame", "cache", "allocator", "locking"},
    {"color", "model"},
    {"weights", "export", "kernels"},
    {"sources", "sinks", "backends"},
    {"pictures"},
    {"session"},
    {"pipeline"},
    {"resume", "parallel"},
    {"api", "vapoursynth"},
    {"evaluation"},
    {"training", "reports", "bench"},
    {"cli"},
]
"""From the bottom up. A module may import from layers below its own, and from its own package."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

AV_HOMES = {"sources", "sinks", "pictures", "resume/sink", "training/transcode"}
"""Who may import av: packages, and modules."""

WITHOUT_TORCH = [
    "__init__", "__main__", "allocator", "errors", "frame/__init__", "frame/frame", "frame/frame_queue",
    "frame/passthrough", "frame/clock", "frame/stamps", "stills", "notices", "weights", "pipeline/stats", "checked",
    "option_groups", "option_keywords", "option_values", "options", "cli",
]  # fmt: skip
"""Whose import must not load torch: it takes seconds, and `vidnoise --help` should not."""


MAX_LINES = 400
"""Maximum length of a module: a longer one has a part that can be a module of its own."""

MAX_AT_THE_TOP = 20
"""Maximum number of modules outside the folders of the package."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)


def owner(path: Path) -> str:
    """First part of a module's name below the package: ``sinks`` for ``vidnoise/sinks/hdr.py``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, *, only_at_import: bool = False, types_too: bool = True) -> Iterator[str]:
    """Absolute names of all modules that ``path`` imports."""
    package = ["vidnoise", *path.relative_to(PACKAGE).parts[:-1]]

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            if name == "vidnoise":
                yield from (f"vidnoise.{alias.name}" for alias in node.names)
        elif only_at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        elif not types_too and _is_type_checking(node):
            assert isinstance(node, ast.If)
            for child in node.orelse:
                yield from walk(child)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    name = owner(path)
    if name in ("__init__", "__main__"):
        return
    assert name in LEVEL, f"{name} has no layer yet: add it to LAYERS"
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] != "vidnoise" or len(parts) == 1 or parts[1] == name or parts[1].startswith("__"):
            continue
        assert LEVEL[parts[1]] < LEVEL[name], f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_av_stays_at_the_ends(path):
    module = path.relative_to(PACKAGE).with_suffix("").as_posix()
    if not {owner(path), module} & AV_HOMES:
        assert not [name for name in imports(path, types_too=False) if name.split(".")[0] == "av"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_opencv_comes_from_the_module_that_says_what_to_install(path):
    if owner(path) != "opencv":
        assert "cv2" not in list(imports(path))


def test_the_api_edge_imports_av_only_when_it_is_handed_av_pictures():
    assert "av" not in list(imports(PACKAGE / "pictures.py", only_at_import=True, types_too=False))


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_torch_is_not_imported_by(name):
    paths = [path for path in modules() if name in (owner(path), path.relative_to(PACKAGE).with_suffix("").as_posix())]
    assert paths
    for path in paths:
        heavy = [m for m in imports(path, only_at_import=True, types_too=False) if m.split(".")[0] in ("torch", "av")]
        assert not heavy, f"{path.name} imports {heavy}"


def test_modules_stay_small_and_few_at_the_top():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
    assert len([name for name in lengths if "/" not in name]) <= MAX_AT_THE_TOP


def test_the_walk_sees_every_form_of_import(tmp_path, monkeypatch):
    """A checker that sees nothing would pass everything."""
    import sys

    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "m.py"
    path.write_text(
        "import a.b\nfrom ..color import x\nfrom . import y\nfrom vidnoise import api\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av\n"
        "def f():\n    from vidnoise.cli.run import z\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    found = set(imports(path))
    ours = {"vidnoise", "vidnoise.color", "vidnoise.sub", "vidnoise.api", "vidnoise.cli.run"}
    assert found == {"a.b", "typing", "av", *ours}
    assert "vidnoise.cli.run" not in set(imports(path, only_at_import=True))
    assert "av" not in set(imports(path, types_too=False))
