"""What evaluate adds to the scores, on colours: intervals, languages, what was seen in training, probes, the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError, MismatchError, MissingExtraError
from littune.evaluation import evaluate
from littune.evaluation.results import IN_ENGLISH, SHARE_OF_ENGLISH, RetrievalOutcome, ZeroShotOutcome
from littune.evaluation.retrieval import NORMALISED
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import COLORS, ColorReader, MakeStore, make_tower

RGB = {name: np.array(color) / 255 for name, color in COLORS.items()}


def labelled(make_store: MakeStore, names: list[str], *, right: list[object] | None = None) -> EmbeddingStore:
    """A picture of each of these colours, labelled as what it is or with the classes that ``right`` says."""
    classes = ("red", "green", "blue")
    rows = [
        Row(
            key=str(number),
            source="s",
            label=classes.index(name),
            fields={} if right is None else {"labels": right[number]},
        )
        for number, name in enumerate(names)
    ]
    return make_store(rows, np.stack([RGB[name] for name in names]), classnames=classes, templates=("a {}",))


def paired(make_store: MakeStore, texts: dict[str, str], *, name: str = "pairs", **fields: object) -> EmbeddingStore:
    rows = [
        Row(key=f"{name}-{color}", source="s", texts=(text,), fields={what: its[color] for what, its in fields.items()})
        for color, text in texts.items()
    ]
    return make_store(rows, np.stack([RGB[color] for color in texts]), name=name)


def test_scores_come_with_intervals_and_what_came_out_for_each_image(model: ColorReader, make_store: MakeStore) -> None:
    (result,) = evaluate(model, labelled(make_store, ["red", "green", "blue"])).results
    assert result.metrics == {"accuracy@1": 1.0, "mean_per_class_accuracy": 1.0}
    assert result.intervals == {"accuracy@1": (1.0, 1.0), "mean_per_class_accuracy": (1.0, 1.0)}
    outcome = result.outcome
    assert isinstance(outcome, ZeroShotOutcome)
    assert outcome.top[:, 0].tolist() == outcome.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert set(result.findings["calibration"]) >= {"ece", "temperature"}


def test_pairs_say_how_skewed_they_are_and_who_was_found(model: ColorReader, make_store: MakeStore) -> None:
    store = paired(make_store, {"red": "red", "green": "green", "blue": "red green"})
    (result,) = evaluate(model, store, ks=[1]).results
    outcome = result.outcome
    assert isinstance(outcome, RetrievalOutcome)
    assert outcome.top_images[:2, 0].tolist() == [0, 1] and outcome.top_texts.shape == (3, 3)
    assert result.findings["hubness"].keys() == {"text_to_image/skewness@10", "image_to_text/skewness@10"}
    assert result.intervals.keys() == result.metrics.keys()


def test_without_details_there_are_scores_alone(model: ColorReader, make_store: MakeStore) -> None:
    (result,) = evaluate(model, labelled(make_store, ["red", "green"]), details=False).results
    assert result.metrics and not result.intervals and not result.findings and result.outcome is None


def test_an_image_may_have_several_right_classes_or_none(model: ColorReader, make_store: MakeStore) -> None:
    store = labelled(make_store, ["red", "green", "blue"], right=[[1, 0], [2], []])
    (result,) = evaluate(model, store).results
    # Red is right for the first, green is not what the second is said to be, the third is not scored.
    assert (result.num_images, result.metrics["accuracy@1"]) == (2, 0.5)


def test_classes_go_by_other_names(model: ColorReader, make_store: MakeStore) -> None:
    store = labelled(make_store, ["red", "green", "blue"])
    evaluate(model, store, classnames=["rouge", "vert", "bleu"])
    assert model.texts_read == ["a rouge", "a vert", "a bleu"]
    with pytest.raises(InputError, match="2 class names"):
        evaluate(model, store, classnames=["rouge", "vert"])


def test_each_language_is_scored_beside_english_on_the_same_images(model: ColorReader, make_store: MakeStore) -> None:
    # In "French" red and green are told for each other; blue has no French text.
    store = paired(
        make_store,
        {"red": "red", "green": "green", "blue": "blue"},
        translations={"red": {"fr": "green"}, "green": {"fr": "red"}, "blue": {}},
    )
    own, french = evaluate(model, store, ks=[1], languages=["fr"]).results
    assert (own.language, own.num_images, own.metrics["text_to_image/recall@1"]) == ("", 3, 1.0)
    assert (french.language, french.num_images, french.metrics["text_to_image/recall@1"]) == ("fr", 2, 0.0)
    assert french.findings[IN_ENGLISH]["text_to_image/recall@1"] == 1.0
    assert french.findings[SHARE_OF_ENGLISH]["text_to_image/recall@1"] == 0.0
    with pytest.raises(InputError, match=f"^{store.path}: no texts in the language 'tlh'; there are fr"):
        evaluate(model, store, languages=["tlh"])


def test_class_names_in_other_languages_come_from_files(
    model: ColorReader, make_store: MakeStore, tmp_path: Path
) -> None:
    (tmp_path / "names.fr.txt").write_text("red\n\ngreen\n", encoding="utf-8")
    store = labelled(make_store, ["red", "green", "blue"])
    pattern = str(tmp_path / "names.{lang}.txt")
    own, french = evaluate(model, store, classnames=pattern, languages=["fr"]).results
    assert own.metrics["accuracy@1"] == 1
    # Green has no name and is left out; blue is called green, which is nearest to it all the same.
    assert french.num_images == 2
    assert french.findings[IN_ENGLISH]["accuracy@1"] == 1.0


def test_images_seen_in_training_are_listed_and_left_out(model: ColorReader, make_store: MakeStore) -> None:
    # Seen: the red one. The blue one is told wrong, so that leaving red out lowers the score.
    evaluated = paired(make_store, {"red": "red", "green": "green", "blue": "red green"}, name="evaluated")
    seen = paired(make_store, {"red": "x", "yellow": "y"}, name="seen")
    (result,) = evaluate(model, evaluated, ks=[1], checks=["duplicates"], seen=[seen.path]).results
    (duplicate,) = result.duplicates
    assert (duplicate.key, duplicate.seen_key, duplicate.seen_in) == ("evaluated-red", "seen-red", str(seen.path))
    assert duplicate.cosine == pytest.approx(1)
    assert result.metrics["image_to_text/recall@1"] == pytest.approx(2 / 3)
    assert result.findings["duplicates"]["image_to_text/recall@1"] == pytest.approx(1 / 2)
    assert json.loads(json.dumps(result.to_dict()))["duplicates"][0]["key"] == "evaluated-red"


def test_training_queries_normalise_hubs(model: ColorReader, make_store: MakeStore) -> None:
    evaluated = paired(make_store, {"red": "red", "green": "green", "blue": "blue"}, name="evaluated")
    seen = paired(make_store, {"red": "red", "yellow": "yellow"}, name="seen")
    (result,) = evaluate(model, evaluated, ks=[1], checks=["hubness"], seen=[seen.path]).results
    normalised = result.findings[NORMALISED]
    assert normalised.keys() >= {"text_to_image/skewness@10", "text_to_image/recall@1", "image_to_text/recall@1"}


def test_a_training_store_must_be_there_and_of_the_same_tower(model: ColorReader, make_store: MakeStore) -> None:
    store = paired(make_store, {"red": "red"})
    other = make_store([Row(key="a", source="s", texts=("x",))], RGB["red"][None], tower=make_tower(2.0), name="other")
    with pytest.raises(InputError, match="name one with seen"):
        evaluate(model, store, checks=["duplicates"])
    with pytest.raises(MismatchError, match="other"):
        evaluate(model, store, checks=["duplicates"], seen=[other.path])
    with pytest.raises(InputError, match="leave one of them out"):
        evaluate(model, store, checks=["duplicates"], details=False)


def test_probes_tell_what_the_tower_alone_can_do(model: ColorReader, make_store: MakeStore) -> None:
    rng = np.random.default_rng(0)
    names = ["red", "green", "blue"] * 8
    rows = [Row(key=str(number), source="s", label=number % 3) for number in range(len(names))]
    colors = np.stack([RGB[name] for name in names]) + 0.05 * rng.standard_normal((len(names), 3))
    # The names are told for each other: only a probe can find out what the classes are.
    store = make_store(rows, colors, classnames=("green", "blue", "red"), templates=("{}",))
    (result,) = evaluate(model, store, checks=["probe", "prompts"]).results
    assert result.metrics["accuracy@1"] == 0
    # Three dimensions are too few for big_vision's penalty, which is made for a tower's thousand.
    assert result.findings["probe"].keys() == {"linear probe", "10-shot least squares"}
    assert result.findings["probe"]["linear probe"] == 1
    assert result.findings["prompts"]["ensemble"] == 0


def test_an_evaluation_is_saved_as_data_or_as_a_page(model: ColorReader, make_store: MakeStore, tmp_path: Path) -> None:
    evaluation = evaluate(model, labelled(make_store, ["red", "green", "blue"]))
    evaluation.save(tmp_path / "scores.json")
    saved = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert saved["results"][0]["metrics"]["accuracy@1"] == 1.0
    assert saved["about"]["versions"]["torch"] and saved["about"]["cost"]["scoring, seconds"] > 0
    evaluation.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>") and "100.0" in page


def test_a_set_may_have_texts_in_another_language_alone(
    model: ColorReader, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(key=color, source="s", fields={"captions_de": [color]}) for color in ("red", "green")]
    store = make_store(rows, np.stack([RGB["red"], RGB["green"]]))
    (german,) = evaluate(model, store, ks=[1], languages=["de"]).results
    assert (german.language, german.metrics["text_to_image/recall@1"]) == ("de", 1.0)
    assert IN_ENGLISH not in german.findings
    with pytest.raises(InputError, match="no text in its captions"):
        evaluate(model, store)


def test_a_language_is_compared_with_english_on_the_rows_that_have_both(
    model: ColorReader, make_store: MakeStore
) -> None:
    fields = [{"captions_de": ["red"]}, {"captions_de": ["green"]}, {"captions_de": ["blue"]}]
    rows = [
        Row(key=str(number), source="s", texts=texts, fields=its)
        for number, (texts, its) in enumerate(zip([("red",), ("green",), ()], fields, strict=True))
    ]
    store = make_store(rows, np.stack([RGB[color] for color in ("red", "green", "blue")]))
    german = evaluate(model, store, ks=[1], languages=["de"]).results[-1]
    assert (german.language, german.num_images) == ("de", 2)


def test_of_several_sets_one_may_lack_a_language(
    model: ColorReader, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    without = paired(make_store, {"red": "red", "green": "green"}, name="without")
    having = paired(make_store, {"red": "red"}, name="having", translations={"red": {"fr": "red"}})
    results = evaluate(model, [without, having], languages=["fr"]).results
    assert [(Path(result.data).name, result.language) for result in results] == [
        ("without", ""),
        ("having", ""),
        ("having", "fr"),
    ]
    assert "without is not scored in fr" in capsys.readouterr().err


def test_a_set_that_was_seen_whole_has_no_scores_without_it(model: ColorReader, make_store: MakeStore) -> None:
    evaluated = paired(make_store, {"red": "red", "green": "green"}, name="evaluated")
    (result,) = evaluate(model, evaluated, checks=["duplicates"], seen=[evaluated.path]).results
    assert result.findings["duplicates"] == {"found": 2}


def test_images_that_are_not_scored_are_no_duplicates(model: ColorReader, make_store: MakeStore) -> None:
    evaluated = labelled(make_store, ["red", "green", "blue"], right=[[0], [1], []])
    seen = paired(make_store, {"blue": "x", "yellow": "y"}, name="seen")
    (result,) = evaluate(model, evaluated, checks=["duplicates"], seen=[seen.path]).results
    assert result.findings["duplicates"] == {"found": 0} and result.duplicates == ()


def test_all_checks_go_on_where_nothing_that_was_trained_on_is_there(
    model: ColorReader, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = evaluate(model, paired(make_store, {"red": "red", "green": "green"}), checks=["all"]).results
    assert result.findings.keys() == {"hubness"}
    assert "no store of images that the model was trained on" in capsys.readouterr().err


def test_what_cannot_be_asked_is_said_before_anything_is_scored(model: ColorReader, make_store: MakeStore) -> None:
    good, other = paired(make_store, {"red": "red"}), labelled(make_store, ["red", "green", "blue"], right=None)
    for asked, why in [
        ({"classnames": ["only one"]}, "1 class names"),
        ({"seen": ["x"]}, "goes with one of these checks"),
        ({"classnames": "names.{lang}.txt"}, "is for languages"),
    ]:
        with pytest.raises(InputError, match=why):
            evaluate(model, [good, other], **asked)
    with pytest.raises(InputError, match="3 classes and CIFAR-100 has 100"):
        evaluate(model, [good, f"cifar100:{other.path}"])
    with pytest.raises(InputError, match=r"not Flickr30k, a set of pairs"):
        evaluate(model, [good, f"flickr30k:{other.path}"])
    with pytest.raises(InputError, match="border"):
        evaluate(model, [good, f"objectnet:{other.path}"])
    assert model.texts_read == []


def test_what_embedding_and_training_took_is_told(model: ColorReader, make_store: MakeStore, tmp_path: Path) -> None:
    store = paired(make_store, {"red": "red"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cost.json").write_text('{"seconds": 7.0}', encoding="utf-8")
    (tmp_path / "run" / "config.toml").write_text(f"store = [{str(store.path)!r}]", encoding="utf-8")
    model.folder = tmp_path / "run"
    about = evaluate(model, store, checks=["hubness"]).about
    assert about["cost"]["training, seconds"] == 7
    assert f"embedding {store.path}, seconds" in about["cost"]
    assert about["evaluation"]["looked at, of what was trained on"] == [str(store.path)]


def test_without_scikit_learn_all_other_checks_go_on(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("littune.evaluation.checks.probe.find_spec", lambda _: None)
    store = labelled(make_store, ["red", "green", "blue"])
    (result,) = evaluate(model, store, checks=["all"]).results
    assert result.findings.keys() == {"calibration", "prompts"}
    assert "is not probed: a linear probe needs an extra" in capsys.readouterr().err
    with pytest.raises(MissingExtraError, match="probe"):
        evaluate(model, store, checks=["probe"])
