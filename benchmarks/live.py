"""Lag, drops and memory of a live run whose camera is three times as fast as the machine.

    python benchmarks/live.py [--minutes 10] [--size 96x72] [--model fast] [--max-latency 500] [-o FILE.json]

First it finds out how many frames a second the machine manages; then ffmpeg is a camera three times as fast, over UDP,
and ``vidnoise udp://... --max-latency 500 -o out.mkv`` denoises it. What is reported is what users get with ``--json``
and ``--stats``. Writes FILE.json and FILE.md beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vidnoise

START_SECONDS = 15
"""For loading the program and finding the camera; more than enough on an idle machine."""

WARM_UP_SECONDS = 10
"""Not counted as the first minute's memory: the program is still being loaded."""


def picture(size: str, rate: float, options: str = "") -> str:
    """FFmpeg's description of a moving, noisy picture."""
    return f"testsrc2=size={size}:rate={rate}{options},noise=alls=20:allf=t"


def denoise(uri: str, out: Path, options: list[str], seconds: float | None = None) -> dict[str, Any]:
    """Run the command line, for ``seconds`` or to the input's end; the statistics of ``--json``."""
    report = out.with_suffix(".json")
    process = subprocess.Popen(
        [sys.executable, "-m", "vidnoise", uri, "-o", out, "-y", "-q", "--json", report, *options]
    )
    try:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    finally:
        process.kill()
    return json.loads(report.read_text())


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run against the camera."""
    model = ["--model", args.model, "--device", args.device, "--threads", str(args.threads)]
    alone = denoise(f"lavfi:{picture(args.size, 25, ':duration=4')}", folder / "alone.mkv", model)
    rate = max(1, round(args.times * alone["fps"]))
    address, stats_path = f"udp://127.0.0.1:{free_port()}", folder / "stats.jsonl"
    camera = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-re", "-f", "lavfi", "-i", picture(args.size, rate),
         "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(rate),
         "-f", "mpegts", f"{address}?pkt_size=1316"],
    )  # fmt: skip
    try:
        live = ["--max-latency", str(args.max_latency), "--stats", str(stats_path), "--connect-timeout", "60"]
        total = denoise(address, folder / "out.mkv", [*model, *live], 60 * args.minutes + START_SECONDS)
    finally:
        camera.kill()
        camera.wait()
    rows = [json.loads(line) for line in stats_path.read_text().splitlines()]
    return {
        "vidnoise": vidnoise.__version__,
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[1], 1), "system": platform.system()},
        "model": total["model"],
        "device": total["device"],
        "threads": args.threads,
        "size": args.size,
        "max_latency_ms": args.max_latency,
        "minutes": round(total["seconds"] / 60, 1),
        "fps_alone": alone["fps"],
        "camera_fps": rate,
        "frames_in": total["frames_in"],
        "frames_out": total["frames_out"],
        "frames_dropped": total["frames_dropped"],
        "fps_out": total["fps"],
        "lag_ms_p50": total["lag_ms_p50"],
        "lag_ms_p99": total["lag_ms_p99"],
        "lag_ms_max": total["lag_ms_max"],
        "seconds_over_the_bound": sum(row["lag_ms"] > args.max_latency for row in rows),
        "longest_pause_seconds": longest_pause(rows),
        "memory_mb_first_minute": memory(rows, WARM_UP_SECONDS, WARM_UP_SECONDS + 60),
        "memory_mb_last_minute": memory(rows, rows[-1]["seconds"] - 60, rows[-1]["seconds"]),
        "memory_mb_by_minute": [
            memory(rows, begin, begin + 60) for begin in range(WARM_UP_SECONDS, int(rows[-1]["seconds"]) - 30, 60)
        ],
        "reconnects": total["reconnects"],
    }


def memory(rows: list[dict[str, float]], begin: float, end: float) -> float:
    """Median of the resident memory between two times, MB."""
    return statistics.median(row["memory_mb"] for row in rows if begin <= row["seconds"] <= end)


def longest_pause(rows: list[dict[str, float]]) -> int:
    """How many seconds in a row went by without a frame written, at most."""
    longest = now = 0
    for row in rows[WARM_UP_SECONDS:]:
        now = 0 if row["fps"] else now + 1
        longest = max(longest, now)
    return longest


def table(found: dict[str, Any]) -> str:
    """The figures for people."""
    share = found["frames_dropped"] / found["frames_in"]
    return f"""\
| what | measured |
|---|---|
| camera | {found["size"]}, {found["camera_fps"]} fps, H.264 in MPEG-TS over UDP |
| machine | {found["device"]}, {found["threads"]} thread; model `{found["model"]}`; {found["fps_alone"]:.1f} fps on a file at first |
| other work on the machine | load average {found["machine"]["load"]:.0f} on {found["machine"]["cores"]} cores |
| length | {found["minutes"]:.1f} minutes |
| frames that came, written, dropped | {found["frames_in"]:,}, {found["frames_out"]:,}, {found["frames_dropped"]:,} ({share:.0%}) |
| lag: median, 99th percentile, longest | {found["lag_ms_p50"]:.0f}, {found["lag_ms_p99"]:.0f}, {found["lag_ms_max"]:.0f} ms (bound: {found["max_latency_ms"]} ms) |
| seconds with a frame later than that | {found["seconds_over_the_bound"]} of {60 * found["minutes"]:.0f} |
| longest time without a frame | {"under 1 s" if not found["longest_pause_seconds"] else f"{found['longest_pause_seconds']} s"} |
| memory: first minute, last minute | {found["memory_mb_first_minute"]:.0f}, {found["memory_mb_last_minute"]:.0f} MB |
"""  # noqa: E501


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--size", default="96x72")
    parser.add_argument("--model", default="fast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", type=float, default=3, help="how much faster the camera is than the machine")
    parser.add_argument("--max-latency", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    args.output.write_text(json.dumps(found, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(table(found))
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
