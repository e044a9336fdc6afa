"""Which parameters decay, how the rate goes, and that a bad gradient touches nothing."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from littune.base.errors import LittuneError
from littune.tuning.optim import adamw, apply_gradients, parameter_groups, schedule, set_learning_rate


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.positions = nn.Parameter(torch.zeros(3, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6)
        self.log_temperature = nn.Parameter(torch.tensor(1.0))


def _names(model: nn.Module, groups, decay: bool) -> set[str]:
    chosen = {id(p) for group in groups if (group["weight_decay"] > 0) == decay for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in chosen}


def test_only_kernels_decay():
    model = _Model()
    groups = parameter_groups(model, weight_decay=0.1)
    kernels = {"attention.in_proj_weight", "attention.out_proj.weight", "head.weight"}
    assert _names(model, groups, decay=True) == kernels
    assert _names(model, groups, decay=False) == {name for name, _ in model.named_parameters()} - kernels


def test_locked_parameters_are_in_no_group():
    model = _Model()
    model.attention.requires_grad_(False)
    trained = [p for group in parameter_groups(model, weight_decay=0.1) for p in group["params"]]
    assert not {id(p) for p in trained} & {id(p) for p in model.attention.parameters()}
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}


def test_parts_have_their_own_factor_on_the_learning_rate():
    model = _Model()
    optimizer = adamw(parameter_groups(model, weight_decay=0.0, lr_factors={model.head: 10.0}), lr=1.0)
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.head.weight)] == rates[id(model.head.bias)] == 5.0
    assert rates[id(model.log_temperature)] == rates[id(model.norm.weight)] == 0.5


def test_adamw_decays_by_rate_times_decay():
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = adamw(parameter_groups(layer, weight_decay=0.1), lr=0.01)
    set_learning_rate(optimizer, 0.01)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    apply_gradients(optimizer, max_norm=1.0)
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.01 * 0.1))


def test_cosine_rises_to_one_and_falls_towards_zero():
    factors = [schedule(step, total=10, warmup=4) for step in range(11)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[7] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0, abs=1e-12)
    assert all(a > b for a, b in pairwise(factors[4:]))


def test_constant_stays_and_no_warm_up_starts_at_the_peak():
    assert [schedule(step, total=9, warmup=2, kind="constant") for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert schedule(0, total=1, warmup=0) == 1.0


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0))])
def test_the_global_norm_is_clipped_and_never_raised(max_norm, expected):
    layer = nn.Linear(2, 1, bias=False)
    optimizer = adamw(parameter_groups(layer, weight_decay=0.0), lr=0.1)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert apply_gradients(optimizer, max_norm=max_norm) == pytest.approx(5.0)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([expected]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error_and_touches_nothing(bad):
    layer = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    optimizer = adamw(parameter_groups(layer, weight_decay=0.1), lr=0.1)
    layer.weight.grad = torch.full((2, 2), bad)
    layer.bias.grad = torch.zeros(2)
    with pytest.raises(LittuneError, match="learning rate"):
        apply_gradients(optimizer, max_norm=1.0)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert not optimizer.state
