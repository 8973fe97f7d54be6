"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import vidnoise

MODULES = [
    "vidnoise",
    *(m.name for m in pkgutil.walk_packages(vidnoise.__path__, "vidnoise.") if not m.name.endswith("__main__")),
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ImportError as ex:
        pytest.skip(f"needs an extra: {ex}")
    result = doctest.testmod(module)
    assert result.failed == 0


def test_there_are_examples_of_the_main_entry_points():
    from vidnoise import api, weights

    for module in (vidnoise, api, weights):
        assert doctest.testmod(module).attempted > 0
