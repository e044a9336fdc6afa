"""The report: what an evaluation found, as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from littune.evaluation.report.findings import (
    about_section,
    duplicates_section,
    facts,
    findings_section,
    metrics_table,
)
from littune.evaluation.report.gallery import examples_section
from littune.evaluation.report.labelled import labelled_details
from littune.evaluation.report.markup import Html, tag, write_page
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
    sets = [list(group) for _, group in groupby(results, key=lambda result: (result.data, result.task))]
    links = {group[0].data: f"set-{number}" for number, group in enumerate(sets, 1)}
    names = short_names(links)
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
            *(_set(group[0], links[group[0].data], names[group[0].data]) for group in sets),
            about_section({name: value for name, value in about.items() if name != "model"}),
        ),
        tag("footer", {}, tag("p", {}, "Made by littune. This page holds all that it shows and loads nothing.")),
    ]
    write_page(Path(path), "littune: evaluation", *body)


def _scores(results: Sequence[Result], links: Mapping[str, str]) -> Html:
    said = _INTERVALS if any(result.intervals for result in results) else "No intervals were asked for."
    note = said if results else "No set was scored."
    title = tag("h2", {}, "Scores")
    return tag("section", {"id": "scores"}, title, *score_tables(results, links), tag("p", {"class": "note"}, note))


def _set(result: Result, anchor: str, name: str) -> Html:
    texts = "" if result.num_texts is None else f", {result.num_texts:,} texts"
    task = "zero-shot classification" if result.task == "zero_shot" else "retrieval"
    said = f"{result.data}: {task}, {result.num_images:,} images{texts}"
    return tag(
        "section",
        {"id": anchor, "class": "set"},
        tag("h2", {}, set_title(name, result.language)),
        tag("p", {"class": "note"}, said),
        metrics_table(result),
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
