"""The steps are those of a few plain lines, and a resumed run is an uninterrupted one, to the bit."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from littune.tuning.optim.adafactor import Adafactor

# Shapes, and their second largest and largest dimension where both have at least 32.
_SHAPES = [
    ((40, 64), (0, 1)),
    ((64, 40), (1, 0)),
    ((32, 32), (0, 1)),
    ((36, 3, 40, 2), (0, 2)),
    ((48, 33, 2), (1, 0)),
    ((31, 64), None),
    ((64, 3, 3), None),
    ((50,), None),
    ((), None),
]


def _bfloat16(values):
    return torch.from_numpy(np.asarray(values)).bfloat16().double().numpy()


def _reference(weights, gradients, dimensions, *, lr, weight_decay):
    """The weights after each gradient, and the momentum that is left."""
    momentum, moment, rows, columns, history = np.zeros_like(weights), 0.0, 0.0, 0.0, []
    for t, gradient in enumerate(gradients, start=1):
        beta = min(0.999, 1 - t**-0.8)
        squares = gradient**2 + 1e-30
        if dimensions is None:
            moment = beta * moment + (1 - beta) * squares
        else:
            second, largest = dimensions
            rows = beta * rows + (1 - beta) * squares.mean(largest, keepdims=True)
            columns = beta * columns + (1 - beta) * squares.mean(second, keepdims=True)
            moment = rows * columns / rows.mean(second, keepdims=True)
        average = 0.9 * momentum + 0.1 * gradient / np.sqrt(moment)
        weights = weights - lr * average - lr * weight_decay * weights
        momentum = _bfloat16(average)
        history.append(weights)
    return history, momentum


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize(("shape", "dimensions"), _SHAPES)
def test_ten_steps_are_those_of_the_plain_lines(shape, dimensions, weight_decay):
    random = np.random.default_rng(0)
    weights = random.normal(size=shape)
    gradients = random.normal(size=(10, *shape)) * random.uniform(0.01, 2.0, size=(10, *shape))
    expected, momentum = _reference(weights, gradients, dimensions, lr=0.03, weight_decay=weight_decay)
    parameter = nn.Parameter(torch.tensor(weights))
    optimizer = Adafactor([parameter], lr=0.03, weight_decay=weight_decay)
    for gradient, after in zip(gradients, expected, strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), after, rtol=0, atol=1e-12)
    state = optimizer.state[parameter]
    assert state["momentum"].dtype == torch.bfloat16
    np.testing.assert_array_equal(state["momentum"].double().numpy(), momentum)


def test_a_matrix_keeps_its_rows_and_columns_and_a_small_one_its_squares():
    large, small = nn.Parameter(torch.zeros(40, 64)), nn.Parameter(torch.zeros(31, 64))
    optimizer = Adafactor([large, small], lr=0.1)
    _step(optimizer, torch.Generator().manual_seed(0))
    shapes = [
        {name: tuple(value.shape) for name, value in optimizer.state[p].items() if name != "step"}
        for p in (large, small)
    ]
    assert shapes[0] == {"momentum": (40, 64), "rows": (40, 1), "columns": (1, 64)}
    assert shapes[1] == {"momentum": (31, 64), "squares": (31, 64)}


def test_the_decay_of_the_second_moment_is_capped():
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = Adafactor([parameter], lr=0.1)
    parameter.grad = torch.tensor([1.0, 2.0], dtype=torch.float64)
    optimizer.step()
    optimizer.state[parameter]["step"] = 100_000
    parameter.grad = torch.tensor([3.0, 0.0], dtype=torch.float64)
    optimizer.step()
    expected = torch.tensor([0.999 * 1 + 0.001 * 9, 0.999 * 4], dtype=torch.float64)
    torch.testing.assert_close(optimizer.state[parameter]["squares"], expected)


def test_what_has_no_gradient_or_a_gradient_of_zeros_stays():
    still, idle = nn.Parameter(torch.ones(40, 40)), nn.Parameter(torch.ones(40, 40))
    optimizer = Adafactor([still, idle], lr=0.1)
    still.grad = torch.zeros(40, 40)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(40, 40))
    assert torch.equal(idle.detach(), torch.ones(40, 40))
    assert set(optimizer.state) == {still}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_an_uninterrupted_one(dtype):
    optimizer, generator = _optimizer(dtype), torch.Generator().manual_seed(0)
    for _ in range(3):
        _step(optimizer, generator)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), [p.detach() for p in _parameters(optimizer)]), file)
    drawn = generator.get_state()
    for _ in range(3):
        _step(optimizer, generator)

    resumed = _optimizer(dtype)
    state, weights = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    with torch.no_grad():
        for parameter, weight in zip(_parameters(resumed), weights, strict=True):
            parameter.copy_(weight)
    resumed.load_state_dict(state)
    generator.set_state(drawn)
    for _ in range(3):
        _step(resumed, generator)
    for ours, theirs in zip(_parameters(resumed), _parameters(optimizer), strict=True):
        assert torch.equal(ours.detach(), theirs.detach())
    _assert_same(resumed.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_loaded_state_is_the_saved_one_and_a_copy(dtype):
    optimizer, generator = _optimizer(dtype), torch.Generator().manual_seed(0)
    _step(optimizer, generator)
    saved, loaded = optimizer.state_dict(), _optimizer(dtype)
    loaded.load_state_dict(saved)
    _assert_same(loaded.state_dict(), saved)
    before = {number: state["momentum"].clone() for number, state in saved["state"].items()}
    _step(loaded, generator)
    assert all(torch.equal(before[number], state["momentum"]) for number, state in saved["state"].items())


def _optimizer(dtype):
    torch.manual_seed(1)
    kernel, bias, unused = (nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in [(40, 33), (7,), (5,)])
    unused.requires_grad_(False)
    return Adafactor([{"params": [unused, kernel], "weight_decay": 0.1}, {"params": [bias]}], lr=0.02)


def _parameters(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _step(optimizer, generator):
    for parameter in _parameters(optimizer):
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    optimizer.step()


def _assert_same(ours, theirs):
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        assert ours["state"][number].keys() == state.keys()
        for name, value in state.items():
            mine = ours["state"][number][name]
            assert mine == value if name == "step" else (mine.dtype == value.dtype and torch.equal(mine, value))
