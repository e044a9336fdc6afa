"""The tiles that streamed losses go over: a rank's share of the logits, cut so that a tile fits a CPU's caches."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from littune.base.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class Tile:
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
class Share:
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
    tiles: list[Tile]

    def products(self, tile: Tile) -> Float[Tensor, "h w"]:
        """Temperature times cosine."""
        return (self.images[tile.rows] * self.temperature) @ self.texts[tile.columns].T


def share_of(
    images: Float[Tensor, "i d"],
    texts: Float[Tensor, "t d"],
    positives: Int[Tensor, "p 2"],
    log_temperature: Float[Tensor, ""],
    ranks: Ranks,
    max_cells: int,
) -> Share:
    """This rank's share, in tiles of up to ``max_cells`` logits; the ranks gather their texts."""
    assert images.dtype == texts.dtype and images.dtype in (torch.float32, torch.float64), "half precision errs by 0.05"
    counts = ranks.gather(torch.tensor([[len(images), len(texts)]], device=images.device))
    first_image, first_text = counts[: ranks.rank].sum(dim=0).tolist()
    all_texts = ranks.gather(texts)
    pairs = positives - positives.new_tensor([first_image, 0])
    pairs = pairs[(pairs[:, 0] >= 0) & (pairs[:, 0] < len(images))]
    return Share(
        images=images,
        texts=all_texts,
        own_texts=slice(first_text, first_text + len(texts)),
        num_images=int(counts[:, 0].sum()),
        pairs=pairs,
        temperature=float(log_temperature.double().exp()),
        tiles=list(_tiles(len(images), len(all_texts), pairs, max_cells)),
    )


def _tiles(num_rows: int, num_columns: int, pairs: Int[Tensor, "q 2"], max_cells: int) -> Iterator[Tile]:
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
        yield Tile(
            rows=slice(top, min(top + height, num_rows)),
            columns=slice(left, min(left + width, num_columns)),
            pairs=inside,
            cells=(row, column),
        )


class Gradients:
    """The loss's gradients of the inputs that need one, in their order, as the tiles add to them."""

    def __init__(self, share: Share, needed: tuple[bool, ...]) -> None:
        self._share = share
        scalar = share.images.new_zeros((), dtype=torch.float64)
        inputs = (share.images, share.texts, scalar, scalar)
        self._sums = [torch.zeros_like(one) if need else None for one, need in zip(inputs, needed, strict=False)]

    def add(self, tile: Tile, slopes: Float[Tensor, "h w"], products: Float[Tensor, "h w"]) -> None:
        """Add a tile's part, given the loss's gradients of its logits, which are used up."""
        share = self._share
        images, texts, log_temperature, *bias = self._sums
        if images is not None:
            images[tile.rows].addmm_(slopes, share.texts[tile.columns], alpha=share.temperature)
        if texts is not None:
            texts[tile.columns].addmm_(slopes.T, share.images[tile.rows], alpha=share.temperature)
        for one in bias:
            if one is not None:
                one += total(slopes)
        if log_temperature is not None:
            log_temperature += total(slopes.mul_(products))

    def of_inputs(self, ranks: Ranks) -> list[Tensor | None]:
        """The gradients; of the texts, the sum of all ranks' parts for this rank's own."""
        images, texts, *scalars = self._sums
        return [images, None if texts is None else ranks.sum(texts)[self._share.own_texts], *scalars]


def total(numbers: Float[Tensor, "h w"]) -> Float64[Tensor, ""]:
    """The sum of numbers, in float64 from rows on."""
    return numbers.sum(dim=1).double().sum()
