"""The streamed losses equal the plain ones, value and every gradient, in tiles of any size and on several ranks."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tuning.loss.drawn_losses import KINDS, LOSSES, Drawn, draw, plain, streamed, value_and_gradients
from tests.tuning.loss.ranked_losses import CASES, share_of

RANKED = Path(__file__).with_name("ranked_losses.py")
NAMES = ("value", "images", "texts", "log temperature", "bias")

# Rows and columns cut short, whole rows, everything at once.
TILES = (10, 70, 300, 2**20)

every_loss = pytest.mark.parametrize("loss", LOSSES)


def _natural_scales(drawn: Drawn, loss: str) -> list[Tensor]:
    """What each result would be if nothing cancelled: absolute values all through, in results' order."""
    images, texts, mask = drawn.images, drawn.texts, drawn.mask.double()
    temperature = drawn.log_temperature.exp()
    logits, greatest = temperature * images @ texts.T, temperature * images.abs() @ texts.abs().T
    if loss == "softmax":
        of_image, of_text = mask.sum(dim=1, keepdim=True), mask.sum(dim=0)
        slopes = (logits.softmax(1) + mask / of_image) / len(images) + (logits.softmax(0) + mask / of_text) / len(texts)
        value = (slopes * greatest).sum()
    else:
        wrong = (logits + drawn.bias) * (1 - 2 * mask)
        slopes = wrong.sigmoid() / len(images)
        value = F.softplus(wrong).sum() / len(images) + (slopes * greatest).sum()
    of_images, of_texts = temperature * slopes @ texts.abs(), temperature * slopes.T @ images.abs()
    return [value, of_images, of_texts, (slopes * greatest).sum(), slopes.sum()]


def _errors(results: list[Tensor], truth: list[Tensor]) -> list[float]:
    return [float((mine.double() - true).norm()) for mine, true in zip(results, truth, strict=True)]


@every_loss
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
def test_float64_equals_plain_to_1e_10(loss, kind, temperature):
    for seed, max_cells in enumerate(TILES * 2):
        drawn = draw(kind, temperature, seed)
        inputs, positives = drawn.inputs(loss), drawn.positives
        truth = value_and_gradients(plain(loss, positives), inputs)
        errors = _errors(value_and_gradients(streamed(loss, positives, max_cells), inputs), truth)
        for name, error, true, scale in zip(NAMES, errors, truth, _natural_scales(drawn, loss), strict=False):
            assert error <= 1e-10 * true.norm() + 1e-13 * scale.norm(), (name, seed)


@every_loss
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
def test_float32_equals_the_truth_to_1e_5_or_as_well_as_plain(loss, kind, temperature):
    for seed, max_cells in enumerate(TILES * 2):
        drawn = draw(kind, temperature, seed)
        inputs, positives = drawn.inputs(loss), drawn.positives
        rounded = [one.float() for one in inputs]
        # Of the rounded logarithm: at temperature 100 its last digit alone moves a logit by 1e-5.
        truth = value_and_gradients(plain(loss, positives), [one.double() for one in rounded])
        errors = _errors(value_and_gradients(streamed(loss, positives, max_cells), rounded), truth)
        of_plain = _errors(value_and_gradients(plain(loss, positives), rounded), truth)
        for name, error, other, true, scale in zip(
            NAMES, errors, of_plain, truth, _natural_scales(drawn, loss), strict=False
        ):
            bound = 1e-5 * true.norm() + 1e-6 * scale.norm()
            # Numbers that float32 cannot hold are 0.
            assert error <= max(bound, 2 * other) + 1e-37, (name, seed, float(bound), other)


@every_loss
def test_answers_in_all_tiles_and_in_any_order_and_tiles_of_a_single_cell(loss):
    # Image 0 owns all the texts, text 0 all the images.
    drawn = draw("any", 10.0, 3)
    drawn.mask[0] = True
    drawn.mask[:, 0] = True
    truth = value_and_gradients(plain(loss, drawn.positives), drawn.inputs(loss))
    for max_cells in (1, *TILES):
        order = torch.randperm(len(drawn.positives), generator=torch.Generator().manual_seed(max_cells))
        mine = value_and_gradients(streamed(loss, drawn.positives[order], max_cells), drawn.inputs(loss))
        for one, true in zip(mine, truth, strict=True):
            torch.testing.assert_close(one, true, rtol=1e-12, atol=1e-14)


def test_a_learned_batch_at_temperature_100_leaves_no_softmax_gradient_in_float32():
    images = torch.eye(30)
    positives = torch.arange(30)[:, None].expand(30, 2)
    inputs = [images, images, torch.tensor(100.0).log()]
    value, *gradients = value_and_gradients(streamed("softmax", positives, 100), inputs)
    assert abs(value) < 1e-12
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


