"""The loss equals CLIP's where the pairs are one to one, and a slow, obvious loop everywhere."""

import math

import pytest
import torch
from torch.nn import functional as F

from littune.tuning.loss.losses import sigmoid_loss, softmax_loss


def _unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def _obvious(images, texts, mask, temperature):
    logits = temperature * images @ texts.T
    total = 0.0
    for rows, right in ((logits, mask), (logits.T, mask.T)):
        losses = [-row.log_softmax(0)[answers].mean() for row, answers in zip(rows, right, strict=True)]
        total += sum(losses) / len(losses) / 2
    return total


def test_one_to_one_pairs_give_clips_cross_entropy():
    images, texts = _unit(7, 5, 0), _unit(7, 5, 1)
    identity = torch.arange(7)
    loss = softmax_loss(images, texts, torch.stack([identity, identity], dim=1), torch.tensor(2.0, dtype=torch.float64))
    logits = math.exp(2.0) * images @ texts.T
    assert loss.item() == pytest.approx(
        (F.cross_entropy(logits, identity) + F.cross_entropy(logits.T, identity)).item() / 2, rel=1e-12
    )


@pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
def test_several_positives_equal_a_slow_loop_in_value_and_gradient(temperature):
    # Image 0 has three texts, text 3 two images.
    positives = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 3], [2, 3], [3, 4]])
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[positives[:, 0], positives[:, 1]] = True
    gradients = []
    for loss_of in (
        lambda images, texts, log: softmax_loss(images, texts, positives, log),
        lambda images, texts, log: _obvious(images, texts, mask, log.exp()),
    ):
        leaves = [_unit(4, 6, 0), _unit(5, 6, 1), torch.tensor(math.log(temperature), dtype=torch.float64)]
        loss = loss_of(*(leaf.requires_grad_() for leaf in leaves))
        loss.backward()
        gradients.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for mine, obvious in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, obvious, rtol=1e-11, atol=1e-12)


def test_order_of_images_texts_and_pairs_is_immaterial():
    images, texts, log = _unit(3, 4, 0), _unit(4, 4, 1), torch.tensor(1.0, dtype=torch.float64)
    positives = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 3]])
    i, t = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    moved = torch.stack([i.argsort()[positives[:, 0]], t.argsort()[positives[:, 1]]], dim=1).flip(0)
    assert softmax_loss(images[i], texts[t], moved, log).item() == pytest.approx(
        softmax_loss(images, texts, positives, log).item(), rel=1e-12
    )


def test_uniform_logits_cost_the_logarithm_of_the_numbers_to_choose_from():
    images, texts = torch.ones(3, 1), torch.ones(6, 1)
    positives = torch.tensor([[k % 3, k] for k in range(6)])
    loss = softmax_loss(images, texts, positives, torch.tensor(4.6))
    assert loss.item() == pytest.approx((math.log(6) + math.log(3)) / 2, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 10.0, 100.0])
def test_sigmoid_equals_a_slow_loop_in_value_and_gradient(temperature):
    positives = [(0, 0), (0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
    leaves = [_unit(4, 6, 0), _unit(5, 6, 1), torch.tensor(math.log(temperature)).double(), torch.tensor(-2.7).double()]

    def obvious(images, texts, log, bias):
        total = torch.zeros(())
        for i, image in enumerate(images):
            for t, text in enumerate(texts):
                logit = log.exp() * image @ text + bias
                total = total - (logit if (i, t) in positives else -logit).sigmoid().log()
        return total / len(images)

    gradients = []
    for loss_of in (
        lambda images, texts, log, bias: sigmoid_loss(images, texts, torch.tensor(positives), log, bias),
        obvious,
    ):
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        loss = loss_of(*own)
        loss.backward()
        gradients.append([loss.detach(), *(leaf.grad for leaf in own)])
    for mine, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, slow, rtol=1e-11, atol=1e-12)


def test_sigmoid_of_even_odds_costs_log_2_for_every_text():
    loss = sigmoid_loss(
        torch.ones(3, 2), torch.ones(5, 2), torch.tensor([[0, 4]]), torch.tensor(0.0), torch.tensor(-2.0)
    )
    assert loss.item() == pytest.approx(5 * math.log(2))


def test_sigmoid_stays_finite_where_every_answer_is_wrong_for_sure():
    images = torch.eye(2)
    wrong = torch.tensor([[0, 1], [1, 0]])
    loss = sigmoid_loss(images, images, wrong, torch.tensor(math.log(1000.0)), torch.tensor(-5.0))
    # A positive at -5, a negative at 995.
    assert loss.item() == pytest.approx(995 + math.log1p(math.exp(5)), rel=1e-6)
