"""An image tower alone as ``image_tower.onnx``, with the settings by which littune reads it back.

What it says is the torch tower's to rounding, so it takes over that tower's identity: stores of the two are one. The
record of it is bound to the file's contents; int8 weights are another tower's.
"""

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import torch

from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.onnx.graphs import TowerGraph, cosines, to_graph, write_graph
from littune.apps.export.onnx.int8 import to_int8
from littune.apps.export.onnx.loading import code_for_tower
from littune.apps.export.onnx.measure import UNMEASURED, exported_tower, spread
from littune.base.errors import InputError
from littune.pairs.base import Sample
from littune.pairs.decode import decode
from littune.pairs.open import open_pairs
from littune.towers.image.onnx_settings import OnnxSettings, Twin
from littune.towers.image.onnx_trunk import OnnxTrunk
from littune.towers.image.tower import ImageTower

_MANY = 200
_BATCH = 20


def tower_to_onnx(tower: ImageTower, out: Path, options: ExportOptions) -> Exported:
    """Write ``tower`` as ``image_tower.onnx`` (``pixel_values`` → ``image_embeds``, pooled, not of unit length).

    Where the tower pools by its class token or the mean, the tokens themselves are an output too (``image_tokens``), so
    that littune can pool them in any of these ways.

    Raises:
        InputError: the tower is ONNX already, or a set to measure int8 on cannot be read.
        LittuneError: torch cannot export it, or it is larger than a file holds.
    """
    if tower.trunk.runtime != "torch":
        raise InputError(f"image tower {tower.spec!r} is no torch tower; copy its files")
    module = TowerGraph(tower)
    graph = to_graph(module, f"image tower {tower.spec!r}")
    path = out / "image_tower.onnx"
    settings = OnnxSettings.of(
        tower.preprocess, output=module.outputs[-1], num_prefix_tokens=int(module.has_class_token)
    )
    notes = [f"{path.name}: {write_graph(to_int8(graph) if options.int8 else graph, path):.1f} MB"]
    if options.int8:
        exported = exported_tower(path, settings, tower.pooling)
        notes += [_loss_of_int8(tower, exported, name) for name in options.on] or [UNMEASURED]
        notes.append("int8 weights are another tower's: its stores do not go with those of the original")
    else:
        twin = Twin(weights=tower.identity.weights, graph=OnnxTrunk(path, settings).own_digest())
        settings = replace(settings, exported=twin)
    settings.save(path.with_suffix(".toml"))
    return Exported(how_to_load=code_for_tower(), notes=tuple(notes))


def _loss_of_int8(tower: ImageTower, exported: ImageTower, name: str) -> str:
    """How far the embeddings of some pictures of a set have moved."""
    samples = chain.from_iterable(part.samples() for part in open_pairs(name).parts())
    pictures = [decode(it.image) for it in islice((it for it in samples if isinstance(it, Sample)), _MANY)]
    if not pictures:
        raise InputError(f"{name} holds no pictures to measure int8 on")
    pixels = [
        torch.stack([tower.preprocess(it) for it in pictures[n : n + _BATCH]]) for n in range(0, len(pictures), _BATCH)
    ]
    rows = [torch.cat([it.encode(batch) for batch in pixels]).numpy() for it in (tower, exported)]
    return f"int8 on {name}: cosine of {len(pictures)} images {spread(cosines(*rows))}"
