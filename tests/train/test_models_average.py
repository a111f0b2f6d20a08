"""Averages of weights: plain arithmetic, WiSE-FT's formula, and what cannot be averaged."""

from __future__ import annotations

import pytest
import torch

from shards.core.errors import UsageError
from train.models.average import average, interpolate, interpolate_by_fisher
from train.models.towers import build_tower


def state(seed: int, batches: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {"conv.weight": torch.randn(4, 3, generator=generator), "bn.running_mean": torch.randn(4, generator=generator)}
    return weights | {"bn.num_batches_tracked": torch.tensor(batches)}


def test_a_weighted_average_equals_plain_arithmetic() -> None:
    states, weights = [state(0, 10), state(1, 20), state(2, 33)], [1.0, 2.0, 5.0]
    mixed = average(states, weights)
    for name in ("conv.weight", "bn.running_mean"):
        columns = zip(*(s[name].flatten().tolist() for s in states), strict=True)
        expected = [sum(w * v for w, v in zip(weights, values, strict=True)) / 8 for values in columns]
        assert mixed[name].flatten().tolist() == pytest.approx(expected, rel=1e-6)
        assert mixed[name].dtype == torch.float32
    assert mixed["bn.num_batches_tracked"].dtype == torch.int64
    assert mixed["bn.num_batches_tracked"] == (10 + 2 * 20 + 5 * 33) // 8


def test_a_uniform_average_of_equal_models_is_the_model() -> None:
    for count in (2, 3, 7, 10):
        mixed = average([state(0, 29)] * count)
        assert all(torch.equal(mixed[name], tensor) for name, tensor in state(0, 29).items()), count


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_the_line_between_two_models_is_wise_fts(alpha: float) -> None:
    zero, fine = state(0, 7), state(1, 12)
    expected = {key: (1 - alpha) * zero[key] + alpha * fine[key] for key in zero}  # wise-ft, src/wise_ft.py
    mixed = interpolate(zero, fine, alpha)
    for key in ("conv.weight", "bn.running_mean"):
        torch.testing.assert_close(mixed[key], expected[key], rtol=1e-6, atol=1e-7)
    whole = torch.zeros((), dtype=torch.int64).copy_(expected["bn.num_batches_tracked"] + 1e-6)  # as load_state_dict copies it
    assert mixed["bn.num_batches_tracked"] == whole


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_line_by_fisher_information_is_wise_fts(alpha: float) -> None:
    zero, fine = state(0, 7), state(1, 12)
    of_zero, of_fine = ({"conv.weight": torch.rand_like(model["conv.weight"])} for model in (zero, fine))
    of_zero["conv.weight"][0] = 0
    floor = torch.tensor(1e-8)
    share, other = (1 - alpha) * of_zero["conv.weight"].maximum(floor), alpha * of_fine["conv.weight"].maximum(floor)  # src/wise_ft.py
    mixed = interpolate_by_fisher(zero, fine, alpha, of_zero, of_fine)
    expected = (share * zero["conv.weight"] + other * fine["conv.weight"]) / (share + other)
    torch.testing.assert_close(mixed["conv.weight"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed["bn.running_mean"], interpolate(zero, fine, alpha)["bn.running_mean"])


def test_the_ends_of_the_line_are_the_models_to_the_bit() -> None:
    zero, fine = state(0), state(1)
    fine["conv.weight"][0, 0] = float("nan")
    assert all(torch.equal(interpolate(zero, fine, 0.0)[key], zero[key]) for key in zero)
    assert torch.equal(interpolate(fine, zero, 1.0)["conv.weight"], zero["conv.weight"])


def test_half_precision_is_summed_in_double() -> None:
    models = [{"w": torch.tensor([x], dtype=torch.bfloat16)} for x in (256.0, 1.0, 1.0, 1.0)]
    assert average(models)["w"].item() == torch.tensor(259 / 4, dtype=torch.bfloat16).item()


def test_an_average_loads_into_its_model() -> None:
    towers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        towers.append(build_tower("tiny-rn-32"))
    mixed = average([tower.state_dict() for tower in towers])
    towers[0].load_state_dict(mixed)
    assert torch.isfinite(towers[0].eval()(torch.randn(1, 3, 32, 32))).all()


def test_what_cannot_be_averaged_is_refused() -> None:
    other = {**state(1), "extra": torch.zeros(1)}
    with pytest.raises(UsageError, match="model 2 of an average has besides extra"):
        average([state(0), other])
    with pytest.raises(UsageError, match="model 3 of an average lacks extra"):
        average([other, other, state(0)])
    with pytest.raises(UsageError, match=r"another shape conv\.weight"):
        average([state(0), {**state(1), "conv.weight": torch.zeros(5, 3)}])
    for weights in ([1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(UsageError, match="weights"):
            average([state(0), state(1)], weights)
    with pytest.raises(UsageError, match="no models"):
        average([])
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="alpha"):
            interpolate(state(0), state(1), alpha)
