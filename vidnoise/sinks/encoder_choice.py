"""The encoder, pixel format and encoder options of an output."""

from __future__ import annotations

import logging

import av.codec.codec

from vidnoise.errors import FormatError, UsageError
from vidnoise.frame import PIXEL_FORMATS, StreamInfo
from vidnoise.frame.passthrough import Passthrough
from vidnoise.notices import Notify
from vidnoise.sinks.capability import encoder_formats, holds_video
from vidnoise.sinks.codecs import (
    UnsupportedOptionError,
    default_codecs,
    encoder_options,
    find_encoder,
    low_latency_options,
    rgb_encoder,
)
from vidnoise.sinks.hdr import hdr_options
from vidnoise.sinks.interlacing import codes_fields, interlaced_options
from vidnoise.sinks.picture import FormatChoice, choose_format, forced_format, playable_format
from vidnoise.sinks.uncompressed import UNCOMPRESSED, is_uncompressed, picture_formats

logger = logging.getLogger(__name__)


_FOR_PLAYERS = ("mp4", "mov", "ipod", "3gp", "3g2", "f4v", "ismv", "psp", "flv", "mpegts", "hls")
_PLAYED = ("h264", "hevc", "av1", "vp9")


class EncoderChoice:
    """Chooses an encoder and a pixel format, within what the user asked for.

    Args:
        name: The output's name in messages.
        format_name: FFmpeg's name of the container.
        container_codec: The container's default codec.
        codec, crf, preset, pix_fmt: As the user gave them; None leaves the choice to this class.
    """

    def __init__(
        self, name: str, format_name: str, container_codec: str, *, codec: str | None, crf: float | None,
        preset: str | None, pix_fmt: str | None,
    ) -> None:  # fmt: skip
        self._name = name
        self._format_name, self._container_codec = format_name, container_codec
        self._codec_name, self._crf, self._preset, self._pix_fmt = codec, crf, preset, pix_fmt

    def choose(
        self, info: StreamInfo, *, is_live: bool, notify: Notify = logger.log
    ) -> tuple[av.codec.Codec, FormatChoice]:
        """Choose the encoder and the pixel format, and report any change from the input.

        Args:
            info: The video.
            is_live: Whether someone watches; H.264 is then the default, as it plays everywhere.
            notify: Called for each change.

        Raises:
            FormatError: No encoder supports such pictures.
        """
        if self._codec_name is not None:
            encoder = self._for_family(find_encoder(self._codec_name), info)
            choice = self._choose_format(info, encoder)
            if choice is None:
                raise FormatError(
                    f"{self._name}: {encoder.name} takes no {info.width}x{info.height} pictures of format "
                    f"{info.format.name}; use codec ffv1 or vp9, or pix_fmt yuv444p"
                )
        else:
            encoder, choice = self._choose_default(info, is_live, notify)
        source = info.format.name
        holder = UNCOMPRESSED.get(self._format_name, encoder.name)
        if not choice.is_lossless:
            notify(
                logging.WARNING, "%s: %s cannot hold %s; converting to %s, which loses %s",
                self._name, holder, source, choice.name, choice.loss,
            )  # fmt: skip
        elif choice.name != source:
            notify(logging.INFO, "%s: %s is stored as %s (same samples)", self._name, source, choice.name)
        return encoder, choice

    def reason(self, info: StreamInfo) -> str:
        """Return why :meth:`choose` takes its encoder."""
        if is_uncompressed(self._format_name):
            return f"{self._format_name} is uncompressed"
        if self._codec_name is not None:
            return f"codec {self._codec_name}, as asked"
        return f"the input is {info.codec or 'not encoded'}, the container {self._format_name}"

    def _choose_default(self, info: StreamInfo, is_live: bool, notify: Notify) -> tuple[av.codec.Codec, FormatChoice]:
        found: list[tuple[str, av.codec.Codec, FormatChoice]] = []
        names = default_codecs("h264" if is_live else info.codec, self._format_name, self._container_codec)
        reason = ""
        for name in names:
            try:
                encoder = self._for_family(find_encoder(name), info)
            except UsageError as ex:
                reason = reason or str(ex)
                continue
            if not holds_video(self._format_name, encoder):
                continue
            try:
                encoder_options(encoder, self._crf, self._preset)
                choice = self._choose_format(info, encoder)
            except UnsupportedOptionError as ex:
                reason = reason or str(ex)
                continue
            except UsageError:
                if found:
                    continue
                raise  # the preferred codec has the option but not this value, which is no reason to use another codec
            if choice is not None:
                found.append((name, encoder, choice))
        if not found:
            raise FormatError(f"{self._name}: nothing that {self._format_name} holds takes such video; write an .mkv")
        name, encoder, choice = next((f for f in found if _keeps_picture(f[2])), found[0])
        if reason and name != names[0]:
            notify(logging.WARNING, "%s: encoding as %s instead of %s: %s", self._name, name, names[0], reason)
        elif name != info.codec:
            notify(logging.INFO, "%s: encoding as %s (the input is %s)", self._name, name, info.codec or "not encoded")
        return encoder, choice

    def _for_family(self, encoder: av.codec.Codec, info: StreamInfo) -> av.codec.Codec:
        """Return the encoder, or its RGB variant if the pictures are to stay RGB."""
        is_even = not (info.width % 2 or info.height % 2)
        if self._pix_fmt is None:
            becomes_yuv = self._format_name in _FOR_PLAYERS and is_even
        else:
            asked = PIXEL_FORMATS.get(self._pix_fmt)
            becomes_yuv = asked is not None and asked.family != "rgb"
        if becomes_yuv:
            return encoder
        return rgb_encoder(encoder, info.format)

    def _choose_format(self, info: StreamInfo, encoder: av.codec.Codec) -> FormatChoice | None:
        allowed = picture_formats(self._format_name) or encoder_formats(encoder, self._format_name)
        holder = UNCOMPRESSED.get(self._format_name, encoder.name)
        if self._pix_fmt is None and self._format_name in _FOR_PLAYERS and encoder.canonical_name in _PLAYED:
            playable = playable_format(info, allowed, encoder)
            if playable is not None:
                return playable
        if self._pix_fmt is None:
            return choose_format(info, encoder, allowed)
        return forced_format(info, encoder, self._pix_fmt, allowed, holder)

    def options(
        self,
        encoder: av.codec.Codec,
        copies: Passthrough,
        info: StreamInfo,
        *,
        low_latency: bool,
        notify: Notify = logger.log,
    ) -> dict[str, str]:
        """Return the encoder's options for quality, speed, HDR and fields.

        Args:
            encoder: The encoder.
            copies: Metadata of the input.
            info: The video.
            low_latency: Whether the encoder must not buffer frames.
            notify: Called for what the encoder cannot store.
        """
        if is_uncompressed(self._format_name):
            options = {}
        else:
            options = self._encoder_options(encoder, copies, info, low_latency, notify)
        if info.field_order is None:
            return options
        if not codes_fields(encoder.name):
            notify(
                logging.WARNING,
                "%s: %s has no interlaced coding: the fields are kept woven, and only the container's header says so",
                self._name, encoder.name,
            )  # fmt: skip
        return interlaced_options(encoder.name, info.field_order, options)

    def _encoder_options(
        self, encoder: av.codec.Codec, copies: Passthrough, info: StreamInfo, low_latency: bool, notify: Notify
    ) -> dict[str, str]:
        options = encoder_options(encoder, self._crf, self._preset)
        if low_latency:
            options = low_latency_options(encoder.name, options, info.rate, keeps_preset=self._preset is not None)
        with_hdr = hdr_options(encoder.name, copies.hdr, options)
        if with_hdr is None:
            notify(
                logging.WARNING, "%s: %s cannot carry the HDR mastering metadata of the input", self._name, encoder.name
            )
            return options
        return with_hdr


def _keeps_picture(choice: FormatChoice) -> bool:
    """Whether nothing visible is lost. Transparency does not count: few players show it."""
    return choice.is_lossless or choice.loss == "transparency"
