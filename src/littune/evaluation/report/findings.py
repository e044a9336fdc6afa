"""What else was found, as small tables: findings by subject, near-duplicates, and whatever is told of the run."""

from collections.abc import Mapping, Sequence

from littune.evaluation.report.markup import Html, details, join, percent, table, tag
from littune.evaluation.results import DIRECTIONS, IN_ENGLISH, NORMALISED, SHARE_OF_ENGLISH, Duplicate, Result

_DUPLICATES_SHOWN = 20
_FACTS_SHOWN = 12

_SHARES = frozenset(
    (
        "one_template_min",
        "one_template_median",
        "one_template_max",
        "one_template_std",
        "ensemble",
        "random_words",
        "random_words_std",
        "bare_names",
        "linear probe",
        "10-shot least squares",
    )
)
"""The findings that are accuracies; so is what bears the name of one of the result's metrics."""

_SUBJECTS = {
    "calibration": (
        "Calibration",
        "The expected calibration error (ece) is how far confidence and accuracy lie apart on average; 0 is perfect.",
    ),
    "hubness": (
        "Hubness",
        "How unevenly answers are found: the skew of how often each is among the first; 0 is even, and over 1 a few "
        "answers crowd out the rest.",
    ),
    NORMALISED: (
        "Hubness, normalised",
        "Skew and recall when each answer's scores are divided by what the training data's queries score it: what is "
        "lost to answers that crowd out the rest.",
    ),
    "prompts": (
        "Prompts",
        "What the templates' words are worth: each template alone, all together, and templates of random words, which "
        "know nothing.",
    ),
    "probe": (
        "The image tower alone",
        "What a classifier that is trained on labelled images reads out of the same embeddings: the ceiling.",
    ),
    "duplicates": (
        "Near-duplicates",
        "How many of the images the training stores hold too, exactly or nearly; where some are, the scores on the "
        "others.",
    ),
}

_NAMES = {"found": "images seen in training"}
"""Names among the findings that say little by themselves."""


def findings_section(result: Result) -> Html:
    """Every subject's numbers, but for the scores in English, which stand beside the others; nothing without any."""
    subjects = [subject for subject in result.findings if subject not in (IN_ENGLISH, SHARE_OF_ENGLISH)]
    if not subjects:
        return Html("")
    cards = (_card(subject, result.findings[subject], result.metrics) for subject in subjects)
    return tag("section", {}, tag("h3", {}, "Findings"), tag("div", {"class": "cards"}, *cards))


def _card(subject: str, found: Mapping[str, float], metrics: Mapping[str, float]) -> Html:
    title, words = _SUBJECTS.get(subject, (spelled(subject), ""))
    said = tag("p", {"class": "note"}, words) if words else Html("")
    shares = _SHARES | metrics.keys()
    numbers = (
        join(
            [
                tag("dt", {}, _NAMES.get(name, spelled(name))),
                tag("dd", {}, f"{percent(value)} %" if name in shares else number(value)),
            ]
        )
        for name, value in found.items()
        if not _repeats(name, found)
    )
    return tag("article", {"class": "card"}, tag("h4", {}, title), said, tag("dl", {"class": "numbers"}, *numbers))


def _repeats(name: str, found: Mapping[str, float]) -> bool:
    """Whether a deduplicated score is the same as the plain one."""
    plain = name.replace("recall_dedup@", "recall@")
    return plain != name and found.get(plain) == found[name]


def spelled(name: str) -> str:
    """A name of the results as words: ``text_to_image/recall@1`` → text → image recall@1."""
    direction, _, metric = name.partition("/")
    words = f"{DIRECTIONS[direction]} {metric}" if metric and direction in DIRECTIONS else name
    return words.replace("_", " ")


