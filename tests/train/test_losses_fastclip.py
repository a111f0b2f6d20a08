"""FastCLIP's loss against loops over the paper's equations, the official code's figures and the plain mini-batch loss."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from shards.core.errors import UsageError
from tests.train import runs
from train import loop
from train.losses.fastclip import FastClip, Version, inner_rate
from train.losses.temperatures import TemperatureAdam
from train.step import gradient
from train.tasks.base import Step

SAMPLES, EPS, RHO = 9, 1e-14, 6.5
INDICES = torch.tensor([3, 4, 8, 1, 0])


def grid(phase: float) -> torch.Tensor:
    """Return normalised features that need no random generator, so that the official code's figures stay valid."""
    values = [[math.sin(0.7 * (i + 1) * (k + 1) + phase) for k in range(4)] for i in range(5)]
    return F.normalize(torch.tensor(values, dtype=torch.float64), dim=-1)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, texts and the logarithm of the scale, all with gradients."""
    return grid(0.0).requires_grad_(), grid(0.6).requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)


def module(version: Version = "v3", **options: Any) -> FastClip:
    """Return a loss in float64 whose estimates are those that the official code was given."""
    loss = FastClip(SAMPLES, version, rho=RHO, eps=EPS, **options).double()
    numbers = torch.arange(SAMPLES, dtype=torch.float64)
    loss.log_u_images.copy_((0.2 + 0.05 * numbers).log())
    loss.log_u_texts.copy_((0.9 - 0.04 * numbers).log())
    return loss


def naive(version: str, gamma: float, u_images: list[float], u_texts: list[float], weight: float = 1.0) -> list[Any]:
    """Return [value, gradients of images, texts and log scale, new u of images, of texts], pair by pair."""
    images, texts, log_scale = inputs()
    tau = 1 / log_scale.exp()
    tau = tau.detach() if version == "v1" else tau
    tau_in_g = 1 / (1 / tau.detach() + weight * (1 / tau - 1 / tau.detach()))
    n, value, surrogate = len(images), 0.0, torch.zeros((), dtype=torch.float64)
    news: list[list[float]] = [[], []]
    for side, olds in enumerate((u_images, u_texts)):
        for i in range(n):
            right = images[i] @ texts[i]
            terms = [(images[i] @ texts[j] if side == 0 else texts[i] @ images[j]) - right for j in range(n) if j != i]
            g = sum(torch.exp(term / tau_in_g) for term in terms) / (n - 1)
            u = (1 - gamma) * olds[i] + gamma * float(g.detach())
            news[side].append(u)
            value += math.log(EPS + u) / (2 * n)
            surrogate = surrogate + g / (EPS + u) / (2 * n)
    if version == "v3":
        surrogate = tau.detach() * surrogate + tau * (value + RHO)
        value = float(tau.detach()) * (value + RHO)
    elif version == "v1":
        surrogate, value = tau * surrogate, float(tau) * value
    gradients = torch.autograd.grad(surrogate, [images, texts, log_scale], allow_unused=True)
    return [value, *gradients, *news]


@pytest.mark.parametrize("version", ["v0", "v1", "v3"])
@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_equals_a_loop_over_the_papers_equations(version: Version, gamma: float, weight: float) -> None:
    loss, (images, texts, log_scale) = module(version, temperature_weight=weight), inputs()
    u_images, u_texts = loss.log_u_images.exp()[INDICES].tolist(), loss.log_u_texts.exp()[INDICES].tolist()
    expected = naive(version, gamma, u_images, u_texts, weight)
    value = loss(images, texts, INDICES, log_scale.exp(), gamma).mean()
    gradients = torch.autograd.grad(value, [images, texts, log_scale], allow_unused=True)
    assert float(value.detach()) == pytest.approx(expected[0], abs=1e-12)
    for ours, theirs in zip(gradients, expected[1:4], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert loss.log_u_images.exp()[INDICES].tolist() == pytest.approx(expected[4], rel=1e-12)
    assert loss.log_u_texts.exp()[INDICES].tolist() == pytest.approx(expected[5], rel=1e-12)


def test_equals_the_official_codes_figures() -> None:
    """Optimization-AI/fast_clip at efd89d5, FastCLIPLoss with multiply_tau, γ 0.3, gathered features without gradient."""
    u_images = [0.24935145964704206, 0.2982342515272254, 0.43572040577540483, 0.196996709012537, 0.14260998613327455]
    u_texts = [0.5667094434653773, 0.5356173087567427, 0.4220902165555881, 0.604692705566042, 0.6318800669118595]
    first_image = [-0.012217001126972318, -0.013213276713681273, -0.004876855729444893, 0.00346771888340225]
    last_text = [0.004134506870561367, -0.0015164749292012638, 0.0043572427911909364, -0.004636134256551442]
    of_log_scale = -1.3486497421818848
    loss, (images, texts, log_scale) = module(temperature_weight=2.0), inputs()
    loss(images, texts, INDICES, log_scale.exp(), 0.3).mean().backward()
    assert images.grad is not None
    assert texts.grad is not None
    assert loss.log_u_images.exp()[INDICES].tolist() == pytest.approx(u_images, rel=1e-12)
    assert loss.log_u_texts.exp()[INDICES].tolist() == pytest.approx(u_texts, rel=1e-12)
    assert images.grad[0].tolist() == pytest.approx(first_image, abs=1e-12)
    assert texts.grad[4].tolist() == pytest.approx(last_text, abs=1e-12)
    assert log_scale.grad is not None
    assert float(log_scale.grad) == pytest.approx(of_log_scale, abs=1e-12)


def test_gamma_1_has_the_gradient_of_the_mini_batch_loss() -> None:
    """The mini-batch loss of the same form is differentiated as it stands, without estimates."""
    images, texts, log_scale = inputs()
    tau = 1 / log_scale.exp()
    similarity = images @ texts.T
    margins = similarity - similarity.diagonal().unsqueeze(1), similarity.T - similarity.diagonal().unsqueeze(1)
    others = 1 - torch.eye(5, dtype=torch.float64)
    g_images, g_texts = ((torch.exp(m / tau) * others).sum(1) / 4 for m in margins)
    direct = tau * (torch.log(EPS + g_images) + torch.log(EPS + g_texts)).mean() / 2 + RHO * tau
    expected = torch.autograd.grad(direct, [images, texts, log_scale])
    ours = module()(images, texts, INDICES, log_scale.exp(), 1.0).mean()
    torch.testing.assert_close(ours, direct, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(ours, [images, texts, log_scale])
    for derivative, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(derivative, wanted, rtol=1e-10, atol=1e-12)


def test_a_sample_never_seen_starts_at_its_own_estimate() -> None:
    fresh, (images, texts, log_scale) = FastClip(SAMPLES), inputs()
    whole = FastClip(SAMPLES)
    ours = fresh(images, texts, INDICES, log_scale.exp(), 0.2)
    torch.testing.assert_close(ours, whole(images, texts, INDICES, log_scale.exp(), 1.0), rtol=1e-12, atol=1e-12)
    assert torch.equal(fresh.log_u_images, whole.log_u_images)
    unseen = [i for i in range(SAMPLES) if i not in INDICES.tolist()]
    assert torch.isneginf(fresh.log_u_images[unseen]).all()
    assert torch.isfinite(fresh.log_u_texts[INDICES]).all()


def test_the_smallest_temperature_overflows_nothing() -> None:
    # Each image is opposite to its own text and equal to the other: at a scale of 100, g is e^200; float32 ends at e^88.
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    texts = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    loss = FastClip(2)
    for gamma in (1.0, 0.2):
        value = loss(images, texts, torch.tensor([0, 1]), torch.tensor(100.0), gamma).mean()
        value.backward()
        # τ·(log g + ρ) with log g = 200.
        assert float(value.detach()) == pytest.approx((200 + RHO) / 100, abs=1e-5)
    assert loss.log_u_images.tolist() == pytest.approx([200, 200], abs=1e-3)
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_evaluation_changes_no_estimate_and_the_state_survives() -> None:
    loss, (images, texts, log_scale) = module(), inputs()
    before = loss.log_u_images.clone()
    loss.eval()(images, texts, INDICES, log_scale.exp(), 0.3)
    assert torch.equal(loss.log_u_images, before)
    loss.train()(images, texts, INDICES, log_scale.exp(), 0.3)
    assert not torch.equal(loss.log_u_images, before)
    copy = FastClip(SAMPLES).double()
    copy.load_state_dict(loss.state_dict())
    assert torch.equal(copy.log_u_texts, loss.log_u_texts)


def test_a_sample_twice_in_a_batch_keeps_the_larger_estimate() -> None:
    loss, (images, texts, log_scale) = FastClip(SAMPLES), inputs()
    loss(images, texts, INDICES, log_scale.exp(), 1.0)
    alone = loss.log_u_images[INDICES].clone()
    again = FastClip(SAMPLES)
    again(images, texts, torch.tensor([3, 3, 3, 1, 0]), log_scale.exp(), 1.0)
    assert float(again.log_u_images[3]) == float(alone[:3].max())


@dataclass
class PublishedSide:
    """One direction of FastCLIPLossIndividual, a sample at a time: ρ, u, τ and Adam's moments."""

    rho: float
    u: list[float]
    tau: list[float]
    m: list[float]
    v: list[float]

    def take(self, i: int, differences: list[float], gamma: float, epoch: int, adam: TemperatureAdam) -> tuple[float, float]:
        """Update everything of sample i, and return (ε + u) and the τ that the batch was compared with."""
        tau = self.tau[i]
        margins = [difference / tau for difference in differences]
        g = sum(math.exp(margin) for margin in margins) / len(margins)
        self.u[i] = (1 - gamma) * self.u[i] + gamma * g
        shifted = EPS + self.u[i]
        gradient = -sum(math.exp(margin) * margin for margin in margins) / shifted / len(margins) + math.log(shifted) + self.rho
        gradient = max(-5.0, min(5.0, gradient))
        beta1, beta2 = (adam.beta1, adam.beta2) if epoch > 0 else (0.0, 0.0)
        self.m[i] = beta1 * self.m[i] + (1 - beta1) * gradient
        self.v[i] = beta2 * self.v[i] + (1 - beta2) * gradient**2
        m_hat, v_hat = self.m[i] / (1 - beta1 ** (epoch + 1)), self.v[i] / (1 - beta2 ** (epoch + 1))
        self.tau[i] = max(0.01, min(1.0, tau - adam.lr * m_hat / (math.sqrt(v_hat) + adam.eps)))
        return shifted, tau


