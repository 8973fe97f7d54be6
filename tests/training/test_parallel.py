"""Several processes train as one: the same weights everywhere, the gradient of all their clips, and exact resuming."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from support.training_setup import config, make_data
from vidnoise.errors import DeviceError
from vidnoise.model import DenoiseNetwork, uniform_sigma
from vidnoise.training.batch import Batch
from vidnoise.training.data import Folders
from vidnoise.training.loop import Trainer
from vidnoise.training.objectives import clip_loss, look
from vidnoise.training.parallel import Ranks, processes


def together(work: Callable[[Ranks, Path], object], folder: Path) -> list:
    """Results of ``work`` in two processes that talk by gloo on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, (work, folder, port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def _process(rank: int, work: Callable[[Ranks, Path], object], folder: Path, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as ranks:
        torch.save(work(ranks, folder), folder / f"rank{rank}.pt")


def gradient_of(clips: slice) -> DenoiseNetwork:
    """A network with the gradient of some of two clips."""
    torch.manual_seed(0)
    network = DenoiseNetwork(config().model_config()).train()
    # A scene that moves: in frames of pure noise the motion search has answers that are equally good, and which one it
    # takes is a matter of the last bit, which differs between one clip and two.
    still = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    still = F.interpolate(still, size=(40, 40), mode="bicubic")
    clean = torch.stack([still[..., t : t + 32, t : t + 32] for t in range(3)])
    noisy = clean + torch.tensor([0.05, 0.2]).view(1, 2, 1, 1, 1) * torch.randn(
        clean.shape, generator=torch.Generator().manual_seed(2)
    )
    sigma = uniform_sigma(torch.tensor([0.05, 0.2]), clean[0]).expand(3, 2, 6, 16, 16)
    batch = Batch(*(t[:, clips] for t in (clean, noisy, sigma)), torch.tensor([0.05, 0.2])[clips])
    settings, blind = config(temporal_weight=0.1), torch.tensor([True, False])[clips]
    known = look(network, batch, blind, settings, both_ways=True)
    clip_loss(network, batch, known, settings)[0].backward()
    return network


def flat_gradient(network: DenoiseNetwork) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def _train(ranks: Ranks, folder: Path) -> object:
    network = gradient_of(slice(ranks.rank, ranks.rank + 1))
    own = flat_gradient(network)
    ranks.average_gradients(network.parameters())
    agreed = ranks.agree(float(ranks.rank), 7.0), ranks.mean({"a": float(ranks.rank)})
    folders = Folders(folder / "train", None)

    def trained(name: str, stop: int | None = None) -> Trainer:
        trainer = Trainer(config(), folders, folder / name, cache=folder / "cache", ranks=ranks)
        trainer.fit(every=2) if stop is None else [trainer.train_step() for _ in range(stop)]
        return trainer

    whole = trained("whole")
    stopped = trained("stopped", stop=2)
    stopped._save()
    resumed = trained("stopped")
    noise = whole.batches.generator.get_state()
    weights = [t.network.state_dict() for t in (whole, resumed)]
    return own, flat_gradient(network), agreed, weights, whole.average, noise, whole.total_steps


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    make_data(tmp_path)
    first, second = together(_train, tmp_path)
    expected = flat_gradient(gradient_of(slice(0, 2)))
    assert not torch.allclose(first[0], second[0], rtol=0.1)  # each saw a clip of its own
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(first[1], expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    for mine, agreed, mean in ((0, first[2][0], first[2][1]), (1, second[2][0], second[2][1])):
        assert (agreed, mean) == ([0.0, 7.0], {"a": 0.5}), mine
    assert not torch.equal(first[5], second[5])  # noise is drawn apart
    for key, value in first[3][0].items():
        assert torch.equal(second[3][0][key], value)
        assert torch.equal(second[4][key], first[4][key])
        for process in (first, second):
            assert torch.equal(process[3][1][key], value), "resumed"
    assert first[6] == 6
    rows = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + 4  # only one of them wrote the log


def _drift(ranks: Ranks, folder: Path) -> object:
    trainer = Trainer(config(), Folders(folder / "train", None), folder / "run", cache=folder / "cache", ranks=ranks)
    with torch.no_grad():
        next(trainer.network.parameters()).add_(float(ranks.rank))
    with pytest.raises(DeviceError, match="drifted apart"):
        trainer._save()
    return True


@pytest.mark.slow
def test_weights_that_drift_apart_are_noticed(tmp_path: Path) -> None:
    make_data(tmp_path)
    assert together(_drift, tmp_path) == [True, True]


@pytest.mark.slow
def test_torchrun_runs_the_command(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "tiny.toml").write_text(
        'tier = "fast"\nnoise = { gaussian = 1 }\n'
        '[[stages]]\nname = "a"\nbatch = 1\nframes = 2\npatch = 32\nsteps = 2\n'
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    command += ["vidnoise", "train", "tiny.toml", "--train", "train", "--run", "run", "--cache", "cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert done.stderr.count("weights: ") == 1
    assert (tmp_path / "run" / "tiny.safetensors").is_file()
