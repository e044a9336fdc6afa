"""The loss of a step, from the towers' outputs: over the whole global batch, or part by part (App. F)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from littune.base.distributed import ALONE, Ranks
from littune.base.errors import InputError
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.tuning.data.batches import Batch, Batches, Indices
from littune.tuning.loss.streamed import streamed_sigmoid_loss, streamed_softmax_loss
from littune.tuning.step import Loss


def objective_of(
    step: int, batches: Batches, model: LiT, config: TrainConfig, text_lengths: Indices, ranks: Ranks
) -> tuple[Indices, Indices, Loss]:
    """What this rank does in a step: its images, its texts, and the loss of the towers' outputs for them.

    Args:
        step: the step's number.
        batches: the global batches.
        model: what is trained.
        config: which loss, and over how many parts of a batch.
        text_lengths: the tokens of every text, (texts,), which share the texts out.
        ranks: among whom.
    """
    if config.loss_parts == 1:
        batch, images, texts = batches.at(step).shared(ranks, text_lengths)
        if min(len(batch.images), len(batch.texts)) < ranks.size:
            raise InputError(f"step {step + 1} has fewer images or texts than there are processes: take larger batches")
        return images, texts, _global_loss(model, batch.positives, ranks)
    parts = batches.parts(step, config.loss_parts)
    own = parts[ranks.share(len(parts))]
    images, texts = (np.unique(np.concatenate(side)) for side in ([p.images for p in own], [p.texts for p in own]))
    return images, texts, _loss_of_parts(model, own, images, texts, len(parts), ranks)


def _global_loss(model: LiT, positives: Int[Tensor, "p 2"], ranks: Ranks) -> Loss:
    def loss(images: Float[Tensor, "i image_dim"], texts: Float[Tensor, "t text_dim"]) -> Float[Tensor, ""]:
        return loss_of_rows(model, *model.factors(images.to(texts.device), texts), positives, ranks)

    return loss


def _loss_of_parts(
    model: LiT, parts: Sequence[Batch], images: Indices, texts: Indices, num_parts: int, ranks: Ranks
) -> Loss:
    """The mean over the parts; the value is that of all ranks, the gradients are those of this one's parts."""
    places = [
        (torch.from_numpy(np.searchsorted(images, p.images)), torch.from_numpy(np.searchsorted(texts, p.texts)))
        for p in parts
    ]

    def loss(image_outputs: Float[Tensor, "i image_dim"], text_outputs: Float[Tensor, "t text_dim"]) -> Tensor:
        device = text_outputs.device
        left, right = model.factors(image_outputs.to(device), text_outputs)
        losses = [
            loss_of_rows(model, left[of_images.to(device)], right[of_texts.to(device)], part.positives, ALONE)
            for part, (of_images, of_texts) in zip(parts, places, strict=True)
        ]
        own = torch.stack(losses).sum() / num_parts
        return own + (ranks.sum(own.detach()) - own.detach())

    return loss


def loss_of_rows(
    model: LiT, images: Float[Tensor, "i d"], texts: Float[Tensor, "t d"], positives: Int[Tensor, "p 2"], ranks: Ranks
) -> Float[Tensor, ""]:
    """The model's loss of rows whose products are the cosines."""
    positives = positives.to(texts.device)
    if model.bias is None:
        return streamed_softmax_loss(images, texts, positives, model.log_temperature, ranks=ranks)
    return streamed_sigmoid_loss(images, texts, positives, model.log_temperature, model.bias, ranks=ranks)
