"""Image-text pairs and labelled images, whatever they lie in."""

from littune.pairs.base import BadSample, LabelledImage, Pair, Part, Sample, Source
from littune.pairs.decode import DecodeError, decode, read_encoded
from littune.pairs.open import open_pairs
from littune.pairs.rows import iter_samples
from littune.pairs.texts import texts_from

__all__ = [
    "BadSample",
    "DecodeError",
    "LabelledImage",
    "Pair",
    "Part",
    "Sample",
    "Source",
    "decode",
    "iter_samples",
    "open_pairs",
    "read_encoded",
    "texts_from",
]
