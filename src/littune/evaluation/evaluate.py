"""Score a model on sets of labelled images and of pairs (section 4; the protocol is clip-benchmark's).

A labelled set is a zero-shot classification task; pairs are a retrieval task both ways. Every set is read
from a store: the image tower runs once for a set, however many models are scored on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from littune.base.errors import InputError
from littune.base.files import write_json
from littune.base.progress import log
from littune.evaluation.metrics.ranks import label_ranks, mean_per_class, share_within
from littune.evaluation.metrics.retrieval import recall_metrics
from littune.evaluation.results import Result
from littune.evaluation.sets.stores import open_set, place_of_sets, project
from littune.evaluation.tables import to_text
from littune.model.lit import LiT
from littune.model.prompts import DEFAULT_TEMPLATES, load_templates
from littune.model.zero_shot import zero_shot_classifier
from littune.store.store import EmbeddingStore

_ACCURACY_KS = (1, 5)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores on several sets, in the order in which they were named."""

    results: tuple[Result, ...]

    def to_dict(self) -> dict[str, object]:
        """``{"results": [{"data": …, "task": …, "num_images": …, "metrics": {…}}]}``."""
        return {"results": [result.to_dict() for result in self.results]}

    def save(self, path: str | Path) -> None:
        """Write ``to_dict()`` to a JSON file.

        Raises:
            LittuneError: the file cannot be written.
        """
        write_json(Path(path), self.to_dict())

    def to_text(self) -> str:
        """Tables of percents for people to read."""
        return to_text(self.results)


def evaluate(
    model: LiT,
    data: str | Path | EmbeddingStore | Sequence[str | Path | EmbeddingStore],
    *,
    templates: str | Path | Sequence[str] | None = None,
    canonical: bool = False,
    texts: Sequence[str] = (),
    ks: Sequence[int] = (1, 5, 10),
    allow_foreign: bool = False,
    batch_size: int = 32,
    workers: int = 2,
) -> Evaluation:
    """Score ``model`` on each set.

    A set of pairs is embedded once and kept in a cache (``$LITTUNE_CACHE``, by default ``~/.cache/littune``).
    A k that is larger than the number of answers is left out of the metrics.

    Args:
        model: the model.
        data: stores, folders of stores, or specs of pairs or labelled images.
        templates: for labelled sets, a template set's name, a file, or the templates; by default those that came
            with the set, else ``DEFAULT_TEMPLATES``.
        canonical: whether to lower-case the prompts of labelled sets and strip their punctuation.
        texts: for pairs, the fields that supply the texts; by default the captions.
        ks: for pairs, the k of recall@k.
        allow_foreign: admit stores made elsewhere, of which only the dimension can be checked.
        batch_size: how many images the tower sees at once, where a set has to be embedded.
        workers: how many threads decode images.

    Raises:
        InputError: there is no set, or a set or the templates cannot be used.
        MismatchError: a store is of another image tower.
    """
    items = [data] if isinstance(data, str | Path | EmbeddingStore) else list(data)
    if not items:
        raise InputError("there is nothing to score on; name at least one store or spec of pairs")
    if not ks or min(ks) < 1:
        raise InputError(f"ks = {list(ks)} is not usable: give one or more numbers of at least 1")
    chosen = None if templates is None else load_templates(templates)
    results = []
    with place_of_sets(model) as place:
        opened = [
            open_set(
                model,
                item,
                place=place,
                texts=texts,
                allow_foreign=allow_foreign,
                batch_size=batch_size,
                workers=workers,
            )
            for item in items
        ]
        for item, store in zip(items, opened, strict=True):
            name = str(item.path if isinstance(item, EmbeddingStore) else item)
            if store.classnames is None:
                results.append(_retrieval(model, store, name, texts=texts, ks=ks))
            else:
                prompts = chosen or store.templates or DEFAULT_TEMPLATES
                results.append(_zero_shot(model, store, name, templates=prompts, canonical=canonical))
    return Evaluation(results=tuple(results))


def _zero_shot(model: LiT, store: EmbeddingStore, name: str, *, templates: Sequence[str], canonical: bool) -> Result:
    classnames, labels = store.classnames, store.labels()
    if not classnames or labels is None:
        raise InputError(f"{name} has no label for each image; embed it again from a labelled set")
    if labels.min() < 0 or labels.max() >= len(classnames):
        raise InputError(f"{name} has labels from {labels.min()} to {labels.max()} but {len(classnames)} class names")
    classifier = zero_shot_classifier(model.encode_text, classnames, templates, canonical=canonical)
    ranks, start = np.empty(len(labels), np.int64), 0
    for images in project(model, store):
        block = slice(start, start + len(images))
        ranks[block] = label_ranks(images @ classifier.T, labels[block])
        start += len(images)
    metrics = {f"accuracy@{k}": share_within(ranks, k) for k in _ACCURACY_KS if k <= len(classnames)}
    metrics["mean_per_class_accuracy"] = mean_per_class(ranks, labels)
    return Result(data=name, task="zero_shot", num_images=len(labels), metrics=metrics)


def _retrieval(model: LiT, store: EmbeddingStore, name: str, *, texts: Sequence[str], ks: Sequence[int]) -> Result:
    rows = store.texts(texts)
    with_text = np.array([bool(row) for row in rows])
    if not with_text.any():
        raise InputError(f"{name} has no text in {','.join(texts) or 'its captions'}; choose other fields with texts")
    if not with_text.all():
        log(f"{name}: {np.count_nonzero(~with_text)} images have no text in the chosen fields and are left out")
    captions = [text for row in rows for text in row]
    owners = np.repeat(np.arange(np.count_nonzero(with_text)), [len(row) for row in rows if row])
    images = np.concatenate(list(project(model, store)))[with_text]
    metrics = recall_metrics(images, model.encode_text(captions), owners, captions, ks)
    return Result(data=name, task="retrieval", num_images=len(images), num_texts=len(captions), metrics=metrics)
