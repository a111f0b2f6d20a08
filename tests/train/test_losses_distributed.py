"""Each loss on two processes: mean loss and mean gradients are those of one process with the global batch.

Run as a program (torchrun starts it twice), this file writes what `measure` returns to the path that it is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from train import distributed
from train.data.augment.mixup import soft_targets
from train.losses.base import Counted, global_mean
from train.losses.byol import byol_loss
from train.losses.classification import cross_entropy, multi_label_loss, soft_cross_entropy
from train.losses.fastclip import FastClip
from train.losses.nt_xent import nt_xent
from train.losses.siglip import siglip_loss

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
BATCH, WIDTH, CLASSES = 8, 5, 6
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor | Counted]

# Of the 5 labelled samples the first rank has 1 and the second 4.
LABELS = torch.tensor([-1, 2, -1, -1, 5, 0, 3, 3])
WEIGHTS = torch.tensor([0.0, 2.0, 0.5, 1.0, 3.0, 0.0, 0.25, 1.0], dtype=torch.float64)
SEVERAL = torch.tensor([[(i * k) % 3 - (i < 3) for k in range(CLASSES)] for i in range(BATCH)]).clamp(-1, 1)
NUMBERS = torch.tensor([7, 0, 3, 11, 4, 9, 1, 2])


def mine(rows: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of the global batch."""
    return rows.chunk(distributed.world_size())[distributed.rank()]


def siglip(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return siglip_loss(F.normalize(a, dim=-1), F.normalize(b, dim=-1), scale, -scale / 2)


def open_clips_siglip(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    from open_clip.loss import SigLipLoss

    theirs = SigLipLoss(rank=distributed.rank(), world_size=distributed.world_size())
    return theirs(F.normalize(a, dim=-1), F.normalize(b, dim=-1), scale, -scale / 2)


def fastclip(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Two steps over one state: the second sees what the first stored, for samples of the other rank."""
    loss = FastClip(12).double()
    images, texts = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    first = loss(images, texts, mine(NUMBERS), scale, 1.0)
    second = loss(texts, images, mine(NUMBERS.roll(3)), scale, 0.3)
    return first + second + loss.log_u_images[NUMBERS].sum() + loss.log_u_texts[NUMBERS].sum()


def fastclip_v2(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The same with a temperature of each sample: the first loss changes those that the second compares with."""
    loss = FastClip(12, "v2", rho=1.5, temperature=0.3).double()
    images, texts = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    first = loss(images, texts, mine(NUMBERS), scale, 1.0)
    second = loss(texts, images, mine(NUMBERS.roll(3)), scale, 0.3, 1)
    assert loss.image_temperatures is not None
    assert loss.text_temperatures is not None
    return scale * (first + second + loss.image_temperatures.tau.sum() + loss.text_temperatures.first_moment.sum())


LOSSES: dict[str, Loss] = {
    "siglip": siglip,
    "open_clip_siglip": open_clips_siglip,
    "fastclip": fastclip,
    "fastclip_v2": fastclip_v2,
    "nt_xent": lambda a, b, scale: nt_xent(a, b, 0.1) * scale,
    "byol": lambda a, b, scale: byol_loss(a, b, a + 1, b - 1) * scale,
    "cross_entropy": lambda a, b, scale: cross_entropy(scale * a, mine(LABELS), 0.1),
    "soft": lambda a, b, scale: soft_cross_entropy(scale * a, mine(soft_targets(LABELS, CLASSES, 0.1)).double()),
    "multi_label": lambda a, b, scale: multi_label_loss(scale * a, mine(SEVERAL)),
}


def scalar_of(losses: torch.Tensor | Counted, weights: torch.Tensor | None) -> torch.Tensor:
    if not isinstance(losses, Counted):
        return losses if losses.ndim == 0 else global_mean(losses, weights)
    return global_mean(losses.values, losses.counts if weights is None else losses.counts * weights)


def measure(loss_of: Loss, weights: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Return the mean over ranks of a mean loss, of its gradient in a projection that all share, and of that in a scale."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    project = torch.randn(WIDTH, CLASSES, generator=generator, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    losses = loss_of(mine(images) @ project, mine(texts) @ project, scale)
    loss = scalar_of(losses, None if weights is None else mine(weights))
    gradients = torch.autograd.grad(loss, [project, scale])
    return [distributed.mean(x.detach()) for x in (loss, *gradients)]


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    out = tmp_path_factory.mktemp("losses") / "two.pt"
    subprocess.run([*TORCHRUN, __file__, str(out)], check=True, env=ENVIRONMENT)
    return torch.load(out, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_are_one(name: str, of_two_ranks: dict[str, list[torch.Tensor]]) -> None:
    for of_two, of_one in zip(of_two_ranks[name], measure(LOSSES[name]), strict=True):
        assert of_one.abs().max() > 1e-3
        torch.testing.assert_close(of_two, of_one, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"open_clip_siglip"}))
def test_two_ranks_are_one_with_weights(name: str, of_two_ranks: dict[str, list[torch.Tensor]]) -> None:
    weighted = measure(LOSSES[name], WEIGHTS)
    for of_two, of_one in zip(of_two_ranks[f"{name}, weighted"], weighted, strict=True):
        torch.testing.assert_close(of_two, of_one, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(weighted[0], measure(LOSSES[name])[0], rtol=1e-3)


@pytest.mark.slow
def test_siglip_on_two_ranks_is_open_clips(of_two_ranks: dict[str, list[torch.Tensor]]) -> None:
    for ours, theirs in zip(of_two_ranks["siglip"], of_two_ranks["open_clip_siglip"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    with distributed.session("cpu"):
        results = {name: measure(loss_of) for name, loss_of in LOSSES.items()}
        results |= {f"{name}, weighted": measure(loss_of, WEIGHTS) for name, loss_of in LOSSES.items()}
        if distributed.rank() == 0:
            torch.save(results, sys.argv[1])
