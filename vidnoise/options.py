"""The options of denoising: the single place for names, types, defaults, ranges and documentation.

A new option is a field here, a key in :mod:`vidnoise.option_keywords` (a test checks that they match), and its use. The
keyword functions (:func:`vidnoise.denoise`, :func:`vidnoise.denoise_file`, :class:`vidnoise.Denoiser`,
:func:`vidnoise.open_source`, :func:`vidnoise.open_sink`), ``vidnoise run``, and the check of settings when resuming
follow automatically.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from vidnoise.checked import Checked, again, option
from vidnoise.errors import UsageError
from vidnoise.option_groups import CODEC, DENOISING, FILES, LIVE, MAIN, PERFORMANCE, PIXELS
from vidnoise.option_values import (
    FOREVER,
    LONGEST_SECONDS,
    MAX_JOBS,
    MAX_LATENCY_MS,
    MAX_LOOKAHEAD,
    MAX_PIXELS,
    MAX_STRENGTH,
    SEGMENT_SECONDS,
    Attempts,
    PathLike,
    Running,
    Seconds,
    SizeChange,
)

if TYPE_CHECKING:
    import torch

    from vidnoise.option_values import MaskLike, RegionLike, SigmaLike, SpanLike, ZonesLike


# fmt: off

@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Checked):
    """Where and how the network runs."""

    device: str | torch.device | Sequence[str] = option(
        "auto", """Where the network runs: "auto", "cpu", "cuda", "cuda:N" or "mps". denoise_file also takes several, as
        a list or with commas between them, and has pieces of the video denoised by each.""", may_change=True,
        help="auto, cpu, cuda, cuda:N or mps; several with commas between them share a video, or the files of a batch.",
        group=MAIN)
    precision: str = option(
        "auto", """Arithmetic of the network's convolutions: "auto", "fp32", "bf16", "fp16", or "int8" on a CPU, with
        models that have weights for it.""",
        choices=("auto", "fp32", "bf16", "fp16", "int8"), help="Arithmetic of the network.", group=PERFORMANCE)
    backend: str | Running = option(
        "auto", """How the network runs: "auto", or a name from docs/BACKENDS.md ("eager", "openvino" ...). A Denoiser
        also takes the backend of another one with the same model, device and precision, to share it.""",
        metavar="NAME", may_change=True,
        help="How the network runs: auto, eager, compile, openvino, onnxruntime, cuda-graph, tensorrt.",
        group=PERFORMANCE)
    # Not may_change: tiles differ slightly from whole pictures at their edges, and lookahead="auto" depends on the
    # memory.
    max_memory: float | None = option(
        None, """Limit of the memory that a stream takes on the device, in MB; pictures that need more are denoised in
        tiles, by the backend "eager".""", above=0, unit=" MB", metavar="MB",
        help="Memory limit on the device; larger pictures are denoised in tiles.", group=PERFORMANCE)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(DeviceOptions):
    """Options of denoising, for one picture."""

    strength: float = option(
        1.0, """Strength of denoising: 0 changes nothing, bit for bit; 1 removes what the network considers noise;
        values in between blend. Above 1, up to 2, the noise is assumed to be that many times as strong, and to exist
        where none was found.""",
        least=0, most=MAX_STRENGTH, help="Strength of denoising: 0 changes nothing, 2 removes most.", group=MAIN)
    luma: float = option(
        1.0, "Multiplier of strength for luma, 0 to 2; for RGB, for the BT.709 Y' of the correction.",
        least=0, most=MAX_STRENGTH, help="Multiplier of --strength for luma, 0 to 2.", group=DENOISING)
    chroma: float = option(
        1.0, "Multiplier of strength for chroma, 0 to 2; for RGB, for the BT.709 Cb and Cr of the correction.",
        least=0, most=MAX_STRENGTH, help="Multiplier of --strength for chroma, 0 to 2.", group=DENOISING)
    mask: MaskLike | None = option(
        None, """Mask of the strength, from black (none) to white (full): a picture file, a video file read in step with
        the frames, or an (H, W) array. Scaled to the frames' size if the aspect ratios match.""",
        metavar="FILE", help="Mask, a picture or video: white is denoised fully, black not at all.", group=DENOISING)
    grain: float = option(
        0.0, "Amount of grain to add that resembles the removed noise, where it was removed: 0 to 2; 1 adds as much.",
        least=0, most=2, help="Add grain that resembles the removed noise; 1 adds as much.", group=MAIN)
    grain_seed: int = option(
        0, "Seed of the grain; the same seed gives the same grain on the same device.",
        least=-(1 << 63), most=(1 << 63) - 1, must_be="a number of 64 bits", help="Seed of the grain.", group=DENOISING)
    sigma: SigmaLike | None = option(
        None, """Standard deviation of the noise in 8-bit units (25 means 25/255), 0 to 255, in the samples of each
        plane as stored: R, G and B, gray, or Y, Cb and Cr; or an (H, W) array with that of each pixel. None
        estimates it per pixel, channel and frame.""",
        least=0, most=255, unit=" (8-bit units)", by_place=True,
        help="Noise level of each plane, in 8-bit units.  [default: estimated]", group=DENOISING)
    noise_region: RegionLike | None = option(
        None, """Part of the picture that is flat but for its noise, as "X,Y,W,H" or four whole numbers: pixels of the
        picture as shown, at least 32x32. The noise is measured there, in each frame, and taken to be the same
        everywhere.""", metavar="X,Y,W,H",
        help="Measure the noise in this flat part of the picture, in pixels.", group=DENOISING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None and self.noise_region is not None:
            raise UsageError(
                "sigma gives the noise level that noise_region would measure: use one of them", "sigma", "noise_region"
            )

@dataclass(frozen=True, kw_only=True)
class DenoiseOptions(ImageOptions):
    """Options of denoising, for one stream."""

    zones: ZonesLike | None = option(
        None, """Strengths for parts of the video, as "0-10:0.5,60-:0" or a sequence of (begin, end, strength), in
        seconds, end exclusive; they replace strength there. Requires pictures with timestamps.""",
        metavar="LIST", help='Strengths for parts of the video, in seconds: "0-10:0.5,60-:0".', group=DENOISING)
    grain_table: PathLike | None = option(
        None, "File for an AV1 film-grain table (filmgrn1) of the removed noise, written at the end.",
        metavar="FILE", help="Write an AV1 film-grain table of the removed noise.", group=DENOISING)
    preview: str | None = option(
        None, """"split" leaves the left half of the picture unchanged, with a thin divider, for comparison.""",
        choices=("split",), help="Leave the left half unchanged, for comparison.", group=DENOISING)
    detect_cuts: bool = option(
        True, "Reset the denoiser at scene cuts.", flag="--no-cuts", help="Do not detect scene cuts.", group=DENOISING)
    lookahead: int | str = option(
        0, """Maximum number of later frames to wait for before a frame is returned, 0 to 32: it is denoised with its
        past and at least a third of them, and each takes memory for three pictures. For files, also "auto": 8 frames,
        or as many as fit into memory; for live inputs none on a CPU, and up to 3 on a GPU if they fit into a quarter of
        max_latency.""",
        least=0, most=MAX_LOOKAHEAD, unit=" frames", words=("auto",), metavar="FRAMES",
        help="Number of later frames to use for each frame: auto, or 0 to 32.  [default: auto: files 8, if they fit "
        "into memory; live 0, on a GPU up to 3]", group=DENOISING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grain and self.grain_table is not None:
            raise UsageError(
                "grain and grain_table would give grain twice: once in the picture, once in the player",
                "grain", "grain_table",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ThreadOptions(Checked):
    """Options common to reading and writing."""

    threads: int = option(
        0, "CPU threads of decoder, encoder and, in denoise_file, of torch in the whole process; 0 lets each choose.",
        least=0, most=1024, must_be="0 (automatic) to 1024", may_change=True,
        help="CPU threads.  [default: all cores]", group=PERFORMANCE)


@dataclass(frozen=True, kw_only=True)
class SourceOptions(ThreadOptions):
    """Options of an input."""

    start: Seconds | None = option(
        None, "Skip this many seconds; timestamps then start at 0.",
        least=0, most=LONGEST_SECONDS, must_be=f"0 seconds to {LONGEST_SECONDS}",
        help="Skip to this time: 90 or 1:30.", group=MAIN)
    duration: Seconds | None = option(
        None, "Stop after this many seconds.", above=0, unit=" seconds", help="Stop after this time.", group=MAIN)
    hwaccel: str = option(
        "none", """Decoder hardware: "none", the CPU; "cuda", an NVIDIA GPU, or an error; "auto", the network's GPU if
        it supports the codec.""", choices=("auto", "none", "cuda"), may_change=True,
        help="Decoder hardware: the CPU (none), an NVIDIA GPU (cuda), or the network's GPU if it can (auto).",
        group=PERFORMANCE)
    input_format: str | None = option(
        None, """Container of the input, if it cannot be detected: "y4m", "mkv", "ts", or FFmpeg's name.""",
        metavar="NAME", help="Container of the input.  [default: detected]", group=FILES)
    raw_size: str | None = option(
        None, """Size of raw video without a header, as in "1920x1080".""",
        metavar="WxH", help="Size of raw video without a header, as in 1920x1080.", group=FILES)
    raw_format: str | None = option(
        None, "FFmpeg's name of the pixel format of raw video.",
        metavar="NAME", help="Pixel format of raw video, as in yuv420p10le.", group=FILES)
    raw_rate: str | None = option(
        None, """Frames per second of raw video, as in "30000/1001"; by default 25.""",
        metavar="FPS", help="Frame rate of raw video, as in 30000/1001.  [default: 25]", group=FILES)
    rate: str | None = option(
        None, """Frames per second of a sequence of pictures (``frame%04d.png``, ``shots/*.png``), as in "30000/1001";
        by default 25.""", metavar="FPS", group=FILES,
        help="Frame rate of a sequence of pictures, as in 30000/1001.  [default: 25]")
    live: bool | None = option(
        None, """Whether to treat the input as live, dropping frames rather than lagging; by default, this depends on
        the address. Files are then read in real time.""", flag="--live/--not-live", may_change=True,
        help="Treat the input as live: drop frames rather than lag.  [default: by address]", group=LIVE)
    connect_timeout: float = option(
        15, "Seconds to wait for the input to open.", above=0, unit=" seconds", metavar="S", may_change=True,
        help="Seconds to wait for a connection.", group=LIVE)
    read_timeout: float | None = option(
        None, """Seconds to wait for data; by default 10 for live inputs, 30 for other URLs, and no limit for local
        inputs.""", above=0, unit=" seconds", metavar="S", may_change=True,
        help="Seconds to wait for data.  [default: 10; URLs of files 30]", group=LIVE)
    reconnect: Attempts = option(
        5, "Consecutive attempts to reopen a live URL or camera after a loss; -1 for no limit.",
        least=FOREVER, must_be="a number of attempts or forever", may_change=True,
        help="Live: consecutive attempts to reconnect after a loss, or forever.", group=LIVE)
    rtsp_transport: str | None = option(
        None, """Transport of RTSP: "tcp" (the default) or "udp".""", choices=("tcp", "udp"), may_change=True,
        help="Transport of RTSP.  [default: tcp]", group=LIVE)
    input_options: dict[str, str] | None = option(
        None, """Options of FFmpeg's demuxer, such as {"video_size": "1280x720", "framerate": "30"} for cameras.""",
        flag="--input-option", metavar="NAME=VALUE",
        help="Option of FFmpeg's demuxer, as in framerate=30; may be repeated.")
    interlaced: str = option(
        "auto", """Whether the video is interlaced: "auto" trusts its flags, "tff" and "bff" mean that it is (top or
        bottom field first), "no" that it is not.""", choices=("auto", "tff", "bff", "no"),
        help="Whether the input is interlaced, and its field order; auto trusts its flags.", group=PIXELS)
    size_change: SizeChange | None = option(
        None, """What to do if the pictures change size or format midway: "stop" finishes the output and raises
        SizeChangeError, "split" ends before the change and continues (denoise_file: in <name>-2), "scale" scales all
        pictures to the first size. By default "stop"; denoise_file splits live inputs, or scales them if an output is
        not a file.""", choices=get_args(SizeChange), may_change=True,
        help="If the picture size changes: stop with an error, continue in another file (split, NAME-2), or scale to "
        "the first size.  [default: files stop; live inputs split, or scale if an output is not a file]", group=PIXELS)
    tracks: str | None = option(
        None, """Tracks to keep, separated by commas: "v:1" the second video, "a:eng" only English audio, "-s" no
        subtitles, "-a:0" all audio but the first. Kinds that are not named are kept.""", metavar="LIST",
        help="Tracks to keep: v:1 (second video), a:eng (English audio), -s (no subtitles); separate with commas.",
        group=FILES)
    max_pixels: int | None = option(
        None, "Maximum number of pixels; larger pictures are rejected. By default 2^28 (16384x16384).",
        least=1, most=(1 << 31) - 1, must_be="1 to 2^31 - 1", metavar="N", may_change=True,
        help=f"Reject pictures with more pixels.  [default: {MAX_PIXELS}, 16384x16384]")


@dataclass(frozen=True, kw_only=True)
class SinkOptions(ThreadOptions):
    """Options of an output."""

    overwrite: bool = option(
        False, "Whether an existing file may be replaced, once the new one is complete.", flag="-y/-n",
        may_change=True, help="Overwrite an existing output, or refuse to.  [default: -n]", group=MAIN)
    codec: str | None = option(
        None, """Codec: "h264", "hevc", "av1", "vp9", "ffv1", "prores", another name of these ("H265", "x264",
        "AV01"), or any FFmpeg video encoder; None uses the input's codec if there is an encoder for it.""",
        help="h264, hevc (h265), av1, vp9, ffv1, prores, or an FFmpeg encoder.  [default: the input's]", group=MAIN)
    crf: float | None = option(
        None, "Constant quality on the encoder's own scale, lower is better; None for a high default.",
        help="Quality on the encoder's scale; lower is better.  [default: high quality]", group=MAIN)
    quality: int | None = option(
        None, """Quality of JPEG and WebP pictures, 1 to 100. By default 95, except that WebP is lossless unless the
        input has subsampled chroma.""", least=1, most=100,
        help="Quality of JPEG and WebP pictures, 1 to 100.  [default: 95; WebP of PNG and TIFF lossless]", group=CODEC)
    preset: str | None = option(
        None, """Encoder speed, from "ultrafast" to "veryslow", or one of the encoder's own presets.""",
        help="Encoder speed: ultrafast to veryslow, or a preset of the encoder.", group=CODEC)
    pix_fmt: str | None = option(
        None, "Pixel format; None keeps the input's, or the closest lossless one.", metavar="NAME",
        help="Pixel format of the output.  [default: the input's]", group=PIXELS)
    audio: str = option(
        "copy", """What to do with audio: "copy", "none", or encode as "aac", "opus" or "flac".""",
        choices=("copy", "none", "aac", "opus", "flac"), metavar="TEXT",
        help="Audio: copy, none, or encode as aac, opus or flac.", group=CODEC)
    format: str | None = option(
        None, """Container: "y4m" (the default for pipes), "raw", "mkv", "ts", "nut", or FFmpeg's name.""",
        flag="-f/--format", metavar="NAME", help="Container: y4m, raw, mkv, ts, nut ...  [default: by extension]",
        group=FILES)
    tee: Sequence[PathLike] = option(
        (), "Further outputs, encoded with the defaults of their kind.", metavar="OUTPUT", may_change=True,
        help="Further output, like -o; may be repeated.", group=FILES)
    faststart: bool | None = option(
        None, """Whether .mp4, .m4v and .mov files get their index first, so that they can be played while downloading;
        None does so for .mp4 and .m4v up to two hours.""", flag="--faststart/--no-faststart",
        help="Put the index first, for playing while downloading.  [default: .mp4 and .m4v up to two hours]",
        group=FILES)
    grow: bool = option(
        False, "Write under the final name from the start, so that the file can be read while it grows.",
        help="Write under the final name from the start, for reading while it grows.", group=FILES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tee and self.audio not in ("copy", "none"):
            raise UsageError(
                f"audio {self.audio} encodes for one output; with tee use copy or none", "audio", "tee"
            )


@dataclass(frozen=True, kw_only=True)
class FileOptions(DenoiseOptions, SourceOptions, SinkOptions):
    """All options of denoising one video file into another."""

    lookahead: int | str = again(DenoiseOptions, "lookahead", "auto")
    noise_from: SpanLike | None = option(
        None, """Part of the video to measure the noise in, as "0-2", "1:03-1:05" or (begin, end) in seconds: in
        noise_region if that is given, otherwise in the flattest parts of the pictures. It is read first, and its noise
        level is used for the whole video. Only for files.""", metavar="START-END",
        help="Measure the noise in this part of the video: 0-2 or 1:03-1:05.", group=DENOISING)
    resume: bool = option(
        False, """Write segments to <dst>.parts, and continue after the last finished one of an interrupted run with the
        same options; the output appears when it is complete.""", may_change=True,
        help="Skip finished files, and resume interrupted ones.", group=FILES)
    segment_seconds: Seconds = option(
        SEGMENT_SECONDS, "With resume: length of a segment, in seconds of video.",
        above=0, must_be="longer than 0 seconds", flag="--segment", may_change=True,
        help="With --resume: length of a segment, in seconds of video.  [default: 60]", group=FILES)
    jobs: int | None = option(
        None, """Number of processes on each device that share a video, in pieces that begin at scene cuts or with a
        lead-in (docs/CLUSTER.md); by default, this process denoises all of it, or one on each of several devices.""",
        least=1, most=MAX_JOBS, metavar="N", may_change=True,
        help="Number of processes on each device that share a video, or the files of a batch.", group=PERFORMANCE)
    cluster: str | None = option(
        None, """Address of a Ray cluster whose nodes share a video like processes do, or "auto" for the one that this
        machine belongs to; jobs is then the number of pieces that are denoised at the same time: by default one for
        each GPU or, without GPUs, for each node. Requires vidnoise[cluster].""", metavar="ADDRESS", may_change=True,
        help="Ray cluster that shares a video: its address, or auto.", group=PERFORMANCE)
    max_latency: float = option(
        MAX_LATENCY_MS, """Maximum time in ms from a live frame's arrival to its being written; the oldest frames are
        dropped rather than exceed it.""", above=0, unit=" ms", metavar="MS", may_change=True,
        help="Live: maximum delay; the oldest frames are dropped rather than exceed it.", group=LIVE)

    @property
    def devices(self) -> list[str]:
        """The names of the devices, at least one.

        Raises:
            UsageError: A name is missing, or ``auto`` is one of several.
        """
        given = self.device
        texts = given if isinstance(given, Sequence) and not isinstance(given, str) else str(given).split(",")
        names = [str(name).strip() for name in texts]
        if not names or not all(names):
            raise UsageError(f"device {given!r} must name devices with commas between them", "device")
        if len(names) > 1 and "auto" in names:
            raise UsageError("device auto is one device; name all of several, as in cuda:0,cuda:1", "device")
        return names

    @property
    def is_shared(self) -> bool:
        """Whether several processes share the video."""
        return self.cluster is not None or (self.jobs or 1) * len(self.devices) > 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma is not None and self.noise_from is not None:
            raise UsageError(
                "sigma gives the noise level that noise_from would measure: use one of them", "sigma", "noise_from"
            )
        if self.is_shared and self.grain_table is not None:
            raise UsageError(
                "a grain table is made from all frames in one process: it does not go with several devices, jobs or "
                "cluster", "grain_table", "device", "jobs", "cluster",
            )  # fmt: skip
        if self.is_shared and not isinstance(self.backend, str):
            raise UsageError("several processes cannot share a backend: give its name", "backend", "jobs")
        if self.cluster is not None and len(self.devices) > 1:
            raise UsageError("a cluster has devices of its own: leave device out, or name one", "cluster", "device")
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
        if self.resume and getattr(self.sigma, "ndim", 0):
            raise UsageError("resume needs a sigma that is one number", "resume", "sigma")


# fmt: on
