"""A fixed batch of training pairs, whose recall shows during training whether anything is learned."""

from dataclasses import dataclass

import numpy as np
import torch

from littune.model.lit import LiT
from littune.tuning.data.batches import Indices
from littune.tuning.setup import Setup
from littune.tuning.step import Side, outputs_in_order

_NUM_PAIRS = 256


@dataclass(frozen=True, kw_only=True)
class ProbeBatch:
    """So many images, each with one of its texts."""

    model: LiT
    sides: tuple[Side, Side]
    images: Indices
    texts: Indices

    @classmethod
    def drawn(cls, setup: Setup, *, seed: int) -> "ProbeBatch":
        """Draw it from a run's rows."""
        images, rows = np.unique(setup.corpus.row_image, return_index=True)
        chosen = np.random.default_rng([seed, 0]).permutation(len(images))[:_NUM_PAIRS]
        texts, firsts = np.unique(setup.corpus.row_text[rows[chosen]], return_index=True)
        return cls(model=setup.model, sides=(setup.images, setup.texts), images=images[chosen[firsts]], texts=texts)

    @torch.no_grad()
    def recall(self) -> float:
        """The share of texts whose own image is nearest among the batch's (ties count against)."""
        images, texts = (
            _outputs(side, numbers) for side, numbers in zip(self.sides, (self.images, self.texts), strict=True)
        )
        cosines = self.model.project_texts(texts) @ self.model.project_centered(images.to(texts.device)).T
        own = cosines.diagonal()[:, None]
        return float(((cosines >= own).sum(dim=1) == 1).float().mean())


def _outputs(side: Side, numbers: Indices) -> torch.Tensor:
    with side.planned(numbers, 0) as plan:
        return outputs_in_order(plan)