def test_temperatures_of_samples_equal_a_loop_over_the_published_code() -> None:
    """Optimization-AI/fast_clip at efd89d5, loss.py, FastCLIPLossIndividual.local; the features' gradient is RGCL's."""
    adam = TemperatureAdam(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-8)
    loss = module("v2", temperature=0.3, temperature_adam=adam)
    loss.rho = 1.5  # so that some gradients are clipped, some are not, and both signs occur
    sides = []
    for log_u in (loss.log_u_images, loss.log_u_texts):
        sides.append(PublishedSide(1.5, log_u.exp().tolist(), [float(torch.tensor(0.3))] * SAMPLES, [0.0] * SAMPLES, [0.0] * SAMPLES))
    for epoch, gamma in ((0, 1.0), (1, 0.6), (4, 0.3)):
        images, texts, log_scale = inputs()
        value, surrogate = 0.0, torch.zeros((), dtype=torch.float64)
        for own, others, side in ((images, texts, sides[0]), (texts, images, sides[1])):
            for place, i in enumerate(INDICES.tolist()):
                right = own[place] @ others[place]
                differences = [own[place] @ others[j] - right for j in range(5) if j != place]
                shifted, tau = side.take(i, [float(d.detach()) for d in differences], gamma, epoch, adam)
                g = sum(torch.exp(difference / tau) for difference in differences) / 4
                value += tau * (math.log(shifted) + side.rho) / 10
                surrogate = surrogate + tau * g / shifted / 10
        expected = torch.autograd.grad(surrogate, [images, texts])
        ours = loss(images, texts, INDICES, log_scale.exp(), gamma, epoch).mean()
        gradients = torch.autograd.grad(ours, [images, texts])
        assert float(ours.detach()) == pytest.approx(value, abs=1e-12)
        for derivative, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(derivative, wanted, rtol=1e-10, atol=1e-12)
        for temperatures, side in zip((loss.image_temperatures, loss.text_temperatures), sides, strict=True):
            assert temperatures is not None
            assert temperatures.tau.tolist() == pytest.approx(side.tau, abs=1e-12)
            assert temperatures.first_moment.tolist() == pytest.approx(side.m, abs=1e-12)
            assert temperatures.second_moment.tolist() == pytest.approx(side.v, abs=1e-12)
    assert len({round(tau, 6) for tau in sides[0].tau}) > 3  # they have come apart
    assert loss.log_u_texts.exp().tolist() == pytest.approx(sides[1].u, rel=1e-12)


