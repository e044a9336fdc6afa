"""PixelImages: training images from their pixels, decoded and augmented in threads while the tower is busy.

What is drawn for an image follows from the seed, the step and the image's number alone: its pixels are the same in
whatever micro-batch and order it comes, in the first pass and in the second, and in a run that was resumed.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from littune.config import Augment
from littune.pairs.images import ImageIndex
from littune.store.ahead import map_ahead
from littune.towers.image.augment import augmented
from littune.towers.image.preprocess import Preprocess
from littune.tuning.data.batches import Indices


@dataclass(frozen=True, kw_only=True)
class PixelImages:
    """The pixels of the images of an index.

    Attributes:
        index: where the images lie.
        preprocess: the image tower's.
        augment: what part of a picture is seen.
        flip: whether every other picture is mirrored.
        seed: decides, with the step and the image's number, what is drawn.
        workers: threads that decode.
    """

    index: ImageIndex
    preprocess: Preprocess
    augment: Augment
    flip: bool
    seed: int
    workers: int

    def pixels(self, numbers: Indices, step: int) -> UInt8[Tensor, "n 3 size size"]:
        """The pixels of these images in this step.

        Raises:
            InputError: an image cannot be read or decoded.
        """
        (pixels,) = self.ahead([numbers], step)
        return pixels

    def ahead(self, cuts: Sequence[Indices], step: int) -> Iterator[UInt8[Tensor, "n 3 size size"]]:
        """The pixels of one cut after the other, as many images as the largest has being prepared meanwhile.

        Raises:
            InputError: an image cannot be read or decoded.
        """
        numbers = [(number, step) for cut in cuts for number in cut.tolist()]
        # The last image of the cut that was handed out counts as waiting until the next is asked for.
        ahead = 1 + max(map(len, cuts), default=0)
        with closing(map_ahead(self._view, numbers, workers=self.workers, ahead=ahead)) as views:
            for cut in cuts:
                yield self._stacked(islice(views, len(cut)), len(cut))

    def _view(self, image: tuple[int, int]) -> UInt8[Tensor, "3 size size"]:
        number, step = image
        random = np.random.default_rng([self.seed, step, number])
        picture = self.index.picture(number)
        return augmented(picture, self.preprocess, random, augment=self.augment, flip=self.flip)

    def _stacked(self, views: Iterator[Tensor], count: int) -> UInt8[Tensor, "n 3 size size"]:
        """One tensor, in the order that the pixels have in memory."""
        batch = np.empty((count, self.preprocess.size, self.preprocess.size, 3), np.uint8)
        for place, view in enumerate(views):
            batch[place] = view.permute(1, 2, 0).numpy()
        return torch.from_numpy(batch).permute(0, 3, 1, 2)
