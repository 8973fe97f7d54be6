"""Every option of denoising: the one place where its name, type, default, range and documentation stand.

A new option is a field here, its key in the typed dictionary below (a test holds the two together), and its use. The
keyword functions (:func:`vidnoise.denoise`, :func:`vidnoise.denoise_file`, :class:`vidnoise.Denoiser`,
:func:`vidnoise.open_source`, :func:`vidnoise.open_sink`), ``vidnoise run``, and what a resumed run compares follow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypedDict, get_args

from vidnoise.checked import Checked, again, option
from vidnoise.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch

    MaskLike: TypeAlias = str | os.PathLike[str] | np.ndarray | torch.Tensor
    ZonesLike: TypeAlias = str | Sequence[tuple[float, float, float]]

PathLike: TypeAlias = "str | os.PathLike[str]"

Seconds: TypeAlias = float
"""The command line takes ``1:30``, too."""

Attempts: TypeAlias = int
"""A number; :data:`FOREVER` has no end."""

SizeChange = Literal["stop", "split", "scale"]
"""Ways to handle pictures that change their size or format in the middle."""

FOREVER = -1
"""Number of reconnections for those who never give up."""

MAX_STRENGTH = 2.0

MAX_LOOKAHEAD = 32
"""Frames: as many as the fusion's least gain lets count, and each takes memory for some pictures."""

MAX_LATENCY_MS = 1000
"""How long a live frame may take from its arrival to its being written, by default."""

SEGMENT_SECONDS = 60.0
"""Default length of a segment, in seconds of video: the most that an interruption of a resumable run costs."""

MAX_PIXELS = 1 << 28
"""Largest picture by default: 16384x16384, 400 MB as yuv420p. A few bytes can ask for more than there is memory."""

_LONGEST_SECONDS = 1_000_000_000
"""Longer than any video; libav's seeking has 64 bits for it."""


class Running(Protocol):
    """A running backend; a :class:`vidnoise.backends.protocol.Backend`."""

    @property
    def name(self) -> str: ...


# fmt: off

@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Checked):
    """Where and how the network runs."""

    device: str | torch.device = option(
        "auto", """Where the network runs: "auto", "cpu", "cuda", "cuda:N" or "mps".""", may_change=True,
        help="auto, cpu, cuda, cuda:N or mps; several with commas share the files of a batch.")
    precision: str = option(
        "auto", """Arithmetic of the network's convolutions: "auto", "fp32", "bf16" or "fp16".""",
        choices=("auto", "fp32", "bf16", "fp16"), help="Arithmetic of the network.")
    backend: str | Running = option(
        "auto", """How the network runs: "auto", or a name from docs/BACKENDS.md ("eager", "openvino" ...); for a
        Denoiser also the backend of another one with the same model, device and precision, to share it.""",
        metavar="NAME", may_change=True,
        help="How the network runs: auto, eager, compile, openvino, onnxruntime, cuda-graph, tensorrt.")
    # Not may_change: pictures in tiles differ from whole ones by what convolutions see beyond the tiles' edges, and
    # lookahead="auto" goes by the memory.
    max_memory: float | None = option(
        None, """MB that a stream may take on the device; pictures for which that is too little are denoised in tiles,
        by the backend "eager".""", above=0, unit=" MB", metavar="MB",
        help="What a video may take on the device; too large pictures are denoised in tiles.")


@dataclass(frozen=True, kw_only=True)
class ImageOptions(DeviceOptions):
    """Options of denoising, for one picture."""

    strength: float = option(
        1.0, """0 changes nothing, bit for bit; 1 removes what the network takes for noise; values between mix; up to 2
        takes the noise to be that many times as strong, and some where none was found.""",
        least=0, most=MAX_STRENGTH, help="0 changes nothing, 2 removes most.")
    luma: float = option(
        1.0, "As strength, times it, for brightness alone, 0 to 2; of RGB for the correction's BT.709 Y'.",
        least=0, most=MAX_STRENGTH, help="Strength for brightness alone, 0 to 2, times it.")
    chroma: float = option(
        1.0, "As strength, times it, for colour alone, 0 to 2; of RGB for the correction's BT.709 Cb and Cr.",
        least=0, most=MAX_STRENGTH, help="Strength for colour alone, 0 to 2, times it.")
    mask: MaskLike | None = option(
        None, """Strength by place, white fully, black not at all: a picture or video file, read in step with the
        frames, or an (H, W) array. Scaled to the frames' size if its proportions are theirs.""",
        metavar="FILE", help="Picture or video: white is denoised fully, black not at all.")
    grain: float = option(
        0.0, "Fresh grain like the noise removed, where it was removed: 1 gives back as much, 0 to 2.",
        least=0, most=2, help="Fresh grain like the noise removed; 1 is as much.")
    grain_seed: int = option(
        0, "Which grain; the same seed gives the same on the same device.",
        least=-(1 << 63), most=(1 << 63) - 1, must_be="a number of 64 bits", help="Which grain.")
    sigma: float | None = option(
        None, """Standard deviation of the noise in 8-bit units (25 means 25/255), 0 to 255, of each plane's samples as
        they are stored: of R, G and B, of gray, or of Y, Cb and Cr; None measures it, per pixel, channel and frame.""",
        least=0, most=255, unit=" (8-bit units)",
        help="Noise level of each plane, in 8-bit units.  [default: measured]")