def test_the_gradient_of_a_samples_temperature_is_autograds() -> None:
    """γ = 1 makes u the batch's own g, so that RGCL can be differentiated as it stands."""
    images, texts, log_scale = inputs()
    taus = torch.full((5,), 0.3, dtype=torch.float64, requires_grad=True)
    similarity = images.detach() @ texts.detach().T
    margins = (similarity - similarity.diagonal().unsqueeze(1)) / taus.unsqueeze(1)
    g = (margins.exp() * (1 - torch.eye(5))).sum(1) / 4
    (expected,) = torch.autograd.grad((taus * (torch.log(EPS + g) + 1.5)).sum(), taus)
    loss = FastClip(SAMPLES, "v2", rho=1.5, temperature=0.3).double()
    assert loss.image_temperatures is not None
    loss.image_temperatures.tau.fill_(0.3)
    loss(images, texts, INDICES, log_scale.exp(), 1.0)
    assert expected.abs().max() < 5  # where the published code would clip it
    # In the first epoch the first moment is the gradient.
    torch.testing.assert_close(loss.image_temperatures.first_moment[INDICES], expected, rtol=1e-10, atol=1e-12)


def test_temperatures_survive_and_stay_in_their_range() -> None:
    images, texts, log_scale = inputs()
    loss = FastClip(SAMPLES, "v2", rho=9.0, temperature=0.03, temperature_adam=TemperatureAdam(lr=0.5))
    loss.eval()(images, texts, INDICES, log_scale.exp(), 1.0)
    assert loss.image_temperatures is not None
    assert loss.image_temperatures.tau.tolist() == pytest.approx([0.03] * SAMPLES)
    loss.train()(images, texts, INDICES, log_scale.exp(), 1.0)
    tau = loss.image_temperatures.tau
    assert tau[INDICES].tolist() == pytest.approx([0.01] * 5)
    assert float(loss.temperature) == pytest.approx(0.03)  # what the batch was compared with
    copy = FastClip(SAMPLES, "v2")
    copy.load_state_dict(loss.state_dict())
    assert copy.image_temperatures is not None
    assert torch.equal(copy.image_temperatures.tau, tau)


