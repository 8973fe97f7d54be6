"""Encoders and their options: user-facing codec names, defaults, and the limits of each encoder."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.codec.codec
import av.error

from vidnoise.errors import UsageError
from vidnoise.frame import PixelFormat

CODECS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264", "libopenh264"),
    "hevc": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1", "librav1e"),
    "vp9": ("libvpx-vp9",),
    "ffv1": ("ffv1",),
    "prores": ("prores_ks",),
}
"""Values of the ``codec`` option to FFmpeg encoders, best first. The name of any other encoder works too."""

ALIASES: dict[str, str] = {
    "h265": "hevc", "h.265": "hevc", "x265": "hevc",
    "h.264": "h264", "x264": "h264", "avc": "h264",
    "av01": "av1", "vp09": "vp9",
}  # fmt: skip
"""Other names of the codecs in :data:`CODECS`, in lower case."""

_LIKE_INPUT = {
    "h264": "h264", "hevc": "hevc", "av1": "av1", "vp9": "vp9", "vp8": "vp9", "ffv1": "ffv1", "prores": "prores",
}  # fmt: skip

_SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

_EVEN_SIZES_ONLY = ("libx264", "libx265", "libsvtav1", "libopenh264", "h264_", "hevc_", "av1_")
"""Encoders, or prefixes of their names, that reject odd sizes where chroma is subsampled."""


_X265_CRASHING_WIDTHS = range(33, 49)
"""Widths below one block and above half a block, at which x265 (4.1) writes out of bounds, at any height and depth."""


@dataclass(frozen=True, slots=True)
class _Quality:
    """How quality and speed are set for an encoder."""

    default_crf: float | None = None
    max_crf: float = 51
    crf_option: str = "crf"
    preset_option: str | None = "preset"
    default_preset: str | None = None
    speeds: tuple[str, ...] = _SPEEDS
    """The encoder's equivalents of :data:`_SPEEDS`."""
    fixed: dict[str, str] = field(default_factory=dict)


_QUALITY: dict[str, _Quality] = {
    "libx264": _Quality(18),
    "libx264rgb": _Quality(18),
    "libx265": _Quality(20, fixed={"x265-params": "log-level=error"}),
    "libsvtav1": _Quality(28, 63, default_preset="8", speeds=("12", "11", "10", "9", "8", "7", "5", "4", "3")),
    "libaom-av1": _Quality(28, 63, preset_option="cpu-used", default_preset="6",
                           speeds=("8", "8", "8", "7", "6", "5", "4", "3", "2"), fixed={"row-mt": "1"}),
    "libvpx-vp9": _Quality(24, 63, preset_option="cpu-used", default_preset="3",
                           speeds=("8", "7", "6", "5", "4", "3", "2", "1", "0"),
                           fixed={"b": "0", "row-mt": "1", "deadline": "good"}),
    # NVENC's cq needs its own rate control: its default bit rate is far too low for a master.
    **{name: _Quality(20, crf_option="cq", fixed={"rc": "vbr", "b": "0"},
                      speeds=("p1", "p1", "p2", "p3", "p3", "p4", "p5", "p6", "p7"))
       for name in ("h264_nvenc", "hevc_nvenc", "av1_nvenc")},
    "ffv1": _Quality(None, preset_option=None, fixed={"level": "3", "slicecrc": "1", "g": "1"}),
    "prores_ks": _Quality(None, preset_option=None, fixed={"vendor": "apl0"}),
    "mjpeg": _Quality(None, preset_option=None, fixed={"strict": "unofficial"}),
}  # fmt: skip


class UnsupportedOptionError(UsageError):
    """The encoder has no option for quality, or none for speed."""


