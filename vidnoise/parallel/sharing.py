"""Which workers share a video, as the options say."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch

from vidnoise.backends.device import resolve_device
from vidnoise.frame import StreamInfo
from vidnoise.options import FileOptions
from vidnoise.parallel.denoiser import ParallelDenoiser
from vidnoise.parallel.pieces import Cutter
from vidnoise.parallel.team import ProcessTeam, Team
from vidnoise.parallel.worker import Setup
from vidnoise.session.denoiser import Denoiser
from vidnoise.weights import Model

logger = logging.getLogger(__name__)


def share(
    make_denoiser: functools.partial[Denoiser],
    model: Model,
    options: FileOptions,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> ParallelDenoiser:
    """Have workers share a stream.

    Args:
        make_denoiser: Makes the session of a piece from a model and further options; pickled.
        model: The model, in main memory.
        options: ``devices``, ``jobs`` and ``cluster`` select the workers.
        should_stop: See :class:`ParallelDenoiser`.

    Raises:
        DeviceError: A device does not exist.
    """
    if options.cluster is None:
        for device in options.devices:
            resolve_device(device)  # raises here rather than in a worker
    lookahead = make_denoiser.keywords["lookahead"]
    logger.info("model %s, version %s, lookahead of %d frames", model.card.name, model.card.version, lookahead)
    return ParallelDenoiser(
        functools.partial(_open_team, Setup(model, make_denoiser, options.grain_seed), options),
        Cutter(lookahead, detect_cuts=options.detect_cuts), model_name=model.name, should_stop=should_stop,
    )  # fmt: skip


def reason_to_work_alone(info: StreamInfo) -> str:
    """Say why several processes cannot share an input; empty if they can."""
    if info.is_live:
        return "is live, and a piece would have to be complete before it is denoised"
    return "is one picture" if info.is_still else ""


def _open_team(setup: Setup, options: FileOptions) -> Team:
    if options.cluster is not None:
        from vidnoise.parallel.cluster import RayTeam

        return RayTeam(
            setup, options.cluster, device=options.devices[0], jobs=options.jobs, threads=options.threads
        )  # fmt: skip
    devices = options.devices * (options.jobs or 1)
    return ProcessTeam(setup, devices, threads=max(1, torch.get_num_threads() // len(devices)))
