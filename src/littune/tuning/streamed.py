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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from littune.base.distributed import ALONE, Ranks

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
        share = _share(images, texts, positives, log_temperature, ranks, max_cells)
        rows, columns, of_pairs = _log_sum_exps(share, ranks)
        weights = _weights(share, positives)
        own = 0.5 * rows.values().sum() / share.num_images - (weights * of_pairs).sum()
        loss = ranks.sum(own) + 0.5 * columns.values().mean()
        gradients = _Gradients(share, needed)
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
        share = _share(images, texts, positives, log_temperature, ranks, max_cells)
        gradients = _Gradients(share, needed)
        own = images.new_zeros((), dtype=torch.float64)
        for tile in share.tiles:
            products = share.products(tile)
            # Every logit costs softplus(logit); a positive counts with the other sign.
            logits = products + bias
            logits[tile.cells] = -logits[tile.cells]
            # Beyond the threshold softplus(x) is x, to float64's last digit.
            own += _total(F.softplus(logits, threshold=40)) / share.num_images
            if any(needed):
                slopes = logits.sigmoid_().div_(share.num_images)
                slopes[tile.cells] = -slopes[tile.cells]
                gradients.add(tile, slopes, products)
        loss = ranks.sum(own)
    return _with_gradients(loss, gradients.of_inputs(ranks), images, texts, log_temperature, bias)


# --- The tiles of a rank's share of the logits ---


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """Some rows and columns of the share's logits, and its positives that lie there.

    Attributes:
        rows: positions in the share's images.
        columns: positions in the share's texts.
        pairs: numbers of the share's pairs that lie in the tile.
        cells: where they lie, as an index of the tile.
    """

    rows: slice
    columns: slice
    pairs: Int[Tensor, " n"]
    cells: tuple[Int[Tensor, " n"], Int[Tensor, " n"]]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """A rank's share of the logits: its own images against the texts of all ranks.

    Attributes:
        images: its own.
        texts: all ranks' texts.
        own_texts: which of them are its own.
        num_images: all ranks' number of images.
        pairs: the positives of its own images; images count from its own first.
        temperature: the factor on the products.
        tiles: they cover the share.
    """

    images: Float[Tensor, "i d"]
    texts: Float[Tensor, "t d"]
    own_texts: slice
    num_images: int
    pairs: Int[Tensor, "q 2"]
    temperature: float
    tiles: list[_Tile]

    def products(self, tile: _Tile) -> Float[Tensor, "h w"]:
        """Temperature times cosine."""
        return (self.images[tile.rows] * self.temperature) @ self.texts[tile.columns].T


def _share(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
    ranks: Ranks,
    max_cells: int,
) -> _Share:
    assert images.dtype == texts.dtype and images.dtype in (torch.float32, torch.float64), "half precision errs by 0.05"
    counts = ranks.gather(torch.tensor([[len(images), len(texts)]], device=images.device))
    first_image, first_text = counts[: ranks.rank].sum(dim=0).tolist()
    all_texts = ranks.gather(texts)
    pairs = positives - positives.new_tensor([first_image, 0])
    pairs = pairs[(pairs[:, 0] >= 0) & (pairs[:, 0] < len(images))]
    return _Share(
        images=images,
        texts=all_texts,
        own_texts=slice(first_text, first_text + len(texts)),
        num_images=int(counts[:, 0].sum()),
        pairs=pairs,
        temperature=float(log_temperature.double().exp()),
        tiles=list(_tiles(len(images), len(all_texts), pairs, max_cells)),
    )


def _tiles(num_rows: int, num_columns: int, pairs: Int[Tensor, "q 2"], max_cells: int) -> Iterator[_Tile]:
    """Squares, where there are rows and columns enough."""
    if num_rows == 0:
        return
    height = min(num_rows, math.isqrt(max_cells))
    width = min(num_columns, max_cells // height)
    height = min(num_rows, max_cells // width)
    down, across = -(-num_rows // height), -(-num_columns // width)
    number = pairs[:, 0] // height * across + pairs[:, 1] // width
    cuts = torch.split(number.argsort(), torch.bincount(number, minlength=down * across).tolist())
    for number_of_tile, inside in enumerate(cuts):
        top, left = number_of_tile // across * height, number_of_tile % across * width
        row, column = (pairs[inside] - pairs.new_tensor([top, left])).unbind(dim=1)
        yield _Tile(
            rows=slice(top, min(top + height, num_rows)),
            columns=slice(left, min(left + width, num_columns)),
            pairs=inside,
            cells=(row, column),
        )


# --- The softmax loss's two passes ---


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


def _log_sum_exps(share: _Share, ranks: Ranks) -> tuple[_LogSumExps, _LogSumExps, Float64[Tensor, " q"]]:
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


def _weights(share: _Share, positives: Int[Tensor, "p 2"]) -> Float64[Tensor, " q"]:
    """What each of the share's pairs counts in the loss: its part of its image's target and of its text's."""
    image, text = share.pairs.unbind(dim=1)
    of_image = torch.bincount(image, minlength=len(share.images))[image] * share.num_images
    of_text = torch.bincount(positives[:, 1], minlength=len(share.texts))[text] * len(share.texts)
    return 0.5 / of_image.double() + 0.5 / of_text.double()


def _add_softmax_slopes(
    gradients: "_Gradients", share: _Share, rows: _LogSumExps, columns: _LogSumExps, weights: Float[Tensor, " q"]
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


# --- The gradients ---


def _needed(*inputs: Tensor) -> tuple[bool, ...]:
    return tuple(torch.is_grad_enabled() and one.requires_grad for one in inputs)


class _Gradients:
    """The loss's gradients of the inputs that need one, in their order, as the tiles add to them."""

    def __init__(self, share: _Share, needed: tuple[bool, ...]) -> None:
        self._share = share
        scalar = share.images.new_zeros((), dtype=torch.float64)
        inputs = (share.images, share.texts, scalar, scalar)
        self._sums = [torch.zeros_like(one) if need else None for one, need in zip(inputs, needed, strict=False)]

    def add(self, tile: _Tile, slopes: Float[Tensor, "h w"], products: Float[Tensor, "h w"]) -> None:
        """Add a tile's part, given the loss's gradients of its logits, which are used up."""
        share = self._share
        images, texts, log_temperature, *bias = self._sums
        if images is not None:
            images[tile.rows].addmm_(slopes, share.texts[tile.columns], alpha=share.temperature)
        if texts is not None:
            texts[tile.columns].addmm_(slopes.T, share.images[tile.rows], alpha=share.temperature)
        for one in bias:
            if one is not None:
                one += _total(slopes)
        if log_temperature is not None:
            log_temperature += _total(slopes.mul_(products))

    def of_inputs(self, ranks: Ranks) -> list[Tensor | None]:
        """The gradients; of the texts, the sum of all ranks' parts for this rank's own."""
        images, texts, *scalars = self._sums
        return [images, None if texts is None else ranks.sum(texts)[self._share.own_texts], *scalars]


def _total(numbers: Float[Tensor, "h w"]) -> Float64[Tensor, ""]:
    """The sum, in float64 from rows on."""
    return numbers.sum(dim=1).double().sum()


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