def find_encoder(name: str) -> av.codec.Codec:
    """Return the encoder for the name of a codec, in any case, one of its :data:`ALIASES`, or an encoder.

    Raises:
        UsageError: This build of FFmpeg has no such video encoder.
    """
    # This environment variable is the only way to keep SVT-AV1 from logging to stderr.
    os.environ.setdefault("SVT_LOG", "1")
    asked, lower = name, name.lower()
    name = ALIASES.get(lower, lower if lower in CODECS else name)
    for encoder in CODECS.get(name, (name,)):
        try:
            codec = av.codec.Codec(encoder, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        if codec.type == "video":
            return codec
    if name in CODECS:
        raise UsageError(
            f"codec {name}: this build of FFmpeg has no encoder for it ({', '.join(CODECS[name])})", "codec"
        )
    encoders = [encoder for encoders in CODECS.values() for encoder in encoders]
    near = difflib.get_close_matches(lower, dict.fromkeys([*CODECS, *ALIASES, *encoders]), n=1)
    hint = f"did you mean {near[0]!r}? There are" if near else "use"
    raise UsageError(
        f"unknown codec {asked!r}; {hint} {', '.join(CODECS)}, or the name of an FFmpeg video encoder", "codec"
    )


def working_encoders() -> dict[str, dict[str, str]]:
    """Return what each encoder of :data:`CODECS`, and of NVIDIA GPUs, says when it is opened, by codec and encoder.

    An empty text means that it works. Encoders that this build of FFmpeg does not have are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for codec, names in CODECS.items():
        hardware = (f"{codec}_nvenc",) if f"{codec}_nvenc" in _QUALITY else ()
        found[codec] = {}
        for name in (*names, *hardware):
            try:
                encoder = av.codec.Codec(name, "w")
            except (ValueError, av.error.FFmpegError):
                continue
            found[codec][name] = _trouble(encoder)
    return found


def _trouble(encoder: av.codec.Codec) -> str:
    """Return why an encoder does not open; an empty text if it does."""
    os.environ.setdefault("SVT_LOG", "1")
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.time_base = 256, 144, Fraction(1, 25)
    context.pix_fmt = encoder.video_formats[0].name if encoder.video_formats else "yuv420p"
    context.options = encoder_options(encoder, None, None)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError, OSError) as ex:
        return f"{ex.strerror or ex}" if isinstance(ex, OSError) else str(ex)
    return ""


def library_versions() -> dict[str, str]:
    """Return the versions of FFmpeg's libraries by their names (``libavcodec``), as PyAV was built with them."""
    return {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}


def hardware_hint(encoder: str) -> str:
    """Return the end of an error message for an encoder that failed to open: what the machine may lack."""
    return "; it needs an NVIDIA GPU that encodes, and its driver" if encoder.endswith("_nvenc") else ""


def rgb_encoder(codec: av.codec.Codec, format: PixelFormat) -> av.codec.Codec:
    """Return the variant of ``codec`` that accepts RGB, for encoders that are split (libx264); else ``codec``."""
    if codec.name == "libx264" and format.family == "rgb" and format.bit_depth == 8:
        try:
            return av.codec.Codec("libx264rgb", "w")
        except (ValueError, av.error.FFmpegError):
            return codec
    return codec


def default_codecs(input_codec: str | None, container_format: str, container_codec: str) -> list[str]:
    """Return the codecs to try in order if the user names none: the input's first, then by how much they preserve."""
    first = _LIKE_INPUT.get(input_codec or "", "h264")
    # Few players support FFV1 in MP4.
    lossless = [] if container_format == "mp4" else ["ffv1"]
    return list(dict.fromkeys([first, "h264", "hevc", "vp9", "av1", *lossless, container_codec, "vp8"]))


def takes_size(codec: av.codec.Codec, format: PixelFormat, width: int, height: int) -> bool:
    """Whether the encoder accepts pictures of this size and format."""
    if codec.name == "libx265" and width in _X265_CRASHING_WIDTHS:
        return False
    if not codec.name.startswith(_EVEN_SIZES_ONLY):
        return True
    return not (width % (1 << format.log2_chroma_w) or height % (1 << format.log2_chroma_h))


def encoder_options(codec: av.codec.Codec, crf: float | None, preset: str | None) -> dict[str, str]:
    """Return the encoder options for a quality and a speed; None selects the defaults.

    Raises:
        UnsupportedOptionError: The encoder has no such option.
        UsageError: It has, but not with this value.
    """
    quality = _QUALITY.get(codec.name) or _guess_quality(_known_options(codec))
    options = dict(quality.fixed)
    if crf is None:
        crf = quality.default_crf
    elif quality.default_crf is None:
        what = "is lossless and" if codec.lossless and not codec.lossy else ""
        raise UnsupportedOptionError(f"codec {codec.name} {what} has no crf option".replace("  ", " "), "crf")
    elif not 0 <= crf <= quality.max_crf:
        raise UsageError(f"crf of {codec.name} must be from 0 to {quality.max_crf:g}, got {crf:g}", "crf")
    if crf is not None:
        options[quality.crf_option] = f"{crf:g}"
    if preset is not None and quality.preset_option is None:
        raise UnsupportedOptionError(f"codec {codec.name} has no preset option", "preset")
    if preset in _SPEEDS:
        preset = quality.speeds[_SPEEDS.index(preset)]
    elif preset is not None and codec.name in _QUALITY and not _is_own_preset(preset, quality):
        own = f", or a number of {codec.name}'s own" if quality.speeds[0].isdigit() else ""
        raise UsageError(f"unknown preset {preset!r}; use {', '.join(_SPEEDS)}{own}", "preset")
    if preset is None:
        preset = quality.default_preset
    if preset is not None and quality.preset_option is not None:
        options[quality.preset_option] = preset
    return options


_LOW_LATENCY: dict[str, tuple[str, dict[str, str]]] = {
    "libx264": ("veryfast", {"tune": "zerolatency"}),
    "libx264rgb": ("veryfast", {"tune": "zerolatency"}),
    "libx265": ("superfast", {"tune": "zerolatency"}),
    "libsvtav1": ("10", {"svtav1-params": "pred-struct=1:lookahead=0"}),
    "libaom-av1": ("8", {"usage": "realtime", "lag-in-frames": "0"}),
    "libvpx-vp9": ("7", {"deadline": "realtime", "lag-in-frames": "0"}),
    **{
        name: ("p3", {"tune": "ull", "zerolatency": "1", "bf": "0"})
        for name in ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
    },
}
"""Encoder to its preset for live video, and the options that keep it from buffering frames."""

_KEY_FRAME_SECONDS = 2
"""Interval of key frames in live video: a new viewer has to wait for the next one."""


def low_latency_options(
    name: str, options: dict[str, str], rate: Fraction | None, *, keeps_preset: bool
) -> dict[str, str]:
    """Return ``options`` changed for low latency.

    Args:
        name: FFmpeg's name of the encoder; the options of unknown encoders are returned as they are.
        options: Options as :func:`encoder_options` returns them.
        rate: Frames per second, if known.
        keeps_preset: Whether the user chose the preset.
    """
    if name not in _LOW_LATENCY:
        return options
    preset, changes = _LOW_LATENCY[name]
    changed = {**options, **changes, "g": str(round(_KEY_FRAME_SECONDS * (rate or 25)))}
    option = _QUALITY[name].preset_option
    if option is not None and not keeps_preset:
        changed[option] = preset
    return changed


def _is_own_preset(preset: str, quality: _Quality) -> bool:
    if quality.speeds[0].isdigit():
        return preset.lstrip("-").isdigit()
    return preset == "placebo" if quality.speeds is _SPEEDS else preset in quality.speeds


def _guess_quality(known: set[str]) -> _Quality:
    """Guess how to set the quality of an unknown encoder: by whichever constant-quality option it has."""
    preset = "preset" if "preset" in known else None
    for option in ("crf", "cq", "qp"):
        if option in known:
            return _Quality(20, crf_option=option, preset_option=preset)
    return _Quality(None, preset_option=preset)


def _known_options(codec: av.codec.codec.Codec) -> set[str]:
    context = av.CodecContext.create(codec, "w")
    options = getattr(context, "supported_options", None)  # new in av 18
    return {option.name for option in options.private} if options is not None else set()


def writes_captions(codec: av.codec.Codec) -> bool:
    """Whether the encoder writes closed captions (A53) attached to pictures."""
    return "a53cc" in _known_options(codec)


def needs_fixed_quantiser(codec: av.codec.Codec, options: dict[str, str]) -> bool:
    """Whether the encoder would use FFmpeg's default of 200 kbit/s, because no option sets its quality."""
    if codec.name in ("ffv1", "prores_ks") or (codec.lossless and not codec.lossy):
        return False
    return not {"crf", "cq", "qp"} & options.keys()
