"""A published checkpoint as a model: ``lit:PATH.npz[@VOCABULARY]`` (section 3.3: heads and temperature).

Nothing is subtracted from its images. Where only texts have a head, it maps into the image tower's own space.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from littune.base.errors import MismatchError
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.sources import load_image_tower
from littune.towers.lit.arrays import Entry, check_arrays, fill
from littune.towers.lit.heads import has_head, head_entries, num_outputs
from littune.towers.lit.npz import TEMPERATURE, Checkpoint, read_checkpoint
from littune.towers.lit.texts import TEXT
from littune.towers.lit.vit import IMAGE
from littune.towers.specs import parse_spec
from littune.towers.text.sources import load_text_tower


def load_published(run: str) -> LiT:
    """The model that ``lit:PATH.npz[@VOCABULARY]`` names, on the CPU.

    Raises:
        InputError: there is no such checkpoint or vocabulary, or they are not whole.
        MismatchError: its towers do not end in one space.
    """
    spec = parse_spec(run, kinds=("lit",), what="model")
    text = load_text_tower(run)
    tower = load_image_tower(f"lit:{spec.name}", precision="float32")
    checkpoint = read_checkpoint(Path(spec.name).expanduser(), f"{IMAGE}head/", f"{TEXT}head/", TEMPERATURE)
    out_dim = num_outputs(checkpoint, TEXT)
    heads = [head_entries(TEXT, text.dim, out_dim)]
    if has_head(checkpoint, IMAGE):
        heads.append(head_entries(IMAGE, tower.dim, num_outputs(checkpoint, IMAGE)))
    # Files of the small text towers may lack it.
    arrays = {f"{TEXT}head/bias": np.zeros(out_dim, np.float32)} | checkpoint.arrays
    temperature = Entry(TEMPERATURE, (1,), TEMPERATURE)
    check_arrays(arrays, [temperature, *(entry for entries in heads for entry in entries)], checkpoint.path)
    _check_space(checkpoint, image_dim=tower.dim if len(heads) == 1 else num_outputs(checkpoint, IMAGE))
    model = LiT(
        text=text,
        reference=ImageReference.of(tower),
        center=torch.zeros(tower.dim),
        heads="text" if len(heads) == 1 else "both",
        out_dim=out_dim,
    )
    for head, entries in zip((model.text_head, model.image_head), heads, strict=False):
        assert isinstance(head, nn.Linear)
        fill(head, arrays, entries)
    model.log_temperature.data.fill_(float(arrays[TEMPERATURE][0]))
    model.image_tower = tower
    return model


def _check_space(checkpoint: Checkpoint, *, image_dim: int) -> None:
    out_dim = num_outputs(checkpoint, TEXT)
    if out_dim != image_dim:
        raise MismatchError(f"{checkpoint.path} has {image_dim}-d images and {out_dim}-d texts; its towers must agree")
