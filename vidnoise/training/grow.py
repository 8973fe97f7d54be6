"""Initialisation of larger networks from smaller ones, so that a tier starts from the weights of lower ones.

:func:`grow` starts from one network: new channels do not affect the old ones, and new residual blocks add nothing, so
the larger network initially computes the same function (Chen, Goodfellow and Shlens, "Net2Net", arXiv:1511.05641).
:func:`side_by_side` starts from several networks of one shape, and initially computes the mean of their outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidnoise.model.dncnn import ResidualBlock


@torch.no_grad()
def grow(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load the weights of a module of the same kind, of equal or smaller size, into ``module``, in place.

    Raises:
        ValueError: ``weights`` has a key that ``module`` lacks, or is larger, or lacks anything but residual blocks.
    """
    own = module.state_dict()
    if surplus := weights.keys() - own.keys():
        raise ValueError(f"there is no {min(surplus)}")
    blocks = {f"{name}." for name, m in module.named_modules() if isinstance(m, ResidualBlock)}
    for key, new in own.items():
        old = weights.get(key)
        if old is None:
            block = next((b for b in blocks if key.startswith(b)), None)
            if block is None or any(k.startswith(block) for k in weights):
                raise ValueError(f"{key} is missing")
            if key.startswith(f"{block}conv2."):
                new.zero_()
            continue
        if old.ndim != new.ndim or any(o > n for o, n in zip(old.shape, new.shape, strict=True)):
            raise ValueError(f"{key} is {tuple(old.shape)}, not within {tuple(new.shape)}")
        if new.ndim > 1:
            new[: old.shape[0], old.shape[1] :] = 0  # old outputs ignore new inputs
        new[tuple(slice(n) for n in old.shape)] = old


@torch.no_grad()
def side_by_side(module: nn.Module, parts: list[dict[str, Tensor]]) -> None:
    """Load the weights of several modules of one shape into one that is as wide as all together, in place.

    Each keeps its own channels, which initially ignore those of the others. What all share, such as the input and the
    output of the whole, stays as it is: the input goes to all, the output is the mean of theirs.

    Raises:
        ValueError: The parts differ in shape, or ``module`` is not the sum of their widths.
    """
    count = len(parts)
    for key, new in module.state_dict().items():
        shapes = {tuple(part[key].shape) if key in part else () for part in parts}
        shape = shapes.pop()
        if shapes or len(shape) != new.ndim:
            raise ValueError(f"{key} is missing or differs between the parts")
        wider = [size != own for size, own in zip(new.shape[:2], shape[:2], strict=True)]
        expected = tuple(n * count if i < 2 and wider[i] else n for i, n in enumerate(shape))
        if expected != tuple(new.shape):
            raise ValueError(f"{key} is {tuple(new.shape)}, not {expected}")
        tensors = [part[key] for part in parts]
        if wider == [True, True]:
            new.zero_()
            for i, tensor in enumerate(tensors):
                rows, columns = tensor.shape[:2]
                new[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = tensor
        elif wider[0]:
            new.copy_(torch.cat(tensors))
        else:  # an output, or a bias of one, that all share
            new.copy_(torch.cat(tensors, 1) / count if any(wider) else torch.stack(tensors).mean(0))
