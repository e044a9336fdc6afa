"""Several runs side by side on the same sets, image by image: is one better, or is it chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from littune.base.errors import InputError, MismatchError
from littune.base.files import write_json
from littune.evaluation.evaluation import Data, evaluate
from littune.evaluation.metrics.uncertainty import Paired, paired_test
from littune.evaluation.per_image import hits_of
from littune.evaluation.report.comparison import write_comparison
from littune.evaluation.results import Interval, Outcome, Result
from littune.evaluation.tables import as_text, comparison_table, percent
from littune.model.lit import LiT


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """A metric on one set, for each run."""

    data: str
    language: str
    metric: str
    scores: Sequence[float]
    intervals: Sequence[Interval]
    differences: Sequence[Paired | None]
    """To the first run, on the same images; None for the first."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side."""

    runs: Sequence[str]
    rows: Sequence[ComparisonRow]
    about: Mapping[str, object]
    """What each run is, by name."""

    def to_dict(self) -> dict[str, object]:
        """``{"runs": […], "rows": [{"data": …, "metric": …, "runs": [{"score": …, "difference": …}]}]}``."""
        return {"runs": list(self.runs), "rows": [_row_to_dict(row) for row in self.rows], "about": dict(self.about)}

    def save(self, path: str | Path) -> None:
        """Write ``to_dict()`` to a JSON file, or, where ``path`` ends in .html, a page.

        Raises:
            LittuneError: the file cannot be written.
        """
        if Path(path).suffix.lower() in (".html", ".htm"):
            write_comparison(Path(path), self)
        else:
            write_json(Path(path), self.to_dict())

    def to_text(self) -> str:
        """A table of percents for people to read."""
        rows = [
            [
                row.data,
                " ".join(filter(None, (row.metric, row.language))),
                *(_cell(row, place) for place in range(len(self.runs))),
            ]
            for row in self.rows
        ]
        return as_text([comparison_table(self.runs, rows)])


def compare(
    models: Mapping[str, LiT],
    data: Data | Sequence[Data],
    *,
    templates: str | Path | Sequence[str] | None = None,
    classnames: str | Path | Sequence[str] | None = None,
    canonical: bool = False,
    texts: Sequence[str] = (),
    languages: Sequence[str] = (),
    ks: Sequence[int] = (1, 5, 10),
    allow_foreign: bool = False,
    batch_size: int = 32,
    workers: int = 2,
) -> Comparison:
    """Score several models on the same sets, and test each against the first, image by image.

    Args:
        models: the models by name, at least two.
        data: the sets, as for ``evaluate``, and so are the other arguments.

    Raises:
        InputError: there are not two models, or as for ``evaluate``.
        MismatchError: a store is of another image tower, or a set is not the same images to all of the models.
    """
    if len(models) < 2:
        raise InputError("there is nothing to compare: name at least two runs")
    evaluations = [
        evaluate(
            model,
            data,
            templates=templates,
            classnames=classnames,
            canonical=canonical,
            texts=texts,
            languages=languages,
            ks=ks,
            allow_foreign=allow_foreign,
            batch_size=batch_size,
            workers=workers,
        )
        for model in models.values()
    ]
    rows = [
        row
        for results in zip(*(evaluation.results for evaluation in evaluations), strict=True)
        for row in _rows(list(models), results)
    ]
    return Comparison(
        runs=list(models), rows=rows, about={name: its.about for name, its in zip(models, evaluations, strict=True)}
    )


def _rows(names: Sequence[str], results: Sequence[Result]) -> list[ComparisonRow]:
    first, *others = results
    outcomes = [result.outcome for result in results if result.outcome is not None]
    for name, outcome in zip(names, outcomes, strict=True):
        if outcome.keys != outcomes[0].keys:
            raise MismatchError(f"{first.data} is not the same images to {names[0]} and {name}: embed it anew for both")
    return [
        ComparisonRow(
            data=first.data,
            language=first.language,
            metric=metric,
            scores=[result.metrics[metric] for result in results],
            intervals=[result.intervals[metric] for result in results],
            differences=[None, *(_test(outcomes[0], outcome, metric) for outcome in outcomes[1:])],
        )
        for metric in first.metrics
        if all(metric in other.metrics for other in others)
    ]


def _test(first: Outcome, other: Outcome, metric: str) -> Paired:
    (before, counts), (after, _) = hits_of(first, metric), hits_of(other, metric)
    return paired_test(before / counts, after / counts, counts)


def _cell(row: ComparisonRow, place: int) -> str:
    score, paired = percent(row.scores[place], row.intervals[place]), row.differences[place]
    if paired is None:
        return score
    return f"{score} ({100 * paired.difference:+.1f}, p {paired.p_value:.2g})"


def _row_to_dict(row: ComparisonRow) -> dict[str, object]:
    runs = [
        {"score": score, "interval": list(interval), "difference": None if paired is None else asdict(paired)}
        for score, interval, paired in zip(row.scores, row.intervals, row.differences, strict=True)
    ]
    return {"data": row.data, "language": row.language, "metric": row.metric, "runs": runs}
