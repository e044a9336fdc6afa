"""Findings, duplicates and facts as tables."""

from littune.evaluation.report.findings import about_section, duplicates_section, facts, findings_section, number
from littune.evaluation.results import Duplicate, Result
from littune.evaluation.retrieval import NORMALISED
from tests.evaluation.report.conftest import NASTY, CheckPage

RESULT = Result(data="d", task="zero_shot", num_images=1, metrics={"accuracy@1": 0.5})


def test_numbers() -> None:
    assert [number(value) for value in (0.0, 0.12345, 1.0, 57.345, 12000.0, 1e-7)] == [
        "0",
        "0.123",
        "1",
        "57.3",
        "12,000",
        "1e-07",
    ]


def test_every_finding_is_shown(check_page: CheckPage) -> None:
    found = {"calibration": {"ece": 0.1432}, NASTY: {f"a_b/{NASTY}": 1.0}}
    result = Result(data="d", task="zero_shot", num_images=1, metrics={}, findings=found)
    text = check_page(findings_section(result)).text
    assert "Calibration" in text and "ece 0.143" in text
    assert f"a b/{NASTY} 1" in text


def test_a_score_among_the_findings_is_a_percent_like_the_score_itself(check_page: CheckPage) -> None:
    result = Result(
        data="d",
        task="zero_shot",
        num_images=1,
        metrics={"accuracy@1": 0.5},
        findings={"without": {"accuracy@1": 0.456}},
    )
    assert "accuracy@1 45.6 %" in check_page(findings_section(result)).text


def test_without_findings_and_duplicates_there_is_nothing() -> None:
    assert findings_section(RESULT) == "" and duplicates_section(()) == ""


def test_many_duplicates_are_all_listed(check_page: CheckPage) -> None:
    found = [Duplicate(key=f"k{number}", seen_key=NASTY, seen_in="s", cosine=0.98765) for number in range(30)]
    text = check_page(duplicates_section(found)).text
    assert "trained on: 30." in text and "10 more" in text
    assert all(f"k{number} {NASTY} s 0.988" in text for number in range(30))


def test_facts_may_stand_in_facts(check_page: CheckPage) -> None:
    values = {"a_b": {"c": [1, 2], "d": [None, ["x", False]]}, "f": True, "g": 12345, "h": 0.5, NASTY: NASTY}
    text = check_page(facts(values)).text
    assert text == f"a b c 1, 2 d –, x, no f yes g 12,345 h 0.5 {NASTY} {NASTY}"


def test_what_is_unset_is_left_out(check_page: CheckPage) -> None:
    values = {"a": None, "b": False, "c": "", "d": [], "e": {}, "f": {"g": {"h": ()}}, "zero": 0, "none": 0.0}
    assert check_page(facts(values)).text == "zero 0 none 0"
    assert about_section({"all_unset": {"a": None}}) == ""


def test_many_facts_are_folded(check_page: CheckPage) -> None:
    settings = {f"setting_{number}": number for number in range(1, 14)}
    few = check_page(about_section({"training": {**settings, "setting_1": None}}))
    many = check_page(about_section({"training": {**settings, "unset": ""}}))
    assert "details" not in dict(few.tags) and "details" in dict(many.tags)
    assert many.text.startswith("How it was done Training all 13 setting 1 1")


def test_a_mapping_is_a_section(check_page: CheckPage) -> None:
    text = check_page(about_section({"run": "r", "cost": {"seconds": 3.2}, "nothing": {}})).text
    assert text == "How it was done Cost seconds 3.2"
    assert about_section({"run": "r"}) == ""


def test_an_accuracy_among_the_findings_is_a_percent(check_page: CheckPage) -> None:
    found = {"prompts": {"ensemble": 0.53, "other": 0.25}}
    result = Result(data="d", task="zero_shot", num_images=1, metrics={}, findings=found)
    text = check_page(findings_section(result)).text
    assert "ensemble 53.0 % other 0.25" in text


def test_a_deduplicated_score_is_shown_where_it_differs(check_page: CheckPage) -> None:
    found = {"other": {"recall@1": 0.5, "recall_dedup@1": 0.5, "recall@5": 0.5, "recall_dedup@5": 0.75}}
    result = Result(data="d", task="retrieval", num_images=1, metrics={}, findings=found)
    text = check_page(findings_section(result)).text
    assert text == "Findings other recall@1 0.5 recall@5 0.5 recall dedup@5 0.75"


def test_near_duplicates_are_counted_and_scored_without(check_page: CheckPage) -> None:
    result = RESULT.with_findings("duplicates", {"found": 3, "accuracy@1": 0.25})
    text = check_page(findings_section(result)).text
    assert text.endswith("the scores on the others. images seen in training 3 accuracy@1 25.0 %")


def test_normalised_recall_is_explained(check_page: CheckPage) -> None:
    result = RESULT.with_findings(NORMALISED, {"accuracy@1": 0.25})
    text = check_page(findings_section(result)).text
    assert text.startswith("Findings Hubness, normalised Skew and recall when") and text.endswith("accuracy@1 25.0 %")


def test_scores_in_english_are_no_findings() -> None:
    assert findings_section(RESULT.beside_english(RESULT)) == ""
