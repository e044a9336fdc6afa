"""The image towers of the paper's published checkpoints: ViTs in timm, with the GELU that they were trained with.

timm's own ViTs compute GELU exactly; these approximate it by tanh. Pictures are resized without keeping their aspect
ratio, and their pixels lie in -1…1 (App. C and D).
"""

from pathlib import Path

from littune.towers.image.from_timm import build_timm
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import Trunk
from littune.towers.lit.arrays import check_arrays, fill
from littune.towers.lit.heads import has_head, head_entries, num_outputs
from littune.towers.lit.npz import read_checkpoint
from littune.towers.lit.vit import IMAGE, ImageShape, image_entries, image_shape
from littune.towers.specs import Spec

ACTIVATION = "gelu_tanh"
_HALF = (0.5, 0.5, 0.5)


def load_lit(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load the image tower of ``lit:PATH.npz``, without its head; a vocabulary that is named too is not read.

    Raises:
        InputError: there is no such checkpoint, or its image tower is not whole.
    """
    checkpoint = read_checkpoint(Path(spec.name).expanduser(), IMAGE)
    shape = image_shape(checkpoint)
    entries = image_entries(shape)
    head = head_entries(IMAGE, shape.width, num_outputs(checkpoint, IMAGE)) if has_head(checkpoint, IMAGE) else []
    check_arrays(checkpoint.arrays, [*entries, *head], checkpoint.path)
    trunk = build_timm(_recipe(shape))
    fill(trunk.model, checkpoint.arrays, entries)
    return trunk, preprocess_of_lit(shape)


def preprocess_of_lit(shape: ImageShape) -> Preprocess:
    """How pictures are prepared for a published tower of this size."""
    return Preprocess(
        size=shape.side, resize=shape.side, fit="stretch", interpolation="bilinear", mean=_HALF, std=_HALF
    )


def _recipe(shape: ImageShape) -> dict[str, object]:
    """What timm builds; the name is the closest of its own."""
    options = {
        "img_size": shape.side,
        "patch_size": shape.patch,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.num_heads,
        "no_embed_class": not shape.class_position,
        "act_layer": ACTIVATION,
    }
    name = "vit_large_patch16_224" if shape.width == 1024 else "vit_base_patch16_224"
    return {"kind": "timm", "name": name, "num_classes": 0, "options": options}
