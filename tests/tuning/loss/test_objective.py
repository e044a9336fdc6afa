"""The loss of a step: folded heads, parts of a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from littune.base.distributed import ALONE
from littune.config import TrainConfig
from littune.tuning.loss.losses import sigmoid_loss, softmax_loss
from littune.tuning.loss.objective import objective_of
from littune.tuning.setup import Setup, set_up
from tests.tuning.conftest import MakeStore


def setup_of(make_store: MakeStore, text: str, out: Path, **changes: object) -> tuple[TrainConfig, Setup]:
    config = TrainConfig(store=(str(make_store("a").path),), out=out, text=text, batch_size=24, **changes)
    return config, set_up(config, ALONE)


def outputs(setup: Setup, images: np.ndarray, texts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = setup.tokens.batch(torch.from_numpy(texts))
    with torch.no_grad():
        return setup.images.rows(images, 0), setup.model.text(ids, mask)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_loss_is_the_mean_of_the_parts_plain_losses(
    loss: str, parts: int, make_store: MakeStore, tiny_text: str, tmp_path: Path
) -> None:
    config, setup = setup_of(make_store, tiny_text, tmp_path / "run", loss=loss, loss_parts=parts)
    model, lengths = setup.model, setup.tokens.lengths.numpy()
    images, texts, loss_of = objective_of(2, setup.batches, model, config, lengths, ALONE)
    value = loss_of(*outputs(setup, images, texts))
    value.backward()
    gradient = model.text_head.weight.grad.clone()
    model.zero_grad()
    expected = []
    for batch in setup.batches.parts(2, parts):
        embeddings, pooled = outputs(setup, batch.images, batch.texts)
        rows = model.project_centered(embeddings), model.project_texts(pooled), batch.positives, model.log_temperature
        expected.append(softmax_loss(*rows) if loss == "softmax" else sigmoid_loss(*rows, model.bias))
    mean = torch.stack(expected).mean()
    mean.backward()
    assert value.item() == pytest.approx(mean.item(), rel=1e-5)
    torch.testing.assert_close(gradient, model.text_head.weight.grad, rtol=1e-4, atol=1e-7)
