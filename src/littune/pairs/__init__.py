"""Image-text pairs and labelled images, whatever they lie in."""

from littune.pairs.base import BadSample, LabelledImage, Pair, Part, Sample, Slice, Source
from littune.pairs.decode import DecodeError, decode, read_encoded
from littune.pairs.images import ImageIndex, index_images
from littune.pairs.open import open_pairs
from littune.pairs.rows import iter_samples
from littune.pairs.texts import texts_from

__all__ = [
    "BadSample",
    "DecodeError",
    "ImageIndex",
    "LabelledImage",
    "Pair",
    "Part",
    "Sample",
    "Slice",
    "Source",
    "decode",
    "index_images",
    "iter_samples",
    "open_pairs",
    "read_encoded",
    "texts_from",
]
