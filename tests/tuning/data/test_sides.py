"""The sides: micro-batches within what a graph may take, and what is counted is what autograd keeps."""

import numpy as np
import pytest
import torch
from torch import nn

from littune.towers.text.sources import load_text_tower
from littune.tuning.data.sides import Table, TunedTexts, graph_bytes
from tests.tuning.conftest import captions


def test_what_a_graph_keeps_is_counted_without_weights_and_twice_used_tensors():
    layer = nn.Linear(10, 20, bias=False)
    inputs = torch.randn(7, 10)

    def run():
        hidden = layer(inputs)
        return hidden * hidden

    # Kept are the inputs and (once) what the layer gave; the product is the output.
    assert graph_bytes(layer, run) == 4 * (7 * 10 + 7 * 20 + 7 * 20)


def test_counting_leaves_a_batch_norm_as_it_was():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    before = module[1].running_mean.clone()
    graph_bytes(module, lambda: module(torch.randn(5, 3)))
    assert module.training and torch.equal(before, module[1].running_mean)


@pytest.mark.parametrize("budget", [1, 300_000, 10**9])
def test_texts_are_run_within_the_budget(tiny_text, budget):
    texts = [text for number in range(20) for text in captions(number)]
    tower = load_text_tower(tiny_text, max_tokens=16)
    tokens = tower.tokenize(texts)
    side = TunedTexts.fitted(tower, tokens, device=torch.device("cpu"), bfloat16=False, budget=budget)
    with side.planned(np.arange(len(texts)), 0) as plan:
        parts = list(plan.outputs())
        assert plan.two_passes == (budget < 10**9)
    assert sorted(np.concatenate([positions for positions, _ in parts])) == list(range(len(texts)))
    largest = max(len(positions) for positions, _ in parts)
    assert largest == 1 if budget == 1 else largest > 1
    if budget > 1:
        assert plan.graph_bytes <= budget


def test_a_table_is_asked_with_the_step():
    asked = []

    def rows(numbers, step):
        asked.append((numbers.tolist(), step))
        return torch.zeros(len(numbers), 2)

    with Table(rows).planned(np.array([3, 1]), 7) as plan:
        ((positions, outputs),) = plan.outputs()
    assert asked == [([3, 1], 7)] and positions.tolist() == [0, 1] and outputs.shape == (2, 2)
