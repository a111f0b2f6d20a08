"""FastCLIP's global contrastive loss: a moving average per sample stands for the negatives that are not in the batch.

Wei et al. 2024 (arXiv 2407.01445), algorithm 1, with SogCLR's estimator (Yuan et al. 2022). For image i of the batch B

    g_i = mean over j ≠ i of exp((⟨image_i, text_j⟩ − ⟨image_i, text_i⟩)/τ)      equation 1, and likewise for text i
    u_i ← (1 − γ)·u_i + γ·g_i                                                      equation 2
    gradient of log(ε + g_i over the whole data set) ≈ ∇g_i / (ε + u_i)

v2 learns a temperature for each image and each caption (iSogCLR, Qiu et al. 2023): RGCL = Σ τ_i·(log(ε + g_i) + ρ).

Everything is kept as logarithms. exp(2/τ) overflows float32 at the smallest τ that CLIP allows, 0.01 (e^200 against
e^88); the official code then starts the estimator anew, and logarithms have no such case.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import nn

from shards.core.errors import UsageError, closest
from train import distributed
from train.losses.temperatures import PUBLISHED, TAU_RANGE, TemperatureAdam, Temperatures, store

Version = Literal["v0", "v1", "v2", "v3"]
GammaSchedule = Literal["cosine", "constant"]
NEVER_SEEN = float("-inf")


def inner_rate(epoch: int, minimum: float, decay_epochs: int, schedule: GammaSchedule = "cosine") -> float:
    """Return γ of an epoch: how much of a batch's own estimate enters the moving average.

    The first epoch has γ = 1, since there is no estimate yet. Then `constant` (SogCLR) is `minimum`, and `cosine`
    (FastCLIP) is `0.5·(1 + cos(π·epoch/decay_epochs))·(1 − minimum) + minimum` until `decay_epochs`, `minimum` from there.

    Args:
        epoch: whole passes over the data so far, from 0. γ is constant within an epoch.
        minimum: 0.2 in the CC3M and CC12M recipes, 0.8 for LAION-400M.
        decay_epochs: about half of all epochs (18 of 37 for CC3M).
        schedule: `cosine` or `constant`.

    Raises:
        UsageError: an unknown schedule, or a minimum outside (0, 1].
    """
    if schedule not in get_args(GammaSchedule):
        known = get_args(GammaSchedule)
        raise UsageError(f"unknown schedule of gamma {schedule!r}", ", ".join(known), closest(schedule, known))
    if not 0 < minimum <= 1:
        raise UsageError(f"gamma {minimum:g}", "0 < gamma <= 1")
    if epoch == 0:
        return 1.0
    if schedule == "constant" or epoch >= decay_epochs:
        return minimum
    return 0.5 * (1 + math.cos(math.pi * epoch / decay_epochs)) * (1 - minimum) + minimum


class FastClip(nn.Module):
    """FastCLIP's loss and its state: log u of every image and of every caption of the data set.

    With G = (log(ε + u_image) + log(ε + u_text))/2 of a sample, the value of its loss is

        v0: G, with a learned τ               v1: τ·G, with a constant τ             v3: τ·(G + ρ), with a learned τ
        v2: the mean over both sides of τ_i·(log(ε + u_i) + ρ), with a learned τ for each image and each caption

    whose mean over samples is half of the paper's GCL, RGCL and RGCL-g, as CLIP's loss is the mean of two directions. Its gradient is the
    paper's estimator: ∇g/(ε + u) in place of ∇log(ε + g). In v2 the published code leaves the factor τ_i out of the
    weights' gradient, so that samples count by 1/τ_i; here they count as RGCL and iSogCLR have it.

    A weight belongs to the paper's outer mean, over i. g and u are the inner mean, over j ≠ i, and v2's τ_i stands in sample
    i's own loss alone: none of them depends on weights, so the estimator stays what it is.

    With several ranks each one takes its own samples against the gathered features, and all ranks store the estimates of
    the global batch, so that the state is the same on all of them and the mean over ranks of losses and gradients is that
    of one process. DistributedDataParallel need not broadcast the buffers (8 bytes a sample; 32 in v2).

    Attributes:
        log_u_images: log u of each image, (samples,) float32; −inf where it was never seen.
        log_u_texts: the same for captions.
        image_temperatures, text_temperatures: v2's τ; None in other versions.
        temperature: mean τ of this rank's part of the last batch, a scalar; used by v2 alone.
    """

    log_u_images: torch.Tensor
    log_u_texts: torch.Tensor

    def __init__(
        self,
        samples: int,
        version: Version = "v3",
        *,
        rho: float = 6.5,
        eps: float = 1e-14,
        temperature_weight: float = 1.0,
        temperature: float = 0.03,
        temperature_adam: TemperatureAdam = PUBLISHED,
    ) -> None:
        """Make room for the estimates of a data set.

        Args:
            samples: of the data set; indices lie below it.
            version: `v0`, `v1`, `v2` or `v3`.
            rho: ρ, which keeps a learned τ from growing; used by v2 (7 for CC3M) and v3 (6.5 for CC3M, 8.5 for CC12M, 16
                for LAION-400M).
            eps: ε; 1e-14 in the official code, 1e-6 for LAION-400M.
            temperature_weight: of the part of τ's gradient that goes through g. 1 is the paper's gradient. The official
                code adds this part on two ways and halves the other terms, which is 2: the published ρ were tuned with it.
                v2's code does not, so there it must be 1.
            temperature: τ at the start, of v2.
            temperature_adam: v2's learning rate and Adam's constants.

        Raises:
            UsageError: an unknown version, no samples, or a temperature of v2 outside [0.01, 1] or with a weight.
        """
        super().__init__()
        if version not in get_args(Version):
            known = get_args(Version)
            raise UsageError(f"unknown version of FastCLIP {version!r}", ", ".join(known), closest(version, known))
        if samples < 1:
            raise UsageError(f"FastCLIP over {samples} samples", "at least 1")
        if version == "v2" and not TAU_RANGE[0] <= temperature <= TAU_RANGE[1]:
            raise UsageError(f"FastCLIP v2 with a temperature of {temperature:g}", f"{TAU_RANGE[0]:g} to {TAU_RANGE[1]:g}")
        if version == "v2" and temperature_weight != 1:
            raise UsageError(f"FastCLIP v2 with temperature_weight {temperature_weight:g}", "1: v2's τ are not learned by autograd")
        self.version: Version = version
        self.rho, self.log_eps = rho, math.log(eps) if eps > 0 else NEVER_SEEN
        self.temperature_weight = temperature_weight
        self.register_buffer("log_u_images", torch.full((samples,), NEVER_SEEN))
        self.register_buffer("log_u_texts", torch.full((samples,), NEVER_SEEN))
        self.image_temperatures = Temperatures(samples, temperature, temperature_adam) if version == "v2" else None
        self.text_temperatures = Temperatures(samples, temperature, temperature_adam) if version == "v2" else None
        self.temperature = torch.tensor(temperature)

    def forward(
        self, images: torch.Tensor, texts: torch.Tensor, indices: torch.Tensor, scale: torch.Tensor, gamma: float, epoch: int = 0
    ) -> torch.Tensor:
        """Return the losses of this rank's rows, (n,); while training, also update the estimates of the global batch.

        A sample that was never seen has u = g. Where a sample is several times in the global batch, its larger estimate
        is stored, so that the state does not depend on the order of writes.

        Args:
            images: L2-normalised image features, (n, d).
            texts: L2-normalised text features, (n, d), row i belonging to image i.
            indices: numbers of the samples in the data set, (n,) int64, on any device.
            scale: exp(logit_scale) = 1/τ, a scalar; v2 does not look at it.
            gamma: γ of `inner_rate`.
            epoch: whole passes over the data so far; used by v2 alone.

        Raises:
            UsageError: a global batch of one sample, which has no negatives, or (for indices on the CPU) an index that
                is not below `samples`.
        """
        self._check(images, indices)
        indices = indices.to(images.device, non_blocking=True)
        taus = self._taus(indices)
        scale_images, scale_texts = self._scales(scale, taus)
        similar = (images * texts).sum(dim=-1, keepdim=True)
        margins_images = _margins(images, distributed.gather(texts), similar, scale_images)
        margins_texts = _margins(texts, distributed.gather(images), similar, scale_texts)
        log_g_images, log_g_texts = _log_mean(margins_images), _log_mean(margins_texts)

        log_u_images = self._averaged(self.log_u_images[indices], log_g_images.detach(), gamma)
        log_u_texts = self._averaged(self.log_u_texts[indices], log_g_texts.detach(), gamma)
        if self.training:
            all_indices = distributed.gather(indices)
            store(self.log_u_images, all_indices, distributed.gather(log_u_images), "amax")
            store(self.log_u_texts, all_indices, distributed.gather(log_u_texts), "amax")
            if self.image_temperatures is not None and self.text_temperatures is not None:
                self.image_temperatures.learn(indices, self._gradient_of_tau(margins_images.detach(), log_u_images), epoch)
                self.text_temperatures.learn(indices, self._gradient_of_tau(margins_texts.detach(), log_u_texts), epoch)

        estimated = torch.stack([self._estimated(log_g_images, log_u_images), self._estimated(log_g_texts, log_u_texts)])
        if taus is not None:
            return (taus * (estimated + self.rho)).mean(dim=0)
        return self._with_temperature(estimated.mean(dim=0), scale)

    def _taus(self, indices: torch.Tensor) -> torch.Tensor | None:
        """Return v2's temperatures of a batch's images and texts, (2, n)."""
        if self.image_temperatures is None or self.text_temperatures is None:
            return None
        taus = torch.stack([self.image_temperatures.tau[indices], self.text_temperatures.tau[indices]])
        self.temperature = taus.mean()
        return taus

    def _scales(self, scale: torch.Tensor, taus: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1/τ of images and of texts: scalars, or (n, 1) each."""
        if taus is not None:
            return 1 / taus[0].unsqueeze(1), 1 / taus[1].unsqueeze(1)
        used = scale.detach() if self.version == "v1" else _weighted(scale, self.temperature_weight)
        return used, used

    def _gradient_of_tau(self, margins: torch.Tensor, log_u: torch.Tensor) -> torch.Tensor:
        """Return the gradient of τ_i·(log(ε + u_i) + ρ) with respect to τ_i, (n,), ∇g estimated by the batch's.

        It is log(ε + u) + ρ − mean(exp(m)·m)/(ε + u) over the margins m = (difference of similarities)/τ, (n, N).
        """
        value = self._value(log_u)
        mean_margin = (margins.softmax(dim=-1) * margins.masked_fill(margins == float("-inf"), 0)).sum(dim=-1)
        return value + self.rho - torch.exp(_log_mean(margins) - value) * mean_margin

    def _averaged(self, log_u: torch.Tensor, log_g: torch.Tensor, gamma: float) -> torch.Tensor:
        """Return log((1 − γ)·u + γ·g), (n,); log g where a sample was never seen."""
        if gamma == 1:
            return log_g
        averaged = torch.logaddexp(log_u.to(log_g.dtype) + math.log1p(-gamma), log_g + math.log(gamma))
        return torch.where(log_u == NEVER_SEEN, log_g, averaged)

    def _estimated(self, log_g: torch.Tensor, log_u: torch.Tensor) -> torch.Tensor:
        """Return (n,) with value log(ε + u) and gradient ∇g/(ε + u)."""
        value = self._value(log_u)
        # ∇g/(ε + u) = g/(ε + u)·∇log g, and the weight lies within [0, 1/γ].
        weight = torch.exp(log_g.detach() - value)
        return value + weight * (log_g - log_g.detach())

    def _value(self, log_u: torch.Tensor) -> torch.Tensor:
        """Return log(ε + u)."""
        return torch.logaddexp(log_u, torch.full_like(log_u, self.log_eps))

    def _with_temperature(self, contrast: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        if self.version == "v0":
            return contrast
        if self.version == "v1":
            return contrast / scale.detach()
        # The product rule: τ is constant beside the contrast's gradient, and the contrast beside τ's.
        held = contrast.detach()
        return (contrast - held) / scale.detach() + (held + self.rho) / scale

    def _check(self, images: torch.Tensor, indices: torch.Tensor) -> None:
        if len(images) * distributed.world_size() < 2:
            raise UsageError("FastCLIP with a global batch of 1: there are no negatives", "at least 2 samples", "--batch-size N")
        # On a GPU the comparison would make the host wait for the device.
        if indices.device.type == "cpu" and not ((indices >= 0) & (indices < len(self.log_u_images))).all():
            raise UsageError(
                f"FastCLIP: sample numbers from {int(indices.min())} to {int(indices.max())}", f"0 to {len(self.log_u_images) - 1:,}"
            )


def _weighted(value: torch.Tensor, weight: float) -> torch.Tensor:
    """Return the value itself, its gradient times a weight."""
    return value if weight == 1 else value.detach() + weight * (value - value.detach())


def _margins(rows: torch.Tensor, others: torch.Tensor, similar: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return (similarity to another sample − similarity to its own)/τ of this rank's rows, (n, N); −inf at the sample itself.

    Args:
        rows: (n, d).
        others: features of the global batch, (N, d).
        similar: similarity to the sample's own other side, (n, 1).
        scale: 1/τ, a scalar or (n, 1).
    """
    numbers = torch.arange(len(rows), device=rows.device)
    itself = torch.zeros((len(rows), len(others)), dtype=torch.bool, device=rows.device)
    itself[numbers, numbers + len(rows) * distributed.rank()] = True
    return (scale * (rows @ others.T - similar)).masked_fill(itself, float("-inf"))


def _log_mean(margins: torch.Tensor) -> torch.Tensor:
    """Return log g, (n,): the logarithm of the mean of exp(margin) over all other samples."""
    return margins.logsumexp(dim=-1) - math.log(margins.shape[1] - 1)
