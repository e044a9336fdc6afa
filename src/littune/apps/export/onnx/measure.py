"""What int8 costs: recall and accuracy of the exported files beside the model's own, on sets that the user has."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.apps.export.base import image_tower_of
from littune.apps.export.onnx.graphs import cosines, session_of
from littune.base.errors import LittuneError
from littune.config import read_toml
from littune.evaluation.evaluation import evaluate
from littune.evaluation.results import DIRECTIONS, Result
from littune.evaluation.sets.registry import split_known
from littune.evaluation.sets.stores import project
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.store.store import EmbeddingStore, is_store
from littune.towers.image.onnx_settings import OnnxSettings
from littune.towers.image.onnx_trunk import OnnxTrunk
from littune.towers.image.tower import ImageTower
from littune.towers.text.tokenizer import Tokens, micro_batches
from littune.towers.text.tower import TextTower

_MANY = 1000
UNMEASURED = "what int8 costs was not measured: there is nothing to score on; name sets with --on"


class ExportedTexts(TextTower):
    """``text_tower.onnx``, which ends in unit rows of the shared space, in a text tower's place."""

    def __init__(self, model: LiT, path: Path) -> None:
        nn.Module.__init__(self)
        self.tokenizer, self.pad_id, self.spec = model.text.tokenizer, model.text.pad_id, str(path)
        self.dim = model.dim
        self._session = session_of(str(path))

    def embed(
        self,
        texts: Sequence[str] | Tokens,
        *,
        batch_tokens: int = 1024,
        precision: str = "auto",
        progress: str | None = None,
    ) -> Float[Tensor, "n dim"]:
        """As any text tower's, but in the precision of the file and without a bar."""
        tokens = texts if isinstance(texts, Tokens) else self.tokenize(texts)
        rows = torch.empty(len(tokens), self.dim)
        for cut in map(torch.from_numpy, micro_batches(tokens.lengths.numpy(), batch_tokens)):
            ids, mask = tokens.batch(cut)
            fed = {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
            rows[cut] = torch.from_numpy(self._session.run(None, fed)[0])
        return rows


def exported_tower(path: Path, settings: OnnxSettings, pooling: str = "own") -> ImageTower:
    """An exported graph as an image tower."""
    trunk = OnnxTrunk(path, settings)
    return ImageTower(spec=str(path), trunk=trunk, preprocess=settings.preprocess(), pooling=pooling)


def loss_of_int8(model: LiT, folder: Path, on: Sequence[str], *, with_images: bool) -> list[str]:
    """What the files in ``folder`` lose against ``model`` in float32, in words.

    Args:
        model: what was exported.
        folder: where to.
        on: the sets to score on; by default those that the run was scored on, as far as they are still there.
        with_images: whether the image tower is there too; it is measured where a set is pictures, not a store.

    Raises:
        LittuneError: a set that was named cannot be scored.
    """
    sets, lines = on or _scored_on(model), []
    plain = _in_float32(model, with_images=with_images)
    for name in sets:
        try:
            lines.append(_on_set(plain, folder, name, with_images=with_images))
        except LittuneError as error:
            if on:
                raise
            lines.append(f"int8 was not measured on {name}: {error}")
    return lines or [UNMEASURED]


def spread(values: Float[np.ndarray, " n"]) -> str:
    """The mean and the least of some cosines, in words."""
    return f"{values.mean():.5f} (at the least {values.min():.5f})"


def _scored_on(model: LiT) -> list[str]:
    path = None if model.folder is None else model.folder / "config.toml"
    if path is None or not path.is_file():
        return []
    val = read_toml(path).get("val", [])
    assert isinstance(val, list)
    return [str(name) for name in val]


def _in_float32(model: LiT, *, with_images: bool) -> LiT:
    """The model in float32; it itself, and its image tower, stay as they are."""
    plain = copy.copy(model)
    plain.precision = "float32"
    if with_images:
        tower = copy.copy(model.image_tower)
        plain.image_tower = tower.to(tower.device, "float32")
    return plain


def _on_set(model: LiT, folder: Path, name: str, *, with_images: bool) -> str:
    with_images = with_images and not is_store(Path(split_known(name)[1]))
    exported = _both(model, folder) if with_images else _texts_alone(model, folder)
    (before, *_), (after, *_) = (evaluate(it, name, details=False).results for it in (model, exported))
    assert before.store is not None and after.store is not None
    texts = _texts_of(before.store)
    of_texts = cosines(model.encode_text(texts), exported.encode_text(texts))
    parts = [*_scores(before, after), f"cosine of texts {spread(of_texts)}"]
    if with_images:
        rows = (
            np.concatenate(list(project(it, store))) for it, store in ((model, before.store), (exported, after.store))
        )
        parts.append(f"of images {spread(cosines(*rows))}")
    else:
        parts.append("images as they were")
    return f"int8 on {name}: {', '.join(parts)}"


def _texts_alone(model: LiT, folder: Path) -> LiT:
    """The model with the exported texts; its images are what they were."""
    exported = LiT(
        text=ExportedTexts(model, folder / "text_tower.onnx"),
        reference=model.reference,
        center=model.center.cpu(),
        temperature=model.logit_scale,
        heads="none" if model.image_head is None else "image",
    )
    exported.image_head = None if model.image_head is None else copy.deepcopy(model.image_head).cpu()
    tower, _ = image_tower_of(model)
    if tower is not None:  # A store can be scored without.
        exported.image_tower = tower
    return exported


def _both(model: LiT, folder: Path) -> LiT:
    """The model that the exported files make."""
    settings = OnnxSettings.of(model.image_tower.preprocess, output="image_embeds", num_prefix_tokens=0)
    tower = exported_tower(folder / "image_tower.onnx", settings)
    exported = LiT(
        text=ExportedTexts(model, folder / "text_tower.onnx"),
        reference=ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity),
        center=torch.zeros(model.dim),
        temperature=model.logit_scale,
        heads="none",
    )
    exported.image_tower = tower
    return exported


def _texts_of(store: EmbeddingStore) -> list[str]:
    texts = store.classnames or [text for its in store.texts() for text in its]
    return list(dict.fromkeys(texts))[:_MANY]


def _scores(before: Result, after: Result) -> list[str]:
    names = {"accuracy@1": "accuracy"} | {
        f"{direction}/recall@{k}": f"{words} recall@{k}" for direction, words in DIRECTIONS.items() for k in (1, 5)
    }
    return [
        f"{words} {before.metrics[name]:.1%}, now {after.metrics[name]:.1%}"
        for name, words in names.items()
        if name in before.metrics
    ]
