"""The names by which people call codecs."""

from __future__ import annotations

import pytest

from vidnoise.errors import UsageError
from vidnoise.sinks.codecs import ALIASES, CODECS, find_encoder


@pytest.mark.parametrize(
    ("name", "codec"),
    [("h265", "hevc"), ("x265", "hevc"), ("H265", "hevc"), ("HEVC", "hevc"), ("x264", "h264"), ("AVC", "h264"),
     ("AV1", "av1"), ("av01", "av1"), ("vp09", "vp9"), ("ProRes", "prores")],
)  # fmt: skip
def test_usual_names_in_any_case(name: str, codec: str) -> None:
    assert find_encoder(name).name == find_encoder(codec).name


def test_an_encoder_is_taken_as_it_is_named() -> None:
    assert find_encoder("libx264rgb").name == "libx264rgb"


def test_aliases_stand_for_codecs_and_hide_no_other() -> None:
    assert set(ALIASES.values()) <= set(CODECS)
    assert not set(ALIASES) & set(CODECS)
    assert all(name == name.lower() for name in (*ALIASES, *CODECS))


@pytest.mark.parametrize(
    ("name", "near"), [("h266", "h26"), ("hvec", "hevc"), ("Pro-Res", "prores"), ("libx256", "libx265")]
)
def test_a_near_miss_is_answered_with_what_was_meant(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"unknown codec '{name}'; did you mean '{near}") as caught:
        find_encoder(name)
    assert caught.value.option == "codec"


def test_nonsense_is_answered_with_the_list() -> None:
    with pytest.raises(UsageError, match="unknown codec 'qqqq'; use h264, hevc, av1"):
        find_encoder("qqqq")
