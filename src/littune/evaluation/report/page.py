"""The report: what an evaluation found, as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from littune.evaluation.report.findings import (
    about_section,
    counted,
    duplicates_section,
    facts,
    findings_section,
    language_section,
    metrics_table,
)
from littune.evaluation.report.gallery import examples_section
from littune.evaluation.report.labelled import labelled_details
from littune.evaluation.report.markup import Html, details, tag, write_page
from littune.evaluation.report.pairs import pairs_details
from littune.evaluation.report.scores import score_tables, set_title, short_names
from littune.evaluation.results import Result, ZeroShotOutcome

_INTERVALS = "The brackets are 95 % bootstrap intervals: the images of a set were drawn anew with replacement."


def write_report(path: str | Path, results: Sequence[Result], *, about: Mapping[str, object]) -> None:
    """Write the page of an evaluation.

    Args:
        path: the HTML file.
        results: the sets, in their order. Of a set in several languages, the first gets the details.
        about: what was evaluated and how. ``model`` stands in the page's head, and so does what is no mapping; every
            other mapping (the cost, the versions, the configuration) gets a section with its name as the heading.

    Raises:
        LittuneError: the file cannot be written.
    """
    sets = _sets(results)
    links = {which: f"set-{number}" for number, which in enumerate(sets, 1)}
    names = short_names(data for data, _ in sets)
    model = about.get("model")
    head = {name: value for name, value in about.items() if not isinstance(value, Mapping)}
    head |= model if isinstance(model, Mapping) else {}
    body = [
        tag("a", {"class": "skip", "href": "#scores"}, "to the scores"),
        tag("header", {}, tag("h1", {}, "Evaluation"), facts(head) if head else Html("")),
        tag(
            "main",
            {},
            _scores(results, links),
            *(_set(languages, links[which], names[which[0]]) for which, languages in sets.items()),
            about_section({name: value for name, value in about.items() if name != "model"}),
        ),
        tag("footer", {}, tag("p", {}, "Made by littune. This page holds all that it shows and loads nothing.")),
    ]
    write_page(Path(path), "littune: evaluation", *body)


def _sets(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """The set and task of the results, each with its languages: what is named twice has one section."""
    sets: dict[tuple[str, str], dict[str, Result]] = {}
    for result in results:
        sets.setdefault((result.data, result.task), {}).setdefault(result.language, result)
    return {which: list(languages.values()) for which, languages in sets.items()}


def _scores(results: Sequence[Result], links: Mapping[tuple[str, str], str]) -> Html:
    said = _INTERVALS if any(result.intervals for result in results) else "No intervals were asked for."
    note = said if results else "No set was scored."
    title = tag("h2", {}, "Scores")
    return tag("section", {"id": "scores"}, title, *score_tables(results, links), tag("p", {"class": "note"}, note))


def _set(languages: Sequence[Result], anchor: str, name: str) -> Html:
    """A set: the first of its languages in detail, the others' numbers."""
    result, *others = languages
    task = "zero-shot classification" if result.task == "zero_shot" else "retrieval"
    said = f"{result.data}: {task}, {counted(result)}"
    return tag(
        "section",
        {"id": anchor, "class": "set"},
        tag("h2", {}, set_title(name, result.language)),
        tag("p", {"class": "note"}, said),
        details("All scores", metrics_table(result)),
        *map(language_section, others),
        *_details(result),
        examples_section(result),
        duplicates_section(result.duplicates),
    )


def _details(result: Result) -> list[Html]:
    """What came out, and what was found; a curve alone leaves room for the findings beside it."""
    findings = findings_section(result)
    if result.outcome is None:
        return [findings]
    if isinstance(result.outcome, ZeroShotOutcome):
        return [*labelled_details(result.outcome), findings]
    return [tag("div", {"class": "columns"}, *pairs_details(result.outcome), findings)]
