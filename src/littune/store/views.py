"""Views: augmented pictures of an image, embedded beside the plain one.

What is drawn for a view follows from the seed, the view's number and the image's part and key alone, so it does not
depend on batches, threads, ranks or where the work was taken up again. The paper augments as it trains (App. D).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from littune.base.errors import InputError
from littune.config import Augment
from littune.pairs.base import Sample
from littune.towers.image.augment import augmented
from littune.towers.image.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many views of each image there are, and how they are drawn."""

    num: int
    augment: Augment
    flip: bool
    seed: int

    def __post_init__(self) -> None:
        if self.num < 1:
            raise InputError(f"views is {self.num}; it must be 0 or more")
        if not self.flip and self.augment != "inception" and (self.augment == "none" or self.num > 1):
            raise InputError(
                f"views: {self.num} with augment {self.augment} and without flip would repeat one picture; "
                "choose augment inception, or flip"
            )

    def __str__(self) -> str:
        flip = ", flip" if self.flip else ""
        return f"{self.num} ({self.augment}{flip}, seed {self.seed})"

    def of(
        self, picture: Image.Image, sample: Sample, preprocess: Preprocess
    ) -> tuple[UInt8[Tensor, "3 size size"], ...]:
        """The pixels of the views of a sample's picture."""
        return tuple(
            augmented(picture, preprocess, self._random(sample, view), augment=self.augment, flip=self.flip)
            for view in range(1, self.num + 1)
        )

    def _random(self, sample: Sample, view: int) -> np.random.Generator:
        mark = f"{self.seed}\0{view}\0{sample.source}\0{sample.key}".encode("utf-8", "surrogatepass")
        return np.random.default_rng(int.from_bytes(hashlib.sha256(mark).digest()))


def views_of(num: int, augment: Augment, *, flip: bool, seed: int) -> Views | None:
    """The views that are asked for; None for none.

    Raises:
        InputError: they would be all the same, or are none and yet are to be augmented.
    """
    if num == 0 and (augment != "none" or flip):
        raise InputError(f"{'flip' if flip else f'augment {augment}'} goes with views: say how many there shall be")
    return Views(num=num, augment=augment, flip=flip, seed=seed) if num else None
