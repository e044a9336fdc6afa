"""The losses of ``losses.py`` over tiles: a global batch of any size, and never its matrix of logits.

The logits are images × texts; they are made a tile at a time and forgotten. The softmax loss goes over them
twice: once for the log-sum-exp of every row and column, with running maxima, so that no temperature is too high;
once more for the gradients. The sigmoid loss needs no such sums and goes over them once. A loss is a scalar, so
its gradients are computed with it, and the backward pass only scales them. Only what needs a gradient costs a
product: locked images cost none.

With several ranks (appendix F: the batch is that of all devices) each holds some of the images and some of the
texts. It makes the rows of logits of its own images against everyone's texts, and adds its part to the gradients
of everyone's texts.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from littune.base.distributed import ALONE, Ranks
from littune.tuning.loss.tiles import Gradients, Share, share_of, total

# 1024 × 1024 float32 logits and their few companions fit the caches of a CPU.
MAX_CELLS = 2**20


def streamed_softmax_loss(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
    *,
    ranks: Ranks = ALONE,
    max_cells: int = MAX_CELLS,
) -> Float[Tensor, ""]:
    """``softmax_loss`` of the batch of all ranks, in tiles.

    Every rank calls it at the same time and gets the loss of the whole batch, the complete gradients of its own
    images and texts, and its part of the gradient of ``log_temperature``: the ranks' parts are to be summed, as
    those of all parameters are.

    Args:
        images: this rank's share of the batch's distinct images, float32 or float64, perhaps none.
        texts: this rank's share of the distinct texts, of the same dtype. Rows of any length: the products of
            images and texts are the cosines.
        positives: all ranks' distinct pairs (image, text) that belong together, the same on every rank; positions
            count through the ranks' shares, one rank after the other. Every image and every text is in one at least.
        log_temperature: the logarithm of the factor on the cosines, the same on every rank.
        ranks: who holds the other shares.
        max_cells: the most logits in a tile; a few tensors of that size are held at once.
    """
    needed = _needed(images, texts, log_temperature)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        share = share_of(images, texts, positives, log_temperature, ranks, max_cells)
        rows, columns, of_pairs = _log_sum_exps(share, ranks)
        weights = _weights(share, positives)
        own = 0.5 * rows.values().sum() / share.num_images - (weights * of_pairs).sum()
        loss = ranks.sum(own) + 0.5 * columns.values().mean()
        gradients = Gradients(share, needed)
        if any(needed):
            _add_softmax_slopes(gradients, share, rows, columns, weights.to(images.dtype))
    return _with_gradients(loss, gradients.of_inputs(ranks), images, texts, log_temperature)


def streamed_sigmoid_loss(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    ranks: Ranks = ALONE,
    max_cells: int = MAX_CELLS,
) -> Float[Tensor, ""]:
    """``sigmoid_loss`` of the batch of all ranks, in tiles.

    What a rank gives and gets is as in ``streamed_softmax_loss``; of ``bias``, too, it gets its part of the gradient.

    Args:
        images: this rank's share of the batch's distinct images, float32 or float64, perhaps none.
        texts: this rank's share of the distinct texts, of the same dtype; rows of any length.
        positives: all ranks' distinct pairs that belong together; an image or a text may be in none.
        log_temperature: the logarithm of the factor on the cosines, the same on every rank.
        bias: what is added to every logit, the same on every rank.
        ranks: who holds the other shares.
        max_cells: the most logits in a tile; a few tensors of that size are held at once.
    """
    needed = _needed(images, texts, log_temperature, bias)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        share = share_of(images, texts, positives, log_temperature, ranks, max_cells)
        gradients = Gradients(share, needed)
        own = images.new_zeros((), dtype=torch.float64)
        for tile in share.tiles:
            products = share.products(tile)
            # Every logit costs softplus(logit); a positive counts with the other sign.
            logits = products + bias
            logits[tile.cells] = -logits[tile.cells]
            # Beyond the threshold softplus(x) is x, to float64's last digit.
            own += total(F.softplus(logits, threshold=40)) / share.num_images
            if any(needed):
                slopes = logits.sigmoid_().div_(share.num_images)
                slopes[tile.cells] = -slopes[tile.cells]
                gradients.add(tile, slopes, products)
        loss = ranks.sum(own)
    return _with_gradients(loss, gradients.of_inputs(ranks), images, texts, log_temperature, bias)


class _LogSumExps:
    """The log-sum-exp of every row: the greatest logit so far, and the sum of exp(logit - greatest)."""

    def __init__(self, num_rows: int, like: Tensor) -> None:
        self.maxima = like.new_full((num_rows,), -math.inf)
        self.sums = like.new_zeros(num_rows, dtype=torch.float64)

    def add(self, rows: slice, logits: Float[Tensor, "h w"]) -> None:
        """Go on with further logits of some rows."""
        maxima = torch.maximum(self.maxima[rows], logits.amax(dim=1))
        self._move(rows, maxima)
        self.sums[rows] += (logits - maxima[:, None]).exp_().sum(dim=1)

    def combine(self, ranks: Ranks) -> None:
        """Go on with what the other ranks have seen of the same rows."""
        self._move(slice(None), ranks.max(self.maxima))
        self.sums = ranks.sum(self.sums)

    def _move(self, rows: slice, maxima: Float[Tensor, " h"]) -> None:
        self.sums[rows] *= (self.maxima[rows] - maxima).double().exp()
        self.maxima[rows] = maxima

    def values(self) -> Float64[Tensor, " n"]:
        """The log-sum-exps."""
        return self.maxima.double() + self.sums.log()


def _log_sum_exps(share: Share, ranks: Ranks) -> tuple[_LogSumExps, _LogSumExps, Float64[Tensor, " q"]]:
    """Those of the share's rows, those of the whole columns, and the logits of the share's pairs."""
    rows, columns = _LogSumExps(len(share.images), share.images), _LogSumExps(len(share.texts), share.images)
    of_pairs = share.images.new_zeros(len(share.pairs), dtype=torch.float64)
    for tile in share.tiles:
        logits = share.products(tile)
        rows.add(tile.rows, logits)
        columns.add(tile.columns, logits.T)
        of_pairs[tile.pairs] = logits[tile.cells].double()
    columns.combine(ranks)
    return rows, columns, of_pairs


def _weights(share: Share, positives: Int[Tensor, "p 2"]) -> Float64[Tensor, " q"]:
    """What each of the share's pairs counts in the loss: its part of its image's target and of its text's."""
    image, text = share.pairs.unbind(dim=1)
    of_image = torch.bincount(image, minlength=len(share.images))[image] * share.num_images
    of_text = torch.bincount(positives[:, 1], minlength=len(share.texts))[text] * len(share.texts)
    return 0.5 / of_image.double() + 0.5 / of_text.double()


