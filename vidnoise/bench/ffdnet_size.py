"""A network of FFDNet's size with random weights, to time: what a spatial denoiser of its class costs on this machine.

The colour network of Zhang et al., "FFDNet", arXiv:1710.04026: 12 convolutions of 3×3 with 96 channels on the four
half-resolution sub-pictures and a map of the noise.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vidnoise.evaluation.peers import Peer

LAYERS, CHANNELS = 12, 96


@functools.cache
def _network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(12 + 3, CHANNELS, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(LAYERS - 2):
        layers += nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(inplace=True)
    layers.append(nn.Conv2d(CHANNELS, 12, 3, padding=1))
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.inference_mode()
def _run(frames: np.ndarray, strength: float) -> np.ndarray:
    """Run the network on pictures ``(T, H, W, 3)`` of 8 bits."""
    network, results = _network(), np.empty(frames.shape, np.float32)
    for frame, result in zip(frames, results, strict=True):
        rgb = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        height, width = rgb.shape[2:]
        halves = F.pixel_unshuffle(F.pad(rgb, [0, width % 2, 0, height % 2], mode="replicate"), 2)
        level = torch.full_like(halves[:, :3], strength / 255)
        given = torch.cat([halves, level], 1).contiguous(memory_format=torch.channels_last)
        clean = F.pixel_shuffle(halves - network(given), 2)[..., :height, :width]
        result[:] = clean[0].permute(1, 2, 0).numpy()
    return results


FFDNET_SIZE = Peer("ffdnet-size", _run, (1.0,), floating=True)
"""Takes part in benchmarks of speed only: its pictures mean nothing."""