@pytest.mark.parametrize(("start", "share"), [(0.07, 1.0), (0.03, 1 / 3), (0.02, 1 / 3)])
@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
@pytest.mark.usefixtures("micro_models", "one_thread")
def test_a_small_temperature_learns_at_a_third_of_the_rate(
    optimizer: str, start: float, share: float, make_shards: Callable[..., str]
) -> None:
    """The published `step_lr_thresh`: lr/3 from τ 0.03 down. Two steps with the option, and without it at the rate itself."""
    build = make_shards(20)
    scales = []
    for fall, rate in ((0.03, 1.0), (0.0, share)):
        options = {"temperature": start, "temperature_fall": fall}
        values = {"loss": "fastclip", "model": "micro-vit", "optimizer": optimizer, "temperature_lr": 1e-3 * rate}
        made, batch = runs.built("clip", build, fastclip=options, **values)
        for step in range(2):
            at = Step(step, 10, 0.0)
            gradient(made.module().train(), made.trained, batch, at, made.scaler)
            made.optimizer.step()
            made.optimizer.zero_grad()
            made.task.after_step(at)
        scales.append(float(made.task.model.logit_scale.detach()))
    first = -math.log(start)
    assert scales[0] != pytest.approx(first, abs=1e-9)
    assert scales[0] - first == pytest.approx(scales[1] - first, rel=1e-3)