@pytest.mark.parametrize("logit", [-600.0, -41.0, -39.0, -21.0, 0.0, 21.0, 600.0])
def test_a_single_answer_costs_what_its_logit_says_to_float64s_last_digit(logit):
    one = torch.ones(1, 1, dtype=torch.float64)
    value = streamed("sigmoid", torch.tensor([[0, 0]]), 1)(one, one, torch.tensor(0.0), torch.tensor(logit - 1))
    assert value.item() == pytest.approx(math.log1p(math.exp(-logit)), rel=1e-14)


class _Watch(TorchDispatchMode):
    """The size of the largest tensor made, in numbers, and how many matrix products were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor):
                self.largest = max(self.largest, one.numel())
        self.products += func.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        return result


def _wide(loss: str) -> tuple[list[Tensor], Tensor]:
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, 4, generator=random) for n in (90, 120)]
    positives = torch.stack([torch.arange(120) % 90, torch.arange(120)], dim=1)
    scalars = [torch.tensor(1.0), torch.tensor(-3.0)]
    return [*inputs, *(scalars if loss == "sigmoid" else scalars[:1])], positives


@every_loss
def test_no_tensor_is_larger_than_a_tile_or_the_inputs(loss):
    inputs, positives = _wide(loss)
    with _Watch() as watch:
        value_and_gradients(streamed(loss, positives, 500), inputs)
    assert watch.largest <= 500
    with _Watch() as watch:
        value_and_gradients(plain(loss, positives), inputs)
    assert watch.largest >= 90 * 120


@every_loss
@pytest.mark.parametrize("needed", [(), (1,), (0, 1), (2,)])
def test_only_what_needs_a_gradient_costs_a_product(loss, needed):
    inputs, positives = _wide(loss)
    of_inputs = streamed(loss, positives, 2**20)
    expected = value_and_gradients(of_inputs, inputs)
    leaves = [one.clone().requires_grad_(number in needed) for number, one in enumerate(inputs)]
    with _Watch() as watch:
        value = of_inputs(*leaves)
        if needed:
            value.backward()
    assert value.requires_grad == bool(needed)
    passes = 2 if loss == "softmax" and needed else 1
    assert watch.products == passes + len(set(needed) & {0, 1})
    torch.testing.assert_close(value, expected[0])
    for number, leaf in enumerate(leaves):
        if number in needed:
            torch.testing.assert_close(leaf.grad, expected[number + 1])
        else:
            assert leaf.grad is None


@every_loss
def test_without_gradients_only_the_value_is_computed(loss):
    inputs, positives = _wide(loss)
    leaves = [one.clone().requires_grad_() for one in inputs]
    with torch.no_grad(), _Watch() as watch:
        value = streamed(loss, positives, 2**20)(*leaves)
    assert not value.requires_grad
    assert watch.products == 1
    torch.testing.assert_close(value, plain(loss, positives)(*inputs))


@every_loss
def test_gradients_are_scaled_by_what_the_loss_is_multiplied_with(loss):
    inputs, positives = _wide(loss)
    of_inputs = streamed(loss, positives, 500)
    _, *once = value_and_gradients(of_inputs, inputs)
    _, *thrice = value_and_gradients(lambda *leaves: 3 * of_inputs(*leaves), inputs)
    for one, three in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * one, three)


@every_loss
def test_autocast_does_not_reach_the_products(loss):
    inputs, positives = _wide(loss)
    of_inputs = streamed(loss, positives, 500)
    expected = value_and_gradients(of_inputs, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = value_and_gradients(of_inputs, inputs)
    assert all(torch.equal(mine, one) for mine, one in zip(cast, expected, strict=True))


@every_loss
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_embedding_is_seen_in_the_value(loss, bad):
    inputs, positives = _wide(loss)
    inputs[1][17, 2] = bad
    assert not streamed(loss, positives, 500)(*inputs).isfinite()


def test_two_ranks_equal_one_process(tmp_path):
    outs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([sys.executable, RANKED, str(rank), "2", tmp_path / "meeting", out], env=environment)
        for rank, out in enumerate(outs)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    of_ranks = zip(*(torch.load(out) for out in outs), strict=True)
    for seed, (case, of_rank) in enumerate(zip(CASES, of_ranks, strict=True)):
        loss, kind, temperature, shares = case
        drawn = draw(kind, temperature, seed)
        value, *gradients = value_and_gradients(plain(loss, drawn.positives), drawn.inputs(loss))
        _, *scales = _natural_scales(drawn, loss)
        assert all(abs(mine[0] - value) <= 1e-10 * abs(value) for mine in of_rank), case
        for place, (true, scale) in enumerate(zip(gradients, scales, strict=False), start=1):
            parts = [mine[place] for mine in of_rank]
            if place <= 2:
                assert [len(part) for part in parts] == [
                    len(true[share_of(len(true), shares[place - 1], rank)]) for rank in range(2)
                ]
            # A rank's own rows are complete; of a parameter it has its part.
            whole = torch.cat(parts) if place <= 2 else torch.stack(parts).sum()
            assert (whole - true).norm() <= 1e-10 * true.norm() + 1e-13 * scale.norm(), (case, NAMES[place])
