"""What a labelled set's outcome shows: each class, what is taken for what, and whether confidence can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from littune.evaluation.metrics.calibration import reliability
from littune.evaluation.report.charts import SHARES, Axis, Line, chart
from littune.evaluation.report.markup import Html, details, percent, table, tag
from littune.evaluation.results import ZeroShotOutcome

_ALL_CLASSES = 40
_FEW_CLASSES = 20
_MATRIX_CLASSES = 30
_NARROW_MATRIX = 12
_PAIRS = 20


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How many of a class's images were classified rightly."""

    name: str
    right: int
    images: int

    @property
    def accuracy(self) -> float:
        """As a fraction."""
        return self.right / self.images


def class_scores(outcome: ZeroShotOutcome) -> list[ClassScore]:
    """Those of the classes that have images, the worst first."""
    images = np.bincount(outcome.labels, minlength=len(outcome.classnames))
    right = np.bincount(outcome.labels[outcome.ranks < 1], minlength=len(outcome.classnames))
    counts = zip(outcome.classnames, right.tolist(), images.tolist(), strict=True)
    scores = [ClassScore(name=name, right=hits, images=count) for name, hits, count in counts if count]
    return sorted(scores, key=lambda score: score.accuracy)


def confusion(outcome: ZeroShotOutcome) -> Int64[np.ndarray, "c c"]:
    """How many images of each class (row) were taken for each class (column); for few classes.

    An image with several right classes counts for the first, unless another of them was chosen: then it was no
    confusion, and it counts as what it was taken for.
    """
    num = len(outcome.classnames)
    counts = np.bincount(_right(outcome) * num + outcome.top[:, 0], minlength=num * num)
    return counts.reshape(num, num).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Confused:
    """How many of a class's images were taken for one other class."""

    right: str
    taken: str
    images: int
    of: int
    """All images of the class."""


def most_confused(outcome: ZeroShotOutcome, most: int) -> list[Confused]:
    """The most frequent confusions, counted as ``confusion`` counts them; its table is never made."""
    names, of = outcome.classnames, np.bincount(_right(outcome), minlength=len(outcome.classnames))
    return [
        Confused(right=names[right], taken=names[taken], images=images, of=int(of[right]))
        for right, taken, images in outcome.confusions(most)
    ]


def _right(outcome: ZeroShotOutcome) -> Int64[np.ndarray, " n"]:
    """The class that each image counts for."""
    return np.where(outcome.ranks < 1, outcome.top[:, 0], outcome.labels)


def labelled_details(outcome: ZeroShotOutcome) -> list[Html]:
    """The sections of one labelled set."""
    if not len(outcome.labels):
        return []
    taken, trusted = _confusion(outcome), _reliability(outcome)
    if _NARROW_MATRIX < len(outcome.classnames) <= _MATRIX_CLASSES:
        return [_classes(class_scores(outcome)), taken, trusted]
    return [_classes(class_scores(outcome)), tag("div", {"class": "columns"}, taken, trusted)]


