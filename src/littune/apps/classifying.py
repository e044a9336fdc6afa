"""Picture files → labels, with a word about each file that is no picture instead of an end at the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import LittuneError
from littune.model.lit import LiT, Score
from littune.model.pictures import open_picture

# So many decoded pictures are in memory at once.
_GROUP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """One picture's labels, the likeliest first; none where ``problem`` says why it cannot be read."""

    image: Path
    scores: Sequence[Score] = ()
    problem: str = ""


def classify_files(
    model: LiT, images: Sequence[Path], labels: Sequence[str], *, templates: Sequence[str]
) -> Iterator[Classified]:
    """Classify each file, in order.

    Raises:
        InputError: the labels or templates cannot be used.
    """
    model.remember_texts()
    try:
        for start in range(0, len(images), _GROUP):
            yield from _classify(model, images[start : start + _GROUP], labels, templates)
    finally:
        model.forget_texts()


def _classify(
    model: LiT, images: Sequence[Path], labels: Sequence[str], templates: Sequence[str]
) -> Iterator[Classified]:
    opened, problems = {}, {}
    for image in images:
        try:
            opened[image] = open_picture(image)
        except LittuneError as error:
            problems[image] = str(error)
    rows = model.classify_many(opened.values(), labels, templates=templates) if opened else []
    scores = dict(zip(opened, rows, strict=True))
    for image in images:
        yield Classified(image=image, scores=scores.get(image, ()), problem=problems.get(image, ""))
