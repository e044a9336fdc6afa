"""Zero-shot classifiers kept on disk: a thousand classes in eighty templates are minutes of a text tower's time."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from littune.base.files import write_atomic
from littune.model.lit import LiT
from littune.model.zero_shot import prompts, zero_shot_classifier
from littune.towers.precision import wants_bfloat16

# Goes up when the same model and texts give another classifier than before.
_VERSION = 1
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def classifier_of(
    model: LiT,
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    canonical: bool = False,
    cache: Path | None = None,
) -> Float[np.ndarray, "classes d"]:
    """``zero_shot_classifier`` of a model's texts, read from ``cache`` where it was made before; float32 unit rows.

    A file is another one as soon as the text tower, the head, the tokenizer, the precision or any text differs. A
    damaged file is made anew.

    Args:
        model: whose texts they are.
        classnames: the names, at least one.
        templates: at least one, each with ``{}`` where the name goes.
        canonical: whether to lower-case the texts and strip their punctuation.
        cache: the folder of the files; None to keep nothing.

    Raises:
        InputError: there are no class names or no templates, or a template has no ``{}``.
        LittuneError: the file cannot be written.
    """
    texts = prompts(classnames, templates, canonical=canonical)
    path = None if cache is None else cache / f"{_key(model, texts, len(classnames))}.npz"
    kept = None if path is None else _read(path, (len(classnames), model.dim))
    if kept is not None:
        return kept
    classifier = zero_shot_classifier(model.encode_text, classnames, templates, canonical=canonical)
    if path is not None:
        write_atomic(path, lambda file: np.savez(file, classifier=classifier))
    return classifier


def _key(model: LiT, texts: Sequence[str], num_classes: int) -> str:
    """The SHA-256 of all that decides a classifier."""
    bfloat16 = wants_bfloat16(model.center.device, model.precision)
    about = [_VERSION, model.text.identity, bfloat16, num_classes, list(texts)]
    digest = hashlib.sha256(json.dumps(about).encode())
    if model.text_head is not None:
        for tensor in (model.text_head.weight, model.text_head.bias):
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "classes d"] | None:
    """What is kept there; None where it is nothing, or damaged (a zip file has checksums)."""
    try:
        # numpy would leave a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            classifier: np.ndarray = arrays["classifier"]
    except _DAMAGED:
        return None
    return classifier if classifier.shape == shape and classifier.dtype == np.float32 else None
