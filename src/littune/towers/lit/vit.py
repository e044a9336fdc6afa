"""The names of the Vision Transformer release: blocks of both generations, and the image tower around them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from littune.base.errors import InputError
from littune.towers.lit.arrays import Entry, dense_entries, norm_entries
from littune.towers.lit.npz import Checkpoint

IMAGE = "img/"

Generation = Literal["new", "old"]


@dataclass(frozen=True, slots=True)
class _Names:
    """What the parts of a block are called; the first norm is ``LayerNorm_0`` in both."""

    attention: str
    second_norm: str
    mlp: str


# Flax once numbered all layers of a block together, later those of a kind.
_NAMES: dict[Generation, _Names] = {
    "new": _Names("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
    "old": _Names("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
}

# The parts of a block in timm.
_TIMM_BLOCK = {
    "norm1": "norm1",
    "query": "attn.qkv",
    "key": "attn.qkv",
    "value": "attn.qkv",
    "out": "attn.proj",
    "norm2": "norm2",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShape:
    """The size of an image tower, and which of their two ways its file names and keeps things."""

    width: int
    depth: int
    num_heads: int
    patch: int
    grid: int
    """Patches along a side of the picture."""
    class_position: bool
    """Whether the class token has a position of its own; in newer files that is added to the token already."""
    generation: Generation = "new"

    @property
    def side(self) -> int:
        """The side of the picture that is seen, in pixels."""
        return self.patch * self.grid


def generation_of(names: frozenset[str], prefix: str) -> Generation:
    """The generation of the blocks under ``prefix``."""
    old = f"{prefix}encoderblock_0/{_NAMES['old'].attention}/"
    return "old" if any(name.startswith(old) for name in names) else "new"


def num_heads_of(checkpoint: Checkpoint, prefix: str) -> int:
    """The attention heads of the blocks under ``prefix``.

    Raises:
        InputError: the first block's queries are missing, or of another shape than width, heads, head's width.
    """
    names = _NAMES[generation_of(checkpoint.names, prefix)]
    return checkpoint.shape(f"{prefix}encoderblock_0/{names.attention}/query/kernel", 3)[1]


def block_entries(
    name: str, tensor: str, parts: Mapping[str, str], *, width: int, num_heads: int, generation: Generation
) -> list[Entry]:
    """A block's arrays.

    Args:
        name: the block in the file.
        tensor: the block in torch.
        parts: what torch calls its parts, by timm's own plain names (``_TIMM_BLOCK``).
        width: channels of a token.
        num_heads: attention heads.
        generation: how the file names its parts.
    """
    names = _NAMES[generation]
    heads = (num_heads, width // num_heads)
    places = {part: f"{tensor}.{place}" for part, place in parts.items()}
    attention, mlp = f"{name}/{names.attention}", f"{name}/{names.mlp}"
    return [
        *norm_entries(f"{name}/LayerNorm_0", places["norm1"], width),
        *(
            entry
            for part in ("query", "key", "value")
            for entry in dense_entries(f"{attention}/{part}", places[part], (width,), heads)
        ),
        *dense_entries(f"{attention}/out", places["out"], heads, (width,)),
        *norm_entries(f"{name}/{names.second_norm}", places["norm2"], width),
        *dense_entries(f"{mlp}/Dense_0", places["mlp_in"], (width,), (4 * width,)),
        *dense_entries(f"{mlp}/Dense_1", places["mlp_out"], (4 * width,), (width,)),
    ]


def image_shape(checkpoint: Checkpoint) -> ImageShape:
    """The size of a checkpoint's image tower.

    Raises:
        InputError: it has none, or one that is no ViT of square patches on a square grid.
    """
    high, wide, channels, width = checkpoint.shape(f"{IMAGE}embedding/kernel", 4)
    positions = checkpoint.shape(f"{IMAGE}Transformer/posembed_input/pos_embedding", 3)[1]
    grid = math.isqrt(positions)
    if high != wide or channels != 3 or positions not in (grid**2, grid**2 + 1):
        raise InputError(
            f"{checkpoint.path} has an image tower of {high}x{wide} patches of {channels} channels and {positions} "
            "positions; littune reads square patches of RGB pictures on a square grid"
        )
    prefix = f"{IMAGE}Transformer/"
    return ImageShape(
        width=width,
        depth=checkpoint.count(f"{prefix}encoderblock_"),
        num_heads=num_heads_of(checkpoint, prefix),
        patch=high,
        grid=grid,
        class_position=positions != grid**2,
        generation=image_generation(checkpoint),
    )


def image_generation(checkpoint: Checkpoint) -> Generation:
    """How the blocks of a checkpoint's image tower are named."""
    return generation_of(checkpoint.names, f"{IMAGE}Transformer/")


def image_entries(shape: ImageShape) -> list[Entry]:
    """The arrays of an image tower without its head, and their places in timm's ViT."""
    width, patch, positions = shape.width, shape.patch, shape.grid**2 + shape.class_position
    blocks = [
        block_entries(
            f"{IMAGE}Transformer/encoderblock_{index}",
            f"blocks.{index}",
            _TIMM_BLOCK,
            width=width,
            num_heads=shape.num_heads,
            generation=shape.generation,
        )
        for index in range(shape.depth)
    ]
    return [
        Entry(f"{IMAGE}embedding/kernel", (patch, patch, 3, width), "patch_embed.proj.weight", "convolution"),
        Entry(f"{IMAGE}embedding/bias", (width,), "patch_embed.proj.bias"),
        Entry(f"{IMAGE}cls", (1, 1, width), "cls_token"),
        Entry(f"{IMAGE}Transformer/posembed_input/pos_embedding", (1, positions, width), "pos_embed"),
        *(entry for block in blocks for entry in block),
        *norm_entries(f"{IMAGE}Transformer/encoder_norm", "norm", width),
    ]
