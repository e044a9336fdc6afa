"""The report: whole in itself, escaped, and a page whatever there is to show."""

from dataclasses import replace
from pathlib import Path

from littune.evaluation.report.page import write_report
from littune.evaluation.results import Duplicate, Result, RetrievalOutcome, ZeroShotOutcome
from tests.evaluation.report.conftest import NASTY, CheckPage, Outline

LABELLED = Result(
    data="sets/colors",
    task="zero_shot",
    num_images=6,
    metrics={"accuracy@1": 0.5},
    intervals={"accuracy@1": (0.2, 0.8)},
    findings={"calibration": {"ece": 0.25}},
)
PAIRS = Result(
    data="sets/squares",
    task="retrieval",
    num_images=3,
    num_texts=4,
    metrics={"text_to_image/recall@1": 0.5, "image_to_text/recall@1": 1 / 3},
)


def test_everything_is_on_the_page(
    tmp_path: Path, colors: ZeroShotOutcome, squares: RetrievalOutcome, check_page: CheckPage
) -> None:
    results = [replace(LABELLED, outcome=colors), replace(PAIRS, outcome=squares)]
    about = {"run": "runs/first", "cost": {"seconds": 3.2}}
    text = _written(tmp_path, results, about, check_page).text
    for words in (
        "run runs/first",
        "50.0 [20.0, 80.0]",
        "sets/colors: zero-shot classification, 6 images",
        "Class by class",
        "What is taken for what",
        "Can its confidence be trusted?",
        "sets/squares: retrieval, 3 images, 4 texts",
        "How far down one has to look",
        "ece 0.25",
        "Cost seconds 3.2",
        "95 % bootstrap intervals",
    ):
        assert words in text


def test_every_text_is_escaped(
    tmp_path: Path, colors: ZeroShotOutcome, squares: RetrievalOutcome, check_page: CheckPage
) -> None:
    results = [
        replace(
            LABELLED,
            data=NASTY,
            language=NASTY,
            outcome=replace(colors, classnames=[NASTY] * 4, keys=[NASTY] * 6),
            findings={NASTY: {NASTY: 1.0}},
            metrics={NASTY: 0.5},
            duplicates=[Duplicate(key=NASTY, seen_key=NASTY, seen_in=NASTY, cosine=1.0)],
        ),
        replace(PAIRS, data=f"{NASTY} 2", outcome=replace(squares, captions=[NASTY] * 4, keys=[NASTY] * 3)),
    ]
    _written(tmp_path, results, {NASTY: {NASTY: NASTY}, f"{NASTY} 2": NASTY}, check_page)


def test_without_outcomes_it_is_a_page_of_scores(tmp_path: Path, check_page: CheckPage) -> None:
    text = _written(tmp_path, [LABELLED, PAIRS], {}, check_page).text
    assert "Class by class" not in text and "33.3" in text


def test_without_results_it_says_so(tmp_path: Path, check_page: CheckPage) -> None:
    assert "No set was scored." in _written(tmp_path, [], {}, check_page).text


def test_of_several_languages_the_first_has_the_details(
    tmp_path: Path, squares: RetrievalOutcome, check_page: CheckPage
) -> None:
    languages = [replace(PAIRS, language=language, outcome=squares) for language in ("en", "de", "fr")]
    text = _written(tmp_path, languages, {}, check_page).text
    assert text.count("How far down one has to look") == 1
    assert all(f"sets/squares · {language} text → image 50.0" in text for language in ("en", "de", "fr"))


def test_a_set_that_is_named_twice_has_one_section(tmp_path: Path, check_page: CheckPage) -> None:
    as_pairs = replace(PAIRS, data=LABELLED.data)
    outline = _written(tmp_path, [LABELLED, PAIRS, LABELLED, as_pairs], {}, check_page)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert ids == ["scores", "set-1", "set-2", "set-3"]
    links = [attributes["href"] for tag, attributes in outline.tags if tag == "a"]
    assert links == ["#scores", "#set-1", "#set-1", "#set-2", "#set-2", "#set-3", "#set-3"]


def test_every_language_stands_once_beside_english(tmp_path: Path, check_page: CheckPage) -> None:
    english = replace(PAIRS, metrics={"text_to_image/recall@1": 0.8, "image_to_text/recall@1": 0.0})
    results = [PAIRS]
    for language, recall in (("de", 0.6), ("fr", 0.2)):
        its = replace(PAIRS, language=language, metrics={"text_to_image/recall@1": recall, **_NONE_TO_TEXT})
        results.append(its.with_findings("hubness", {"skew": recall}).beside_english(english))
    text = _written(tmp_path, results, {}, check_page).text
    for language, scores, skew in (("de", "60.0 – 80.0 75.0", "0.6"), ("fr", "20.0 – 80.0 25.0", "0.2")):
        head = f"In {language}: all scores and findings 3 images, 4 texts. The scores in English are those"
        assert text.count(head) == 1
        its = text.partition(head)[2]
        assert f"text → image recall@1 {scores} image → text recall@1 50.0 – 0.0 –" in its
        assert f"skew {skew}" in its
        assert text.count(scores) == 1


_NONE_TO_TEXT = {"image_to_text/recall@1": 0.5}


def _written(folder: Path, results: list[Result], about: dict[str, object], check_page: CheckPage) -> Outline:
    write_report(folder / "report.html", results, about=about)
    return check_page((folder / "report.html").read_text(encoding="utf-8"))