def _add_softmax_slopes(
    gradients: Gradients, share: Share, rows: _LogSumExps, columns: _LogSumExps, weights: Float[Tensor, " q"]
) -> None:
    # exp(logit - maximum) / sum, and not exp(logit - log-sum-exp): rounding the latter would shift a whole row.
    row_factors = (0.5 / share.num_images / rows.sums).to(weights.dtype)
    column_factors = (0.5 / len(share.texts) / columns.sums).to(weights.dtype)
    for tile in share.tiles:
        logits = share.products(tile)
        slopes = (logits - rows.maxima[tile.rows, None]).exp_().mul_(row_factors[tile.rows, None])
        slopes.addcmul_((logits - columns.maxima[tile.columns]).exp_(), column_factors[tile.columns])
        # Before the products: of a learned batch, what is left is far smaller than either.
        slopes[tile.cells] -= weights[tile.pairs]
        gradients.add(tile, slopes, logits)


def _needed(*inputs: Tensor) -> tuple[bool, ...]:
    return tuple(torch.is_grad_enabled() and one.requires_grad for one in inputs)


class _Known(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return loss.to(inputs[0].dtype, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        # Autograd gives each the dtype of its input.
        return None, None, *(None if one is None else one * factor for one in ctx.saved_tensors)


def _with_gradients(loss: Float64[Tensor, ""], gradients: list[Tensor | None], *inputs: Tensor) -> Float[Tensor, ""]:
    attached: Tensor = _Known.apply(loss, gradients, *inputs)
    return attached
