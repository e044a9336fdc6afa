"""How the rate goes, that late groups are locked until they start, and that a bad gradient touches nothing."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from littune.base.errors import LittuneError
from littune.tuning.optim.groups import Rule, apply_rules, parameter_groups
from littune.tuning.optim.optimizers import apply_gradients, make_optimizer, schedule, set_learning_rate

_OPTIMIZERS = ["adamw", "adam", "adafactor"]


def _model():
    torch.manual_seed(0)
    return nn.ModuleDict({"text": nn.Linear(40, 33), "head": nn.Linear(33, 4)})


def _weights(part):
    return [p.detach().clone() for p in part.parameters()]


def _train(model, name, rules, *, steps, total=10):
    """The norms and, after each step, the weights of both parts."""
    decay = 0.0 if name == "adam" else 0.1
    apply_rules(model, rules)
    optimizer = make_optimizer(name, parameter_groups(model, weight_decay=decay, rules=rules), lr=0.01)
    norms, history = [], []
    for step in range(steps):
        set_learning_rate(optimizer, lr=0.01, step=step, total=total, warmup=2)
        optimizer.zero_grad()
        inputs = torch.randn(8, 40, generator=torch.Generator().manual_seed(step))
        model["head"](model["text"](inputs).tanh()).square().mean().backward()
        norms.append(apply_gradients(optimizer, max_norm=0.1))
        history.append((_weights(model["text"]), _weights(model["head"])))
    return optimizer, norms, history


def _same(ours, theirs):
    # As numbers of bits, so that 0 and -0 differ.
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_before_its_start_a_group_is_locked_to_the_bit_and_then_learns(name):
    late, locked = _model(), _model()
    with torch.no_grad():
        late["text"].weight[0] = locked["text"].weight[0] = -0.0
    before = _weights(late["text"])
    _, norms, history = _train(late, name, [Rule(pattern="text.*", factor=0.5, start=0.4)], steps=6)
    _, locked_norms, locked_history = _train(locked, name, [Rule(pattern="text.*", factor=0.0)], steps=4)
    for (text, head), (_, locked_head) in zip(history, locked_history, strict=False):
        assert _same(text, before)
        assert _same(head, locked_head)
    assert norms[:4] == locked_norms
    assert not any(torch.equal(a, b) for a, b in zip(history[4][0], before, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(history[5][0], history[4][0], strict=True))


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_before_its_start_a_group_has_no_state(name):
    model = _model()
    optimizer, _, _ = _train(model, name, [Rule(pattern="text.*", factor=1.0, start=0.4)], steps=4)
    assert set(optimizer.state) == set(model["head"].parameters())


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_a_rate_of_zero_changes_no_weight(name):
    model = _model()
    decay = 0.0 if name == "adam" else 0.1
    optimizer = make_optimizer(name, parameter_groups(model, weight_decay=decay), lr=0.0)
    before = _weights(model)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    assert _same(_weights(model), before)


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_every_optimizer_descends(name):
    _, norms, _ = _train(_model(), name, [], steps=30, total=30)
    assert norms[-1] < 0.5 * norms[0]


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_decay_is_rate_times_decay(name):
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(name, parameter_groups(layer, weight_decay=0.1), lr=0.01)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    apply_gradients(optimizer, max_norm=1.0)
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.01 * 0.1))


def test_adam_is_adamw_without_decay_and_takes_none():
    steps = [_train(_model(), name, [], steps=3)[2] for name in ("adam", "adamw")]
    assert not _same(steps[0][-1][0], steps[1][-1][0])
    plain = _model()
    for name in ("adam", "adamw"):
        model = _model()
        optimizer = make_optimizer(name, parameter_groups(model, weight_decay=0.0), lr=0.1)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.detach(), q.detach() - 0.1)
    with pytest.raises(AssertionError, match="decoupled"):
        make_optimizer("adam", parameter_groups(plain, weight_decay=0.1), lr=0.1)


def test_groups_have_their_own_factor_and_start():
    model = _model()
    rules = [Rule(pattern="text.*", factor=0.5, start=0.25)]
    groups = parameter_groups(model, weight_decay=0.0, lr_factors={model["head"]: 20.0}, rules=rules)
    optimizer = make_optimizer("adamw", groups, lr=1.0)
    text, head = (next(g for g in optimizer.param_groups if g["lr_factor"] == factor) for factor in (0.5, 20.0))
    seen = []
    for step in range(5):
        rate = set_learning_rate(optimizer, lr=0.1, step=step, total=8, warmup=2, kind="constant")
        seen.append((rate, text["lr"], head["lr"]))
    expected = [(0.05, 0, 1), (0.1, 0, 2), (0.1, 0.025, 2), (0.1, 0.05, 2), (0.1, 0.05, 2)]
    assert seen == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("total", [1, 3, 8])
def test_a_late_start_leaves_at_least_one_step(total):
    model = _model()
    rules = [Rule(pattern="*", factor=1.0, start=0.99)]
    optimizer = make_optimizer("adamw", parameter_groups(model, weight_decay=0.0, rules=rules), lr=1.0)
    set_learning_rate(optimizer, lr=0.1, step=total - 1, total=total, warmup=0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


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


def test_rsqrt_halves_where_the_steps_are_four_times_the_warm_up():
    factors = [schedule(step, total=100, warmup=4, kind="rsqrt") for step in range(17)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[16] == 0.5
    assert factors[9] == pytest.approx(math.sqrt(4 / 9))
    assert [schedule(step, total=9, warmup=0, kind="rsqrt") for step in (0, 3)] == [1.0, 0.5]


@pytest.mark.parametrize("kind", ["cosine", "constant", "rsqrt"])
def test_a_late_schedule_is_that_of_the_steps_that_are_left(kind):
    late = [schedule(step, total=12, warmup=3, kind=kind, start=5) for step in range(12)]
    assert late == [0.0] * 5 + [schedule(step, total=7, warmup=3, kind=kind) for step in range(7)]


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0))])
def test_the_global_norm_is_clipped_and_never_raised(max_norm, expected):
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [p], "weight_decay": 0.0, "lr_factor": 1.0, "start": 0.0} for p in (a, b)]
    optimizer = make_optimizer("adamw", groups, lr=0.1)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert apply_gradients(optimizer, max_norm=max_norm) == pytest.approx(5.0)
    torch.testing.assert_close(torch.cat([a.grad, b.grad]), torch.tensor(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", _OPTIMIZERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error_and_touches_nothing(bad, name):
    layer = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    optimizer = make_optimizer(name, parameter_groups(layer, weight_decay=0.0), lr=0.1)
    layer.weight.grad = torch.full((2, 2), bad)
    layer.bias.grad = torch.zeros(2)
    with pytest.raises(LittuneError, match="learning rate"):
        apply_gradients(optimizer, max_norm=1.0)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert not optimizer.state
