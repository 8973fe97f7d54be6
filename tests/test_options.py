"""Options are stated once: the functions, the command line and resuming follow their fields."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidnoise
from vidnoise import option_keywords
from vidnoise.checked import about, named_fields
from vidnoise.cli import main
from vidnoise.cli.options import flag, spelled
from vidnoise.cli.run import run
from vidnoise.errors import UsageError
from vidnoise.options import DenoiseOptions, DeviceOptions, FileOptions, SinkOptions, SourceOptions, ThreadOptions
from vidnoise.resume.source import fixed_options
from vidnoise.sinks.audio import AUDIO_ENCODERS

KINDS = (DeviceOptions, DenoiseOptions, ThreadOptions, SourceOptions, SinkOptions, FileOptions)
FIELDS = named_fields(FileOptions)


@pytest.mark.parametrize("kind", KINDS)
def test_what_type_checkers_see_are_the_fields(kind: type) -> None:
    keywords = getattr(option_keywords, kind.__name__.replace("Options", "Keywords"))
    told = {name: getattr(type, "__forward_arg__", type) for name, type in keywords.__annotations__.items()}
    assert told == {name: field.type for name, field in named_fields(kind).items()}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: vidnoise.denoise([], strenght=1), r"denoise\(\) .*'strenght'. Did you mean 'strength'\?"),
        (lambda: vidnoise.denoise_file("a", "b", cfr=20), r"denoise_file\(\) .*'cfr'. Did you mean 'crf'\?"),
        (lambda: vidnoise.Denoiser("fast", sgima=2), r"Denoiser\(\) .*'sgima'. Did you mean 'sigma'\?"),
        (lambda: vidnoise.StreamBatch("fast", devise="cpu"), r"StreamBatch\(\) .*'devise'. Did you mean 'device'\?"),
        (lambda: vidnoise.open_source("a", stat=1), r"open_source\(\) .*'stat'. Did you mean 'start'\?"),
        (lambda: vidnoise.open_sink("a", overwrit=True), r"open_sink\(\) .*'overwrit'. Did you mean 'overwrite'\?"),
        (lambda: vidnoise.open_sink("a", nonsense=True), r"keyword argument 'nonsense'$"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_with_a_suggestion(call: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize(
    ("function", "kind"),
    [(vidnoise.denoise, DenoiseOptions), (vidnoise.denoise_file, FileOptions), (vidnoise.open_source, SourceOptions),
     (vidnoise.open_sink, SinkOptions), (vidnoise.Denoiser, DenoiseOptions), (vidnoise.StreamBatch, DeviceOptions)],
)  # fmt: skip
def test_help_shows_every_option(function: Any, kind: Any) -> None:
    parameters = inspect.signature(function).parameters
    text = function.__doc__
    for name, field in named_fields(kind).items():
        assert parameters[name].default == field.default
        assert f"\n    {name}: " in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sigma": 256}, "sigma must be between 0 and 255 (8-bit units), got 256"),
        ({"sigma": float("nan")}, "sigma must be between 0 and 255 (8-bit units), got nan"),
        ({"sigma": "12"}, "sigma must be between 0 and 255 (8-bit units), got '12'"),
        ({"strength": None}, "strength must be between 0 and 2, got None"),
        ({"lookahead": "far"}, "lookahead must be auto, or between 0 and 32 frames, got 'far'"),
        ({"preview": "both"}, "preview must be split, got 'both'"),
        ({"precision": "fp8"}, "precision must be auto, fp32, bf16, fp16 or int8, got 'fp8'"),
        ({"max_memory": 0}, "max_memory must be more than 0 MB, got 0"),
        ({"threads": 1025}, "threads must be 0 (automatic) to 1024, got 1025"),
        ({"reconnect": -2}, "reconnect must be a number of attempts or forever, got -2"),
        ({"read_timeout": 0}, "read_timeout must be more than 0 seconds, got 0"),
        ({"audio": "mp3"}, "audio must be copy, none, aac, opus or flac, got 'mp3'"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        FileOptions(**given)
    assert str(caught.value) == says
    assert caught.value.option == next(iter(given))
    assert pickle.loads(pickle.dumps(caught.value)).option == next(iter(given))


def test_the_words_of_audio_are_what_can_be_encoded() -> None:
    assert about(FIELDS["audio"]).choices == ("copy", "none", *AUDIO_ENCODERS)


def test_pictures_have_a_bound_on_memory_too() -> None:
    pictures = [np.zeros((512, 512, 3), np.uint8)]
    with pytest.raises(UsageError, match="max_memory 1 MB is too little for 512x512") as caught:
        list(vidnoise.denoise(pictures, model="fast", device="cpu", max_memory=1))
    assert caught.value.option == "max_memory"


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_has_every_option_with_its_default() -> None:
    context = run.make_context("run", ["in.mkv", "-o", "out.mkv"])
    assert {name: context.params[name] for name in FIELDS} == {
        **{name: field.default for name, field in FIELDS.items()},
        "input_options": {},
    }


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_is_explained_and_has_a_flag_of_its_own(name: str) -> None:
    assert about(FIELDS[name]).help.endswith((".", "]", "..."))
    assert about(FIELDS[name]).doc.endswith(".")
    assert [parameter.name for parameter in run.params if flag(name) in parameter.opts] == [name]


@pytest.mark.parametrize(
    ("text", "named", "says"),
    [
        ('use device="cpu", precision="fp32"', (), "use --device cpu, --precision fp32"),
        ('try max_memory=MB (in tiles), or model="fast"', (), "try --max-memory MB (in tiles), or --model fast"),
        ('leave it out: tracks="-a:1"', (), "leave it out: --tracks=-a:1"),
        ('input_options={"a": "1G", "b": "2"} looks', (), "--input-option a=1G --input-option b=2 looks"),
        (
            "/crf/a.mkv: was begun (crf 20, now 25)",
            ("crf",),
            "/crf/a.mkv: was begun (--crf 20, now 25)",
        ),
        ("grain and grain_table give it twice", ("grain", "grain_table"), "--grain and --grain-table give it twice"),
        ("a.ts?threads=4: no such file", (), "a.ts?threads=4: no such file"),
        ("format of a.mkv", (), "format of a.mkv"),
        ("exists already; use overwrite=True or", (), "exists already; use -y or"),
    ],
)
def test_messages_name_options_as_flags(text: str, named: tuple[str, ...], says: str) -> None:
    assert spelled(text, named) == says


def test_the_command_line_names_what_was_wrong_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["in.mkv", "-o", "out.mkv", "--max-memory", "-1"]) == 2
    assert capsys.readouterr().err.startswith("vidnoise: --max-memory must be more than 0 MB, got -1")


def test_the_library_never_speaks_of_flags() -> None:
    """Outside cli/, messages name arguments, so that they are right for both kinds of users."""
    flags = re.compile("|".join(rf"(?<!\w){re.escape(flag(name))}\b" for name in FIELDS if flag(name) != "-f"))
    package = Path(vidnoise.__file__).parent
    # What evaluate, bench and train say of their own options.
    paths = [
        p
        for p in package.rglob("*.py")
        if p.parts[len(package.parts)] not in ("cli", "evaluation", "bench", "training")
    ]
    assert paths
    for path in paths:
        if path.name == "options.py":
            continue  # their help texts
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                assert not flags.search(node.value) or "ffmpeg -i" in node.value, f"{path.name}: {node.value}"


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_a_resumed_run_must_have_the_options_that_change_pictures_or_file() -> None:
    must_stay = fixed_options(FileOptions()).keys()
    assert {"strength", "sigma", "max_memory", "lookahead", "crf", "codec", "start", "tracks", "mask"} <= must_stay
    free = FIELDS.keys() - must_stay
    assert {"device", "backend", "threads", "overwrite", "connect_timeout", "max_pixels", "hwaccel"} <= free


def test_what_is_recorded_of_a_run_can_be_told_and_holds_no_keys() -> None:
    found = fixed_options(FileOptions(zones=[(0, 1, 0.5)], input_options={"decryption_key": "secret"}))
    assert found["zones"] == "[(0, 1, 0.5)]"
    assert "secret" not in str(found)
