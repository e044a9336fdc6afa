"""Near-duplicates: images of an evaluation set that a training store holds too, whole or nearly so.

They are found by the image tower's own embeddings, so a store whose images are gone can be searched, too. A picture
in grey, or cut to half of its area, mostly stays unseen: what is found is a lower bound.
"""

import numpy as np
from jaxtyping import Float, Float32

from littune.evaluation.metrics.blocks import blocks
from littune.store.store import EmbeddingStore

THRESHOLD = 0.8
"""The centred cosine from which two images count as nearly the same.

Measured with EfficientNet-Lite0. Of 1,000 photographs of Flickr8k two reach 0.8, one scene shot twice; the next pair,
at 0.78, is of two motorcycles. Of 62 of them, changed, this share is still found: mirrored, scaled to 75 % or
stretched by 15 % 100 %, 30 % brighter 98 %, a crop of 90 % of each side 95 %, JPEG quality 50 94 %, turned by 5° 92 %,
scaled to 50 % 73 %, a crop of 80 % 68 %, JPEG quality 20 58 %, a crop of 70 % 29 %, in grey 16 %. The blurred pictures
of CIFAR-10 lie closer together: from 0.84 most pairs are the same picture, at 0.8 about half.
"""

_BLOCK = 8192
_COSINES_IN_A_BLOCK = 1 << 24


def find_duplicates(
    images: Float[np.ndarray, "n d"], seen: EmbeddingStore, *, threshold: float = THRESHOLD
) -> list[tuple[int, int, float]]:
    """The nearest image of a training store for each image that has one at or above the threshold.

    Both are centred on the mean of the training store: raw embeddings of one tower all point much the same way. The
    store is read in blocks, twice; beside ``images`` memory is O(block). Augmented views are left out.

    Args:
        images: raw embeddings of an evaluation set.
        seen: a training store of the same tower.
        threshold: the lowest cosine that counts.

    Returns:
        (row of ``images``, row of the store, cosine), in the order of ``images``; the first of several that are
        equally near.
    """
    best, nearest = np.full(len(images), -np.inf, np.float32), np.zeros(len(images), np.int64)
    center = _mean(seen)
    asked, start = _directions(images, center), 0
    for block in seen.iter_embeddings(_BLOCK):
        known = _directions(block, center)
        for rows in blocks(len(asked), len(known), _COSINES_IN_A_BLOCK):
            cosines = asked[rows] @ known.T
            places = cosines.argmax(axis=1)
            found = np.take_along_axis(cosines, places[:, None], axis=1)[:, 0]
            nearest[rows] = np.where(found > best[rows], start + places, nearest[rows])
            best[rows] = np.maximum(found, best[rows])
        start += len(known)
    return [(int(row), int(nearest[row]), float(best[row])) for row in np.flatnonzero(best >= threshold)]


def _mean(store: EmbeddingStore) -> Float32[np.ndarray, " d"]:
    total = np.zeros(store.dim)
    for block in store.iter_embeddings(_BLOCK):
        total += block.sum(axis=0, dtype=np.float64)
    return (total / max(1, store.num_rows)).astype(np.float32)


def _directions(rows: Float[np.ndarray, "n d"], center: Float32[np.ndarray, " d"]) -> Float32[np.ndarray, "n d"]:
    """Centred and of unit length; a row at the centre is 0, which is near to nothing."""
    moved = rows.astype(np.float32) - center
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    directions: np.ndarray = moved / np.where(lengths > 0, lengths, 1)
    return directions
