"""Automatic choice of the fastest backend on this machine, by trials where those pay off.

A stream begins on ``eager``, which starts at once. When it has run for so long that a trial no longer delays it
noticeably, the other installed backends are measured at its size, and the result is kept for this machine, model,
size, precision and number of threads. If an earlier run has left a result, the stream switches to the fastest backend
as soon as its start-up time is small compared with the time spent so far. All backends share one form of state, so the
past is not lost.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidnoise.backends.measurements import Kind, Measurement, Measurements
from vidnoise.backends.protocol import Backend
from vidnoise.model import Denoised, DenoiseNetwork, Future, Scout, State, known_levels

log = logging.getLogger(__name__)

Opener = Callable[[str], Backend]

CANDIDATES = ("openvino", "onnxruntime")
"""Backends to try; not ``compile``, which takes minutes to start."""

IN_INT8 = "openvino:int8"
"""The backend openvino with the model's int8 weights: another candidate, if there are any."""

TRIAL_AFTER_SECONDS, TRIAL_AFTER_FRAMES = 60.0, 200
"""Time in the network and frames of a stream before other backends are tried: a trial takes about 5 s and 15 frames."""

START_SHARE = 0.1
"""Maximum start-up time of a faster backend, as a share of the time that the stream has already taken."""

GAIN = 0.95
"""Share of ``eager``'s time that a backend must stay below, and :data:`IN_INT8` of that of all others: differences of a
few percent are measurement noise."""

STEPS = 4
"""Frames of a trial, after one for warm-up."""

AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 2e-3, torch.float16: 2e-3, torch.int8: 4e-3}
"""Maximum difference from ``eager`` in a trial, in [0, 1] units: the median over frames of the root mean square. Two
equally good computations in bfloat16 differ by 0.6e-3 to 1.4e-3, a third of an 8-bit step, at equal PSNR. Single frames
differ more, where two motions explain a region equally well. Whether int8 weights are good enough is for their card to
say; here they must only be those of the same model."""


