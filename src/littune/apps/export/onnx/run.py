"""A run as ONNX: ``text_tower.onnx`` and ``image_tower.onnx``, which end in unit rows of the shared space.

    text_tower.onnx     input_ids, attention_mask (int64, batch × length) → text_embeds
    image_tower.onnx    pixel_values (float32, batch × 3 × size × size, normalised) → image_embeds
    tokenizer.json      without padding and truncation
    settings.json       how texts are cut, how pictures are prepared, and the factor on the cosines

Where ``settings.json`` calls texts padded, all of them are as long as ``max_tokens``, and the mask is 1 everywhere.
Heads and the centre are part of the graphs. An image tower that is ONNX already is not written again.
"""

from pathlib import Path

from littune.apps.export.base import Exported, ExportOptions, image_tower_of
from littune.apps.export.onnx.graphs import Exportable, ImageGraph, TextGraph, to_graph, write_graph
from littune.apps.export.onnx.int8 import to_int8
from littune.apps.export.onnx.loading import code_for_run
from littune.apps.export.onnx.measure import loss_of_int8
from littune.base.files import write_bytes, write_json
from littune.model.lit import LiT
from littune.towers.image.tower import ImageTower
from littune.towers.text.tokenizer import plain_tokenizer


def to_onnx(model: LiT, out: Path, options: ExportOptions) -> Exported:
    """Write ``model`` into ``out``.

    Raises:
        InputError: a set to measure int8 on cannot be used.
        LittuneError: the image tower cannot be had now, torch cannot export a tower, or it is larger than a file holds.
    """
    model.lock_image()
    tower, reason = _torch_tower(model)
    notes = [_written(TextGraph(model), out / "text_tower.onnx", "the text tower", int8=options.int8)]
    if tower is None:
        notes.append(f"the image tower is left out: {reason}")
    else:
        notes.append(_written(ImageGraph(model), out / "image_tower.onnx", "the image tower", int8=options.int8))
    _write_tokenizer(model, out / "tokenizer.json")
    write_json(out / "settings.json", _settings(model, tower))
    if options.int8:
        notes += loss_of_int8(model, out, options.on, with_images=tower is not None)
    return Exported(
        how_to_load=code_for_run(with_image=tower is not None, padded=model.text.padded), notes=tuple(notes)
    )


def _torch_tower(model: LiT) -> tuple[ImageTower | None, str]:
    """The image tower, or why there is none to export."""
    tower, reason = image_tower_of(model)
    if tower is not None and tower.trunk.runtime != "torch":
        return None, f"{tower.spec} is ONNX already"
    return tower, reason


def _written(module: Exportable, path: Path, what: str, *, int8: bool) -> str:
    graph = to_graph(module, what)
    return f"{path.name}: {write_graph(to_int8(graph) if int8 else graph, path):.1f} MB"


def _write_tokenizer(model: LiT, path: Path) -> None:
    write_bytes(path, plain_tokenizer(model.text.tokenizer).to_str(pretty=True).encode())


def _settings(model: LiT, tower: ImageTower | None) -> dict[str, object]:
    return {
        "dim": model.dim,
        "text": {"max_tokens": model.text.max_tokens, "pad_id": model.text.pad_id, "padded": model.text.padded},
        "image": None if tower is None else tower.preprocess.to_dict(),
        "logit_scale": model.logit_scale,
        "logit_bias": None if model.bias is None else float(model.bias.detach()),
    }