def number(value: float) -> str:
    """A number as it is, to three figures and without an exponent where it has no more than six."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.3g}"


def duplicates_section(duplicates: Sequence[Duplicate]) -> Html:
    """The list of near-duplicates; nothing where there are none."""
    if not duplicates:
        return Html("")
    head = ("image", "seen as", "in", "cosine")
    rows = [[one.key, one.seen_key, one.seen_in, f"{one.cosine:.3f}"] for one in duplicates]
    said = f"Images of this set that lie, exactly or nearly, in a store that was trained on: {len(duplicates):,}."
    shown = table("Near-duplicates of training images", head, rows[:_DUPLICATES_SHOWN], hidden_caption=True)
    rest = rows[_DUPLICATES_SHOWN:]
    more = details(f"{len(rest):,} more", table("Further near-duplicates", head, rest)) if rest else Html("")
    return tag("section", {}, tag("h3", {}, "Seen in training"), tag("p", {"class": "note"}, said), shown, more)


def about_section(about: Mapping[str, object]) -> Html:
    """A part for each mapping in ``about``; other values have their place in the page's head."""
    parts = [
        tag("section", {}, tag("h3", {}, spelled(name).capitalize()), _few_or_folded(value))
        for name, value in about.items()
        if isinstance(value, Mapping) and _says_something(value)
    ]
    if not parts:
        return Html("")
    return tag("section", {"class": "set"}, tag("h2", {}, "How it was done"), tag("div", {"class": "columns"}, *parts))


def _few_or_folded(values: Mapping[str, object]) -> Html:
    num = sum(map(_says_something, values.values()))
    return facts(values) if num <= _FACTS_SHOWN else details(f"all {num:,}", facts(values))


def facts(values: Mapping[str, object]) -> Html:
    """Names and values, one under the other; mappings within stand in their own lists, and what is unset is left out.

    Unset are None, False and what is empty.
    """
    said = (_fact(name, value) for name, value in values.items() if _says_something(value))
    return tag("dl", {"class": "facts"}, *said)


def _says_something(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_says_something, value.values()))
    return len(value) > 0 if isinstance(value, Sequence) else value is not None and value is not False


def _fact(name: str, value: object) -> Html:
    said = facts(value) if isinstance(value, Mapping) else _said(value)
    return join([tag("dt", {}, str(name).replace("_", " ")), tag("dd", {}, said)])


def _said(value: object) -> str:
    """A value in words for people; within a list ``None`` and what is empty as a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_said, value)) or "–"
    return "–" if value is None or value == "" else str(value)


def metrics_table(result: Result) -> Html:
    """Every metric with its interval and, of another language, what it is in English, for those who look one up."""
    head, beside = ["", "score", "95 % interval"], IN_ENGLISH in result.findings
    rows = [
        [spelled(name), percent(value), _interval(result, name), *(_beside_english(result, name) if beside else ())]
        for name, value in result.metrics.items()
    ]
    return table("All scores, %", [*head, "in English", "% of English"] if beside else head, rows)


def _beside_english(result: Result, name: str) -> list[str]:
    found = (result.findings.get(subject, {}).get(name) for subject in (IN_ENGLISH, SHARE_OF_ENGLISH))
    return ["–" if value is None else percent(value) for value in found]


def language_section(result: Result) -> Html:
    """A further language of a set: its scores and findings, for those who ask."""
    english = " The scores in English are those on the same images, with their English texts."
    said = f"{counted(result)}.{english if IN_ENGLISH in result.findings else ''}"
    return details(
        f"In {result.language or 'its own words'}: all scores and findings",
        tag("p", {"class": "note"}, said),
        metrics_table(result),
        findings_section(result),
    )


def counted(result: Result) -> str:
    """How many images there are, and texts where they count."""
    texts = "" if result.num_texts is None else f", {result.num_texts:,} texts"
    return f"{result.num_images:,} images{texts}"


def _interval(result: Result, name: str) -> str:
    low, high = result.intervals.get(name, (None, None))
    return "–" if low is None or high is None else f"{percent(low)} to {percent(high)}"
