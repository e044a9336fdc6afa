"""Which examples are shown, and their pictures: read once more from where the store's images came from."""

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64
from PIL import Image

from littune.evaluation.results import RetrievalOutcome, ZeroShotOutcome
from littune.pairs.base import BadSample, Part
from littune.pairs.decode import decode
from littune.pairs.open import open_pairs
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore

NUM_EXAMPLES = 12
"""How many of the best and how many of the worst."""

_SIDE = 160
_QUALITY = 85


def pictures_of(store: EmbeddingStore, rows: Iterable[int]) -> dict[int, Image.Image]:
    """The pictures of these rows, at most 160 pixels wide and high, by row.

    A row has none where the images' source is gone or has changed since it was embedded, and where the store holds
    no images: pictures are an ornament, and what is the matter with one never stops a report.
    """
    manifest = store.manifest
    if manifest is None or store.kind != "images":
        return {}
    keys, sources = store.keys(), store.sources()
    wanted: dict[str, dict[str, int]] = {}
    for row in rows:
        wanted.setdefault(sources[row], {})[keys[row]] = row
    found: dict[int, Image.Image] = {}
    for part in _parts(manifest.settings):
        cursor = manifest.parts.get(part.name)
        if part.name in wanted and cursor is not None:
            found |= _pictures(part, cursor.fingerprint, wanted[part.name])
    return found


def _parts(settings: Settings) -> Sequence[Part]:
    try:
        return open_pairs(settings.pairs, texts=settings.texts, image_field=settings.image_field).parts()
    # A source may be a data set of another library, whose errors are its own.
    except Exception:
        return ()


def _pictures(part: Part, fingerprint: str, rows: dict[str, int]) -> dict[int, Image.Image]:
    """Those of one part, by row; reads it up to the last one that is wanted."""
    found: dict[int, Image.Image] = {}
    try:
        if part.fingerprint() != fingerprint:
            return {}
        for sample in part.samples():
            if isinstance(sample, BadSample) or sample.key not in rows:
                continue
            picture = decode(sample.image)
            picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            found[rows[sample.key]] = picture
            if len(found) == len(rows):
                break
    except Exception:
        return found
    return found


def data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG in a ``data:`` URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def surest(outcome: ZeroShotOutcome, *, right: bool) -> Int64[np.ndarray, " m"]:
    """The images that the model was surest of, of those that it got right or wrong: of many classes, the surest first.

    Returns:
        Positions in the outcome.
    """
    among = np.flatnonzero((outcome.ranks < 1) == right)
    in_order = among[np.argsort(-outcome.probabilities[among, 0], kind="stable")]
    return varied(in_order, outcome.labels)


def found_first(outcome: RetrievalOutcome) -> Int64[np.ndarray, " m"]:
    """Texts whose image stood first, evenly taken over the set: of such a text nothing says that it is the best.

    Returns:
        Positions among the texts, each of another image.
    """
    hits = np.flatnonzero(outcome.ranks["text_to_image/recall"] < 1)
    _, first = np.unique(outcome.owners[hits], return_index=True)
    texts = hits[first]
    return (
        texts[np.unique(np.linspace(0, len(texts) - 1, NUM_EXAMPLES).round().astype(np.int64))] if len(hits) else hits
    )


def furthest(ranks: Int64[np.ndarray, " n"], owners: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """The queries whose right answer stands furthest down, of different images as far as there are."""
    missed = np.flatnonzero(ranks > 0)
    return varied(missed[np.argsort(-ranks[missed], kind="stable")], owners)


def varied(in_order: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " all"]) -> Int64[np.ndarray, " m"]:
    """The first ``NUM_EXAMPLES``, but a group's second only after the first of every other group.

    Args:
        in_order: positions, the most wanted first.
        groups: the group of every position.
    """
    nth: dict[int, int] = {}
    turns = []
    for position in in_order.tolist():
        group = int(groups[position])
        turns.append(nth.setdefault(group, 0))
        nth[group] += 1
    return in_order[np.argsort(np.array(turns, dtype=np.int64), kind="stable")][:NUM_EXAMPLES]