@dataclass(frozen=True, kw_only=True)
class DenoiseOptions(ImageOptions):
    """Options of denoising, for one stream."""

    zones: ZonesLike | None = option(
        None, """Strengths by time, "0-10:0.5,60-:0" or (begin, end, strength) each: in those seconds of the video, end
        excluded, that strength holds instead. Pictures without times cannot have them.""",
        metavar="LIST", help='Strengths by time, in seconds: "0-10:0.5,60-:0".')
    grain_table: PathLike | None = option(
        None, "File for an AV1 film-grain table (filmgrn1) of the noise removed, written at the end.",
        metavar="FILE", help="Write an AV1 film-grain table of the noise removed.")
    preview: str | None = option(
        None, """"split" leaves the left half of the picture as it is, with a thin divider, to look at.""",
        choices=("split",), help="Leave the left half as it is, to look at.")
    detect_cuts: bool = option(
        True, "Start afresh at scene cuts.", flag="--no-cuts", help="Do not look for scene cuts.")
    lookahead: int | str = option(
        0, """How many frames may have to come before a frame goes out, 0 to 32: it is denoised by its past and by a
        third of them at least, and each takes memory for three pictures. Of files also "auto": 8 frames, or as far as
        the memory allows; live inputs none on a CPU, and on a GPU up to 3, if a quarter of max_latency has room.""",
        least=0, most=MAX_LOOKAHEAD, unit=" frames", words=("auto",), metavar="FRAMES",
        help="Denoise each frame by so many after it, too: auto, or 0 to 32.  [default: auto: files 8, as far as "
        "memory allows; live 0, on a GPU up to 3]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grain and self.grain_table is not None:
            raise UsageError(
                "grain and grain_table would give grain twice: once in the picture, once in the player",
                "grain", "grain_table",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ThreadOptions(Checked):
    """Options that reading and writing have in common."""

    threads: int = option(
        0, "CPU threads of decoder, encoder and, for denoise_file, torch in the whole process; 0 lets each choose.",
        least=0, most=1024, must_be="0 (automatic) to 1024", may_change=True,
        help="CPU threads.  [default: all cores]")


@dataclass(frozen=True, kw_only=True)
class SourceOptions(ThreadOptions):
    """How an input is read."""

    start: Seconds | None = option(
        None, "Skip this many seconds; times then begin at 0 again.",
        least=0, most=_LONGEST_SECONDS, must_be=f"0 seconds to {_LONGEST_SECONDS}",
        help="Skip to this time: 90 or 1:30.")
    duration: Seconds | None = option(
        None, "Stop after this many seconds.", above=0, unit=" seconds", help="Stop after this time.")
    hwaccel: str = option(
        "none", """What decodes: "none" the CPU; "cuda" an NVIDIA GPU, or an error; "auto" the GPU that the network runs
        on, if it knows the codec.""", choices=("auto", "none", "cuda"), may_change=True,
        help="What decodes: the CPU (none), an NVIDIA GPU (cuda), or the network's GPU if it can (auto).")
    input_format: str | None = option(
        None, """Container, where it cannot be told from the data: "y4m", "mkv", "ts", or FFmpeg's name.""",
        metavar="NAME", help="Container of the input.  [default: found by itself]")
    raw_size: str | None = option(
        None, """For video without a header: its size, "1920x1080".""",
        metavar="WxH", help="The input has no header: its size, as in 1920x1080.")
    raw_format: str | None = option(
        None, "For video without a header: FFmpeg's name of the pixel format.",
        metavar="NAME", help="... and its pixel format, as in yuv420p10le.")
    raw_rate: str | None = option(
        None, """For video without a header: frames per second, "30000/1001"; by default 25.""",
        metavar="FPS", help="... and its frame rate, as in 30000/1001.  [default: 25]")
    rate: str | None = option(
        None, """Of a sequence of pictures ("frame%04d.png", "shots/*.png"): frames per second, "30000/1001"; by default
        25.""", metavar="FPS", help="Frame rate of a sequence of pictures, as in 30000/1001.  [default: 25]")
    live: bool | None = option(
        None, """Whether the input does not wait for us; by default the address tells. Files are then read in real
        time.""", flag="--live/--not-live", may_change=True,
        help="The input does not wait for us.  [default: by address]")
    connect_timeout: float = option(
        15, "Seconds to wait for the input to open.", above=0, unit=" seconds", metavar="S", may_change=True,
        help="Wait so long for an answer.")
    read_timeout: float | None = option(
        None, """Seconds to wait for the next data; by default 10 for live inputs, 30 for other URLs, and for ever where
        nothing can go away.""", above=0, unit=" seconds", metavar="S", may_change=True,
        help="... and for data.  [default: 10; URLs of files 30]")
    reconnect: Attempts = option(
        5, "Attempts in a row to open a live URL or camera again after it was lost; -1 never gives up.",
        least=FOREVER, must_be="a number of attempts or forever", may_change=True,
        help="Live: attempts in a row after a loss, or forever.")
    rtsp_transport: str | None = option(
        None, """How RTSP sends: "tcp" (the default) or "udp".""", choices=("tcp", "udp"), may_change=True,
        help="How RTSP sends.  [default: tcp]")
    input_options: dict[str, str] | None = option(
        None, """Of FFmpeg's reader, for cameras say {"video_size": "1280x720", "framerate": "30"}.""",
        flag="--input-option", metavar="NAME=VALUE",
        help="Option of FFmpeg's reader, as in framerate=30; may be repeated.")
    interlaced: str = option(
        "auto", """Whether pictures are two fields: "auto" believes the video's marks, "tff" and "bff" say that they are
        (top or bottom field first), "no" that they are not.""", choices=("auto", "tff", "bff", "no"),
        help="Pictures are two fields: by the input's marks, or you know better.")
    size_change: SizeChange | None = option(
        None, """Where the pictures change their size or format in the middle: "stop" finishes what came before and
        raises SizeChangeError, "split" ends before that picture and goes on (denoise_file: in <name>-2), "scale" gives
        all the first one's size. By default "stop"; denoise_file splits live inputs, or scales where an output is no
        file.""", choices=get_args(SizeChange), may_change=True,
        help="Where the picture changes its size: end there with an error, go on in another file (NAME-2), or scale to "
        "the first size.  [default: files stop; live inputs split, or scale where an output is no file]")
    tracks: str | None = option(
        None, """Which tracks are wanted: "v:1" the second video, "a:eng" the English sound only, "-s" no subtitles,
        "-a:0" all sound but the first; several with commas. Of kinds not named, all.""", metavar="LIST",
        help="Only these: v:1 (second video), a:eng (English sound), -s (no subtitles); commas between.")
    max_pixels: int | None = option(
        None, "Larger pictures are refused; by default 2^28 (16384x16384).",
        least=1, most=(1 << 31) - 1, must_be="1 to 2^31 - 1", metavar="N", may_change=True,
        help=f"Refuse larger pictures than so many pixels.  [default: {MAX_PIXELS}, 16384x16384]")


@dataclass(frozen=True, kw_only=True)
class SinkOptions(ThreadOptions):
    """How an output is written."""

    overwrite: bool = option(
        False, "Whether an existing file may be replaced (when the new one is complete).", flag="-y/-n",
        may_change=True, help="Overwrite an existing output, or refuse to.  [default: -n]")
    codec: str | None = option(
        None, """"h264", "hevc", "av1", "vp9", "ffv1", "prores", or the name of any FFmpeg video encoder; None takes the
        input's codec where there is an encoder for it.""",
        help="h264, hevc, av1, vp9, ffv1, prores, or an FFmpeg encoder.  [default: the input's]")
    crf: float | None = option(
        None, "Constant quality in the encoder's own scale (lower is better); None for a good default.",
        help="Quality in the encoder's scale; lower is better.  [default: a high one]")
    quality: int | None = option(
        None, """Of JPEG and WebP pictures, 1 to 100. None is 95, and for WebP of what was not stored with subsampled
        chroma (PNG, TIFF, lossless WebP) no loss at all.""", least=1, most=100,
        help="Of JPEG and WebP pictures, 1 to 100.  [default: 95; WebP of PNG and TIFF lossless]")
    preset: str | None = option(
        None, """Speed, "ultrafast" to "veryslow" (or the encoder's own name or number).""",
        help="Encoder speed: ultrafast to veryslow, or the encoder's own.")
    pix_fmt: str | None = option(
        None, "Pixel format; None keeps the input's, or the nearest that loses nothing.", metavar="NAME",
        help="Pixel format of the output.  [default: the input's]")
    audio: str = option(
        "copy", """"copy", "none", or an encoder: "aac", "opus", "flac".""",
        choices=("copy", "none", "aac", "opus", "flac"), metavar="TEXT", help="copy, none, aac, opus or flac.")
    format: str | None = option(
        None, """Container: "y4m" (the default of pipes), "raw", "mkv", "ts", "nut", or FFmpeg's name.""",
        flag="-f/--format", metavar="NAME", help="Container: y4m, raw, mkv, ts, nut ...  [default: extension]")
    tee: Sequence[PathLike] = option(
        (), "More outputs, encoded with the defaults of their kind.", metavar="OUTPUT", may_change=True,
        help="One more output, as -o takes it; may be repeated.")
    faststart: bool | None = option(
        None, """Put the index of .mp4, .m4v and .mov first, so that they play while they are fetched; None does so with
        .mp4 and .m4v up to two hours.""", flag="--faststart/--no-faststart",
        help="Index first, to play while fetching.  [default: .mp4 and .m4v up to two hours]")
    grow: bool = option(
        False, "Write under the final name at once, so that the file can be read while it is written.",
        help="Write under the final name at once, for readers who follow.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tee and self.audio not in ("copy", "none"):
            raise UsageError(
                f"audio {self.audio} encodes for one output; with tee use copy or none", "audio", "tee"
            )


@dataclass(frozen=True, kw_only=True)
class FileOptions(DenoiseOptions, SourceOptions, SinkOptions):
    """All options of denoising one video into another."""

    lookahead: int | str = again(DenoiseOptions, "lookahead", "auto")
    resume: bool = option(
        False, """Write in segments to <dst>.parts, and go on from the last finished one where that is there from an
        interrupted run with the same options; the output appears when all is done.""", may_change=True,
        help="Skip finished files, and go on in an interrupted one.")
    segment_seconds: Seconds = option(
        SEGMENT_SECONDS, "With resume: seconds of video from one safe place to the next.",
        above=0, must_be="longer than 0 seconds", flag="--segment", may_change=True,
        help="With --resume: seconds of video from one safe place to the next.  [default: 60]")
    max_latency: float = option(
        MAX_LATENCY_MS, """Of live inputs, ms from a frame's arrival to its being written; the oldest frames are dropped
        where it would be longer.""", above=0, unit=" ms", metavar="MS", may_change=True,
        help="Live: drop the oldest frames rather than lag more.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and (self.tee or self.grow or self.grain_table is not None or self.live):
            raise UsageError(
                "resume writes one finished file: it does not go with tee, grow, grain_table or live",
                "resume", "tee", "grow", "grain_table", "live",
            )  # fmt: skip
        if self.resume and self.size_change not in (None, "stop"):
            raise UsageError(
                f"resume writes one finished file as it is: it does not go with size_change {self.size_change}",
                "resume", "size_change",
            )  # fmt: skip
        if self.resume and not (self.mask is None or isinstance(self.mask, (str, os.PathLike))):
            raise UsageError("resume needs a mask that is a file", "resume", "mask")


# fmt: on

# The same names and types once more, as type checkers and editors want them.


class DeviceKeywords(TypedDict, total=False):
    """Keywords of :class:`DeviceOptions`."""

    device: str | torch.device
    precision: str
    backend: str | Running
    max_memory: float | None


class ImageKeywords(DeviceKeywords, total=False):
    """Keywords of :class:`ImageOptions`."""

    strength: float
    luma: float
    chroma: float
    mask: MaskLike | None
    grain: float
    grain_seed: int
    sigma: float | None


class DenoiseKeywords(ImageKeywords, total=False):
    """Keywords of :class:`DenoiseOptions`."""

    zones: ZonesLike | None
    grain_table: PathLike | None
    preview: str | None
    detect_cuts: bool
    lookahead: int | str


class ThreadKeywords(TypedDict, total=False):
    """Keywords of :class:`ThreadOptions`."""

    threads: int


class SourceKeywords(ThreadKeywords, total=False):
    """Keywords of :class:`SourceOptions`."""

    start: Seconds | None
    duration: Seconds | None
    hwaccel: str
    input_format: str | None
    raw_size: str | None
    raw_format: str | None
    raw_rate: str | None
    rate: str | None
    live: bool | None
    connect_timeout: float
    read_timeout: float | None
    reconnect: Attempts
    rtsp_transport: str | None
    input_options: dict[str, str] | None
    interlaced: str
    size_change: SizeChange | None
    tracks: str | None
    max_pixels: int | None


class SinkKeywords(ThreadKeywords, total=False):
    """Keywords of :class:`SinkOptions`."""

    overwrite: bool
    codec: str | None
    crf: float | None
    quality: int | None
    preset: str | None
    pix_fmt: str | None
    audio: str
    format: str | None
    tee: Sequence[PathLike]
    faststart: bool | None
    grow: bool


class FileKeywords(DenoiseKeywords, SourceKeywords, SinkKeywords, total=False):
    """Keywords of :class:`FileOptions`."""

    resume: bool
    segment_seconds: Seconds
    max_latency: float