class Auto:
    """The backend that starts as ``eager`` and switches to the fastest one, see the module's docstring.

    Args:
        network, device, dtype: As for all backends.
        open: Opens a backend by name.
        candidates: Names of the backends to try.
        measurements: Earlier results; by default this machine's cache.
    """

    def __init__(
        self,
        network: DenoiseNetwork,
        *,
        device: torch.device,
        dtype: torch.dtype,
        open: Opener,
        candidates: Sequence[str] = CANDIDATES,
        measurements: Measurements | None = None,
    ) -> None:
        self._open = open
        self._dtype = dtype
        self._eager = self._now = open("eager")
        self._others: dict[str, Backend] = {}
        self._candidates = candidates
        self._measurements = measurements or Measurements(network, device, dtype)
        self._kind: Kind | None = None
        self._seconds, self._frames = 0.0, 0
        self._is_settled = False

    @property
    def name(self) -> str:
        return next((name for name, other in self._others.items() if other is self._now), self._eager.name)

    def initial_state(self, n: int, height: int, width: int) -> State:
        return self._eager.initial_state(n, height, width)

    def input_buffer(self, state: State) -> Tensor | None:
        return self._now.input_buffer(state)

    def initial_scout(self, n: int, height: int, width: int) -> Scout:
        return self._eager.initial_scout(n, height, width)

    def step(
        self, noisy: Tensor, sigma: float | Tensor | None, sigma_scale: float | Tensor, continues: Tensor, state: State
    ) -> Denoised:
        self._settle(Kind(noisy.shape, blind=sigma is None, both_ways=False))
        self._frames += 1
        return self._timed("step", noisy, sigma, sigma_scale, continues, state)

    def measure(
        self, noisy: Tensor, sigma: float | Tensor | None, continues: Tensor, state: State
    ) -> tuple[Tensor, State]:  # fmt: skip
        self._settle(Kind(noisy.shape, blind=sigma is None, both_ways=True))
        self._frames += 1
        return self._timed("measure", noisy, sigma, continues, state)

    def look(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, scout: Scout
    ) -> tuple[Future, Scout]:
        return self._timed("look", noisy, level, sigma_scale, continues, scout)

    def smooth(
        self, noisy: Tensor, level: Tensor, sigma_scale: float | Tensor, continues: Tensor, state: State, future: Future
    ) -> Denoised:
        return self._timed("smooth", noisy, level, sigma_scale, continues, state, future)

    def _timed(self, work: str, *given: Any) -> Any:
        begin = time.perf_counter()
        try:
            result = getattr(self._now, work)(*given)
        except torch.OutOfMemoryError:
            raise
        except Exception as ex:  # the stream continues without the fastest backend, whatever is wrong with it
            if self._now is self._eager:
                raise
            self._give_up(self.name, ex)
            result = getattr(self._now, work)(*given)
        self._seconds += time.perf_counter() - begin
        return result

    def _settle(self, kind: Kind) -> None:
        """Switch to the fastest backend if it is time to; called before each frame."""
        if kind != self._kind:
            self._kind, self._now, self._is_settled = kind, self._eager, False
            self._seconds, self._frames = 0.0, 0
        if self._is_settled:
            return
        known = self._measurements.find(kind)
        if known is None:
            if self._seconds < TRIAL_AFTER_SECONDS or self._frames < TRIAL_AFTER_FRAMES:
                return
            known = self._try_all(kind)
            self._measurements.keep(kind, known)
        best = known.best
        if best != "eager" and self._seconds * START_SHARE < known.start_seconds.get(best, 0.0):
            return
        self._is_settled = True
        if best == "eager":
            return
        try:
            if best not in self._others:
                self._others[best] = self._open(best)
        except Exception as ex:  # it was available when it was measured
            self._give_up(best, ex)
            return
        self._now = self._others[best]
        log.info("backend %s from here on: %.0f ms a frame where eager takes %.0f", best, *known.pair(best))

    def _give_up(self, name: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        log.warning("backend %s, the fastest here, does not run any more; going on with eager: %s", name, reason)
        self._now = self._eager

    def _try_all(self, kind: Kind) -> Measurement:
        reference, eager_ms, _ = _trial(self._eager, kind)
        ms, start, difference = {"eager": eager_ms}, {}, {}
        for name in self._candidates:
            try:
                backend = self._open(name)
                pictures, ms_here, start[name] = _trial(backend, kind)
            except Exception as ex:  # whatever is wrong with it, the stream continues without it
                log.debug("backend %s is not tried: %s", name, ex)
                continue
            self._others[name] = backend
            difference[name] = float((pictures - reference).square().flatten(1).mean(1).median().sqrt())
            if difference[name] <= AGREEMENT[torch.int8 if name == IN_INT8 else self._dtype]:
                ms[name] = ms_here
            else:
                log.info("backend %s is not used: its pictures differ by %.1g", name, difference[name])
        fastest = min((name for name in ms if name != IN_INT8), key=lambda name: ms[name])
        if ms.get(IN_INT8, math.inf) < GAIN * ms[fastest]:  # it loses a little, so it must gain something
            fastest = IN_INT8
        best = fastest if ms[fastest] < GAIN * eager_ms else "eager"
        log.info("backends measured: %s; using %s", ", ".join(f"{n} {t:.0f} ms" for n, t in ms.items()), best)
        return Measurement(best, ms, start, difference)


class _Trial(NamedTuple):
    pictures: Tensor
    ms: float
    start_seconds: float


def _trial(backend: Backend, kind: Kind) -> _Trial:
    """Run a few frames; return them with the median time of one, and the extra time of the first calls."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, *given: Any) -> Any:
        start = time.perf_counter()
        result = getattr(backend, name)(*given)
        seconds[name].append(time.perf_counter() - start)
        return result

    pictures = torch.stack([clean.clone() for clean in (_window if kind.both_ways else _steps)(backend, timed, kind)])
    ms = 1e3 * sum(sorted(times[1:])[STEPS // 2] for times in seconds.values())
    return _Trial(pictures, ms, sum(times[0] - min(times) for times in seconds.values()))


def _scene(kind: Kind) -> Iterator[Tensor]:
    """Yield noisy frames of a moving scene."""
    n, _, height, width = kind.shape
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, height // 16 + 2, width // 16 + 4, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, size=(height, width + 2 * STEPS + 2), mode="bicubic")
    for i in range(STEPS + 1):
        yield scene[..., 2 * i : 2 * i + width] + 0.08 * torch.randn(n, 3, height, width, generator=generator)


def _known_sigma(kind: Kind, noisy: Tensor) -> Tensor | None:
    return None if kind.blind else known_levels(0.08, noisy)


def _steps(backend: Backend, timed: Callable[..., Any], kind: Kind) -> Iterator[Tensor]:
    n, _, height, width = kind.shape
    continues = torch.ones(n, dtype=torch.bool)
    state = backend.initial_state(n, height, width)
    for noisy in _scene(kind):
        clean, _, state = timed("step", noisy, _known_sigma(kind, noisy), 1.0, continues, state)
        yield clean


def _window(backend: Backend, timed: Callable[..., Any], kind: Kind) -> Iterator[Tensor]:
    """Yield the clean frames of one lookahead window; :func:`_steps` does without one."""
    n, _, height, width = kind.shape
    continues = torch.ones(n, dtype=torch.bool)
    state, scout = backend.initial_state(n, height, width), backend.initial_scout(n, height, width)
    frames, futures = [], []
    for noisy in _scene(kind):
        level, state = timed("measure", noisy, _known_sigma(kind, noisy), continues, state)
        frames.append((noisy, level))
    for i, (noisy, level) in enumerate(reversed(frames)):
        future, scout = timed("look", noisy, level, 1.0, continues if i else ~continues, scout)
        futures.append(future)
    for (noisy, level), future in zip(frames, reversed(futures), strict=True):
        clean, _, state = timed("smooth", noisy, level, 1.0, continues, state, future)
        yield clean
