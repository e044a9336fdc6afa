"""prototypes: a store without images, from the classifier that a supervised image tower already holds.

The classifier's weights hold one direction a class, in the space of the tower's embeddings. Stored with the texts
of the classes they train a text tower as embedded images do. Not in the paper.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from littune.base.errors import InputError, MismatchError
from littune.base.progress import log
from littune.store.class_texts import ClassTexts, imagenet_classes, read_classes
from littune.store.embed import provenance_of
from littune.store.manifest import Cursor, Settings
from littune.store.shards import Row
from littune.store.store import EmbeddingStore
from littune.store.writer import ROWS_PER_COMMIT, Batch, StoreWriter, open_writer
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import Classifier, ImageTower


def prototypes(
    tower: ImageTower | str, out: str | Path, *, classes: Path | None = None, exclude: Collection[int] = ()
) -> EmbeddingStore:
    """Store the class directions of a tower's classifier with the texts of the classes.

    A row's label is the class's index in the classifier, its key that index too. The biases are left out.

    Args:
        tower: an image tower that has its classifier, or its spec.
        out: the store's folder.
        classes: a file of class texts (``read_classes`` says how it is written); None for those that timm ships
            for the tower's ImageNet label set.
        exclude: indices of classes to leave out, to be tested on later.

    Raises:
        InputError: the tower has no classifier, its classes have no known names and no file gives them, the file does
            not fit it, no class is left, or ``out`` holds something else.
        MismatchError: ``out`` is a store of other settings.
    """
    if isinstance(tower, str):
        tower = load_image_tower(tower)
    folder = Path(out)
    classifier = _classifier_of(tower)
    num_classes = len(classifier.weight)
    chosen = _class_texts(tower, classifier, classes)
    unknown = [index for index in exclude if not 0 <= index < num_classes]
    if unknown:
        raise InputError(f"cannot leave out class {unknown[0]} of {tower.spec}: its classes are 0 to {num_classes - 1}")
    kept = {index: texts for index, texts in sorted(chosen.items()) if index not in set(exclude)}
    if not kept:
        raise InputError(f"no class of {tower.spec} is left to store; leave out fewer")
    source = classifier.label_set if classes is None else classes.name
    settings = Settings(
        kind="prototypes",
        pairs=source if classes is None else str(classes),
        texts=(),
        tower=tower.spec,
        identity=replace(tower.identity, preprocess=""),
        classnames=tuple(chosen[index].name if index in chosen else str(index) for index in range(num_classes)),
        templates=None,
    )
    with open_writer(folder, settings, provenance_of(tower), parts=[source]) as writer:
        _write(writer, classifier.weight.numpy(), kept, source)
    return EmbeddingStore.open(folder)


def _write(writer: StoreWriter, weight: np.ndarray, kept: Mapping[int, ClassTexts], source: str) -> None:
    fingerprint = _fingerprint(weight, kept)
    done = writer.manifest.parts.get(source)
    if done is not None and done.fingerprint != fingerprint:
        raise MismatchError(
            f"{writer.folder} holds prototypes of other classes, texts or class weights; choose another folder"
        )
    if writer.manifest.complete:
        log(f"{writer.folder} is complete: {writer.manifest.num_rows:,} prototypes; nothing to do")
        return
    indices = list(kept)
    for start in range(0 if done is None else done.taken, len(indices), ROWS_PER_COMMIT):
        some = indices[start : start + ROWS_PER_COMMIT]
        taken = start + len(some)
        cursor = Cursor(fingerprint=fingerprint, taken=taken, complete=taken == len(indices))
        rows = [_row(index, kept[index], source) for index in some]
        writer.append(Batch(embeddings=weight[some], rows=rows, cursors={source: cursor}))
    writer.finish()
    num_texts = sum(len(texts.texts) for texts in kept.values())
    log(f"stored {len(indices):,} prototypes with {num_texts:,} texts in {writer.folder}")


def _row(index: int, texts: ClassTexts, source: str) -> Row:
    return Row(key=str(index), source=source, texts=texts.texts, label=index, fields=texts.fields)


def _classifier_of(tower: ImageTower) -> Classifier:
    if tower.classifier is None:
        raise InputError(
            f"{tower.spec} has no classifier, so no prototypes; choose a supervised tower that has one, "
            "with its own pooling, or embed pairs"
        )
    return tower.classifier


def _class_texts(tower: ImageTower, classifier: Classifier, classes: Path | None) -> dict[int, ClassTexts]:
    num_classes = len(classifier.weight)
    if classes is not None:
        return read_classes(classes, num_classes)
    if not classifier.label_set:
        raise InputError(
            f"nothing tells what the {num_classes} classes of {tower.spec} are called; name them with --classes FILE"
        )
    return imagenet_classes(classifier.label_set)


def _fingerprint(weight: np.ndarray, kept: Mapping[int, ClassTexts]) -> str:
    """Changes with the class directions (the tower's identity leaves them out), the classes kept and their texts."""
    digest = hashlib.sha256(np.ascontiguousarray(weight[list(kept)]).tobytes())
    digest.update(json.dumps({index: texts.texts for index, texts in kept.items()}).encode())
    return digest.hexdigest()