def _classes(scores: Sequence[ClassScore]) -> Html:
    title = tag("h3", {}, "Class by class")
    if len(scores) <= _ALL_CLASSES:
        half = -(-len(scores) // 2)
        columns = (scores,) if len(scores) <= _FEW_CLASSES else (scores[:half], scores[half:])
        said = f"Accuracy@1 of all {len(scores):,} classes that have images, %, the worst first."
        return tag("section", {}, title, tag("p", {"class": "note"}, said), _columns(columns, "Accuracy of each class"))
    said = f"Accuracy@1, %: the {_FEW_CLASSES} worst and the {_FEW_CLASSES} best of {len(scores):,} classes."
    ends = tag(
        "div",
        {"class": "columns"},
        _bars(f"The {_FEW_CLASSES} worst classes", scores[:_FEW_CLASSES], show_caption=True),
        _bars(f"The {_FEW_CLASSES} best classes", scores[::-1][:_FEW_CLASSES], show_caption=True),
    )
    between = scores[_FEW_CLASSES:-_FEW_CLASSES]
    rest = details(f"The {len(between):,} classes between them", _bars("The classes between", between))
    return tag("section", {}, title, tag("p", {"class": "note"}, said), ends, rest)


def _columns(columns: Sequence[Sequence[ClassScore]], caption: str) -> Html:
    if len(columns) == 1:
        return _bars(caption, columns[0])
    return tag("div", {"class": "columns"}, *(_bars(caption, column) for column in columns))


def _bars(caption: str, scores: Sequence[ClassScore], *, show_caption: bool = False) -> Html:
    rows = (
        [
            score.name,
            tag("span", {"class": "bar", "style": f"--share:{100 * score.accuracy:.1f}%"}),
            percent(score.accuracy),
            tag("small", {}, f"{score.right:,} of {score.images:,}"),
        ]
        for score in scores
    )
    return table(caption, (), rows, kind="bars", hidden_caption=not show_caption)


def _confusion(outcome: ZeroShotOutcome) -> Html:
    title = tag("h3", {}, "What is taken for what")
    if len(outcome.classnames) <= _MATRIX_CLASSES:
        return tag("section", {}, title, *_matrix(outcome.classnames, confusion(outcome)))
    return tag("section", {}, title, _pairs(most_confused(outcome, _PAIRS)))


def _matrix(names: Sequence[str], counts: Int64[np.ndarray, "c c"]) -> list[Html]:
    totals = counts.sum(axis=1)
    rows = (
        [name, *(_share(count, total) for count in row)]
        for name, row, total in zip(names, counts.tolist(), totals.tolist(), strict=True)
        if total
    )
    heads = [tag("span", {"class": "hidden"}, "right class"), *(tag("span", {}, name) for name in names)]
    said = "Each row is a right class; its cells say which share of its images, in %, was taken for which class."
    return [
        tag("p", {"class": "note"}, said),
        table("Confusion of the classes, % of each row", heads, rows, kind="matrix", hidden_caption=True),
    ]


def _share(count: int, total: int) -> Html:
    if not count:
        return Html("")
    share = 100 * count / total
    return tag("span", {"class": "cell", "style": f"--share:{share:.0f}%"}, f"{share:.0f}" if share >= 1 else "<1")


def _pairs(confused: Sequence[Confused]) -> Html:
    if not confused:
        return tag("p", {"class": "note"}, "Nothing: every image was classified rightly.")
    rows = [[one.right, one.taken, f"{one.images:,}", percent(one.images / one.of)] for one in confused]
    head = ("right class", "taken for", "images", "% of the class")
    return table(f"The {len(rows)} most frequent confusions", head, rows)


def _reliability(outcome: ZeroShotOutcome) -> Html:
    right = outcome.ranks < 1
    known = ~np.isnan(outcome.calibrated)
    before = _confidence("as the model gives it", "first", outcome.probabilities[:, 0], right)
    after = _confidence("temperature learned on the other half", "second", outcome.calibrated[known], right[known])
    guide = Line(name="what it should be", kind="guide", points=((0.0, 0.0), (1.0, 1.0)))
    shares = Axis(label="confidence in the first class, %", ticks=SHARES, place=float)
    drawn = chart(
        (guide, before, after),
        x=shares,
        y=Axis(label="of these, right, %", ticks=SHARES, place=float),
        title="How often the model is right when it is so sure",
        caption="A dot's size says how many images it stands for. Below the dashes the model is too sure of itself.",
    )
    head = ("confidence, %", "right, %")
    numbers = (table(line.name, head, [[percent(x), percent(y)] for x, y in line.points]) for line in (before, after))
    return tag("section", {}, tag("h3", {}, "Can its confidence be trusted?"), drawn, details("The numbers", *numbers))


def _confidence(name: str, kind: str, confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> Line:
    bins = [one for one in reliability(confidence, right) if one.count] if len(right) else []
    return Line(
        name=name,
        kind=kind,
        points=tuple((one.confidence, one.accuracy) for one in bins),
        weights=tuple(one.count / len(right) for one in bins),
    )
