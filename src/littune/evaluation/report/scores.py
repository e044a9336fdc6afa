"""The table of scores: what one looks at first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from littune.evaluation.report.charts import whisker
from littune.evaluation.report.markup import Html, join, percent, score, table, tag
from littune.evaluation.results import DIRECTIONS, SHARE_OF_ENGLISH, Result

_TASKS = {"zero_shot": "Zero-shot classification", "retrieval": "Retrieval"}
_HEADS = {"mean_per_class_accuracy": "mean per class"}


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row of the table: a result, or one direction of it."""

    result: Result
    name: Html
    prefix: str = ""
    """What the metrics' names begin with."""

    def cell(self, column: str) -> Html:
        """The score of a column; a dash where there is none."""
        value = self.result.metrics.get(f"{self.prefix}{column}")
        return Html("–") if value is None else score(value, self.result.intervals.get(f"{self.prefix}{column}"))

    def whisker(self, column: str) -> Html:
        """The same drawn; nothing where there is none."""
        value = self.result.metrics.get(f"{self.prefix}{column}")
        return Html("") if value is None else whisker(value, self.result.intervals.get(f"{self.prefix}{column}"))

    def share(self, column: str) -> str:
        """Which share of the score in English it is, in percent; nothing where it was not asked for."""
        share = self.result.findings.get(SHARE_OF_ENGLISH, {}).get(f"{self.prefix}{column}")
        return "" if share is None else percent(share)


def score_tables(results: Sequence[Result], links: Mapping[tuple[str, str], str]) -> list[Html]:
    """A table for each task that occurs.

    Args:
        results: the results.
        links: the page's anchor of each set and task that has a section of its own.
    """
    names = short_names(result.data for result in results)
    tables = []
    for task, title in _TASKS.items():
        mine = [result for result in results if result.task == task]
        columns = _columns(mine)
        if columns:
            lines = [line for result in mine for line in _lines(result, _named(result, names, links))]
            tables.append(_table(f"{title}, %", lines, columns))
    return tables


def short_names(data: Iterable[str]) -> dict[str, str]:
    """The last two parts of each set's path; the whole of it where these do not tell the sets apart."""
    short = {name: "/".join(PurePath(name).parts[-2:]) or name for name in data}
    return short if len(set(short.values())) == len(short) else {name: name for name in short}


def set_title(name: str, language: str) -> str:
    """The name of a set, with the language of its texts."""
    return f"{name} · {language}" if language else name


def _named(result: Result, names: Mapping[str, str], links: Mapping[tuple[str, str], str]) -> Html:
    title = set_title(names[result.data], result.language)
    anchor = links.get((result.data, result.task))
    if anchor is None:
        return tag("span", {"title": result.data}, title)
    return tag("a", {"href": f"#{anchor}", "title": result.data}, title)


def _columns(results: Sequence[Result]) -> list[str]:
    """Every metric that occurs, without its direction, in order of first appearance.

    The deduplicated ones stand in the list of all scores alone.
    """
    plain = (name.rpartition("/")[2] for result in results for name in result.metrics)
    return [name for name in dict.fromkeys(plain) if not name.startswith("recall_dedup@")]


def _lines(result: Result, name: Html) -> list[_Line]:
    if result.task == "zero_shot":
        return [_Line(result=result, name=name)]
    return [
        _Line(result=result, name=join([name, tag("small", {}, words)]), prefix=f"{direction}/")
        for direction, words in DIRECTIONS.items()
    ]


def _table(title: str, lines: Sequence[_Line], columns: Sequence[str]) -> Html:
    """The first column's score is drawn beside it."""
    first, *others = columns
    spoken = any(SHARE_OF_ENGLISH in line.result.findings for line in lines)
    head = ["set", *(_HEADS.get(name, name) for name in (first, "0 to 100", *others)), "images"]
    rows = [
        [
            line.name,
            line.cell(first),
            line.whisker(first),
            *map(line.cell, others),
            f"{line.result.num_images:,}",
            *((line.share(first),) if spoken else ()),
        ]
        for line in lines
    ]
    return table(title, [*head, f"{first}, % of English"] if spoken else head, rows, kind="scores")
