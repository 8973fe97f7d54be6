"""Denoise between a decoder and an encoder of PyAV: what goes in and comes out are av.VideoFrames.

Their format, times and colour tags stay as they are, in 8 bits or more; nothing is converted to RGB and back.

python examples/pyav_frames.py noisy.mp4 clean.mkv
"""

from __future__ import annotations

import argparse
import sys

import av

import vidnoise


def main() -> None:
    parser = argparse.ArgumentParser(description="Denoise the first video track of a file with PyAV at both ends.")
    parser.add_argument("noisy")
    parser.add_argument("clean")
    parser.add_argument("--model", default="standard")
    parser.add_argument("--codec", default="libx264", help="an encoder that takes the pixel format of the input")
    args = parser.parse_args()
    try:
        with av.open(args.noisy) as reader, av.open(args.clean, "w") as writer:
            source = reader.streams.video[0]
            source.thread_type = "AUTO"
            target = writer.add_stream(args.codec, rate=source.average_rate, time_base=source.time_base)
            encoder, decoder = target.codec_context, source.codec_context
            encoder.width, encoder.height, encoder.pix_fmt = decoder.width, decoder.height, decoder.pix_fmt
            if decoder.sample_aspect_ratio:
                encoder.sample_aspect_ratio = decoder.sample_aspect_ratio
            encoder.colorspace, encoder.color_range = decoder.colorspace, decoder.color_range
            encoder.color_primaries, encoder.color_trc = decoder.color_primaries, decoder.color_trc
            for frame in vidnoise.denoise(reader.decode(source), model=args.model, lookahead=8):
                writer.mux(target.encode(frame))
            writer.mux(target.encode(None))
    except (av.FFmpegError, vidnoise.VidnoiseError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
