"""The probe's recall by hand."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from littune.model.lit import LiT
from littune.tuning.run.probe import ProbeBatch
from littune.tuning.step import Plan


class _Model(LiT):
    def __init__(self):
        nn.Module.__init__(self)

    def project_texts(self, rows):
        return rows

    def project_centered(self, rows):
        return rows


class _Rows:
    def __init__(self, rows) -> None:
        self.rows = torch.tensor(rows)

    @contextmanager
    def planned(self, numbers, step):
        cuts = np.array_split(np.arange(len(numbers))[::-1], 2)  # in no order
        yield Plan(outputs=lambda: ((cut, self.rows[torch.from_numpy(numbers[cut])]) for cut in cuts))


def test_a_text_counts_where_its_own_image_alone_is_nearest():
    images = _Rows([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    texts = _Rows([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]])
    numbers = np.arange(3)
    # The first and the last image are the same: their texts' ties count against.
    assert ProbeBatch(model=_Model(), sides=(images, texts), images=numbers, texts=numbers).recall() == np.float32(
        1 / 3
    )