@pytest.mark.usefixtures("micro_models", "one_thread")
@pytest.mark.parametrize("fastclip", [{"version": "v2", "rho": 1.5}, {"version": "v3", "temperature_fall": 0.08}])
def test_a_training_goes_on_to_the_bit(fastclip: dict[str, Any], make_shards: Callable[..., str], tmp_path: Path) -> None:
    build, whole, part = make_shards(40), tmp_path / "whole", tmp_path / "part"
    values = {
        "loss": "fastclip",
        "model": "micro-vit",
        "fastclip": fastclip,
        "samples_seen": 6 * 16,
        "temperature_lr": 0.01,
        "log_every": 1,
    }
    loop.train(runs.config("clip", build, whole, checkpoint_every=3, keep=9, **values))
    part.mkdir()
    shutil.copy(whole / "checkpoint-000000003.pt", part / "checkpoint.pt")
    loop.train(runs.config("clip", build, part, **values))
    assert runs.same_bits(part, whole)
    if fastclip["version"] == "v2":
        learned = runs.tensors(whole)["heads.fastclip.image_temperatures.tau"]
        assert len(set(learned.tolist())) > 10
        temperatures = [row["temperature"] for row in runs.lines(whole)]
        assert temperatures[0] == pytest.approx(0.07)
        assert temperatures[-1] != pytest.approx(0.07, abs=1e-4)


def test_inner_rates_are_the_published_cosine() -> None:
    rates = [inner_rate(epoch, 0.2, 18) for epoch in range(37)]
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 18)) * 0.8 + 0.2 for epoch in range(18)] + [0.2] * 19
    assert rates == pytest.approx(expected, abs=1e-15)
    assert rates[0] == 1
    assert rates[9] == pytest.approx(0.6)
    assert [inner_rate(epoch, 0.8, 10, "constant") for epoch in (0, 1, 30)] == [1.0, 0.8, 0.8]


def test_what_cannot_be_is_refused() -> None:
    images, texts, log_scale = inputs()
    version: Any = "v4"
    schedule: Any = "cosin"
    with pytest.raises(UsageError, match="version of FastCLIP 'v4'"):
        FastClip(5, version)
    with pytest.raises(UsageError, match="v2 with a temperature of 2"):
        FastClip(5, "v2", temperature=2.0)
    with pytest.raises(UsageError, match="v2 with temperature_weight 2"):
        FastClip(5, "v2", temperature_weight=2.0)
    with pytest.raises(UsageError, match="0 samples"):
        FastClip(0)
    with pytest.raises(UsageError, match="sample numbers from 0 to 8"):
        FastClip(8)(images, texts, INDICES, log_scale.exp(), 1.0)
    with pytest.raises(UsageError, match="global batch of 1"):
        FastClip(8)(images[:1], texts[:1], INDICES[:1], log_scale.exp(), 1.0)
    with pytest.raises(UsageError, match="schedule of gamma 'cosin'"):
        inner_rate(1, 0.2, 18, schedule)
    with pytest.raises(UsageError, match="gamma 0"):
        inner_rate(1, 0.0, 18)
