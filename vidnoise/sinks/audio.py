"""Re-encoding of an audio stream, for containers that cannot hold its codec."""

from __future__ import annotations

import logging
from typing import cast

import av
import av.container
import av.error

logger = logging.getLogger(__name__)

AUDIO_ENCODERS = {"aac": "aac", "opus": "libopus", "flac": "flac"}
"""Values of the ``audio`` option that re-encode."""

_BITS_PER_CHANNEL = 96_000
_OPUS_RATE = 48_000


_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Layout assumed for a number of channels if the stream does not specify one; as FFmpeg guesses."""


def known_layout(layout: av.AudioLayout) -> str:
    """Return the name of ``layout``, or the usual one for its number of channels if it is unspecified."""
    is_unknown = layout.name.endswith("channels")
    return _LAYOUTS.get(layout.nb_channels, layout.name) if is_unknown else layout.name


class AudioReencoder:
    """Decodes the packets of one audio stream and encodes them again. Not thread-safe.

    Args:
        container: The output, before its header is written.
        template: The stream to decode (see ``CopiedStream.template``).
        audio: One of :data:`AUDIO_ENCODERS`.
    """

    def __init__(self, container: av.container.OutputContainer, template: av.AudioStream, audio: str) -> None:
        self._decoder = template.codec_context
        if self._decoder.is_open:  # used by an earlier output
            self._decoder.flush_buffers()
        else:
            self._decoder.layout = known_layout(self._decoder.layout)
        rate = _OPUS_RATE if audio == "opus" else self._decoder.sample_rate
        self.stream = cast(av.AudioStream, container.add_stream(AUDIO_ENCODERS[audio], rate=rate))
        encoder = self.stream.codec_context
        encoder.layout = self._decoder.layout.name
        if audio != "flac":
            encoder.bit_rate = _BITS_PER_CHANNEL * self._decoder.layout.nb_channels
        encoder.open()
        self._resampler = av.AudioResampler(
            format=encoder.format, layout=encoder.layout, rate=rate, frame_size=encoder.frame_size or None
        )
        self.n_corrupt = 0

    def packets(self, packet: av.Packet | None) -> list[av.Packet]:
        """Encode one more packet of the source; None flushes the encoder."""
        try:
            frames = self._decoder.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.error.InvalidDataError:
            self.n_corrupt += 1
            if self.n_corrupt == 1:
                logger.warning("a damaged audio packet was skipped while re-encoding")
            return []
        encoded: list[av.Packet] = []
        for frame in frames:
            for chunk in self._resampler.resample(frame):
                encoded += self.stream.encode(chunk)
        if packet is None:
            for chunk in self._resampler.resample(None):
                encoded += self.stream.encode(chunk)
            encoded += self.stream.encode(None)
        return encoded
