"""Prompt sensitivity: scores by hand for a text tower of words, and the control of random words."""

from collections.abc import Sequence

import numpy as np
import pytest

from littune.base.errors import InputError
from littune.evaluation.checks.sensitivity import prompt_sensitivity
from littune.model.zero_shot import zero_shot_classifier

NAMES = ["cat", "dog"]


class Reader:
    """Sees of a text the names, and the word "good" or "bad"; keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        known = ("cat", "dog", "good", "bad")
        seen = [[word in text.lower().split() for word in known] for text in texts]
        return np.array(seen, dtype=np.float32)


def goodness(classifier: np.ndarray) -> float:
    """How much of the first class's direction is "good", less what is "bad"."""
    return float(classifier[0, 2] - classifier[0, 3])


def test_each_template_and_all_of_them_by_hand() -> None:
    found = prompt_sensitivity(Reader(), NAMES, ["a good {}", "{}", "a bad {}"], goodness)
    half = 1 / np.sqrt(2)
    assert found["one_template_min"] == pytest.approx(-half)
    assert found["one_template_median"] == 0
    assert found["one_template_max"] == pytest.approx(half)
    assert found["one_template_std"] == pytest.approx(np.std([half, 0, -half]))
    assert found["ensemble"] == pytest.approx(0)
    assert found["bare_names"] == 0
    # Ordinary words are neither.
    assert found["random_words"] == found["random_words_std"] == 0


def test_the_scores_are_those_of_classifiers_made_one_by_one() -> None:
    rng, rows = np.random.default_rng(0), {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.stack([rows.setdefault(text, rng.normal(size=5).astype(np.float32)) for text in texts])

    templates = ["a {}.", "the {} of it", "{}"]
    found = prompt_sensitivity(encode, NAMES, templates, lambda weights: float(weights[0] @ weights[1]), num_draws=4)

    def cosine(some: Sequence[str]) -> float:
        first, second = zero_shot_classifier(encode, NAMES, some)
        return float(first @ second)

    assert found["ensemble"] == pytest.approx(cosine(templates), abs=1e-6)
    assert found["bare_names"] == pytest.approx(cosine(["{}"]), abs=1e-6)
    assert found["one_template_max"] == pytest.approx(max(cosine([each]) for each in templates), abs=1e-6)
    assert found["random_words_std"] > 0


def test_every_distinct_text_is_encoded_once() -> None:
    reader = Reader()
    prompt_sensitivity(reader, NAMES, ["a {}", "{}", "a {}"], goodness, num_draws=2)
    (texts,) = reader.calls
    assert len(texts) == len(set(texts))
    # The templates and bare names, and in each of two draws two random templates.
    assert {"a cat", "a dog", "cat", "dog"} < set(texts) and len(texts) <= 2 * (2 + 2 * 2)


def test_random_templates_have_as_many_words_and_none_of_a_class_name() -> None:
    reader, template = Reader(), "this is, of course, a {}."
    names = ["story", "little_week", "Much more"]
    prompt_sensitivity(reader, names, [template], goodness, num_draws=50)
    controls = {text.split(" story.")[0] for text in reader.calls[0] if text.endswith(" story.")} - {
        "this is, of course, a"
    }
    assert len(controls) == 50 and all(len(control.split()) == 5 for control in controls)
    drawn = {word for control in controls for word in control.split()}
    assert not drawn & {"story", "little", "week", "much", "more", "this", "course,"} and len(drawn) > 50


def test_the_same_seed_draws_the_same_words() -> None:
    first, again, other = Reader(), Reader(), Reader()
    for reader, seed in ((first, 1), (again, 1), (other, 2)):
        prompt_sensitivity(reader, NAMES, ["a {}"], goodness, seed=seed)
    assert first.calls == again.calls != other.calls


def test_canonical_prompts_and_what_cannot_be_prompted() -> None:
    reader = Reader()
    prompt_sensitivity(reader, ["Big_Cat"], ["A Photo: {}."], goodness, canonical=True)
    assert {"a photo big cat", "big cat"} < set(reader.calls[0])
    with pytest.raises(InputError, match="no class names"):
        prompt_sensitivity(reader, [], ["{}"], goodness)
    with pytest.raises(InputError, match="no {}"):
        prompt_sensitivity(reader, NAMES, ["a photo"], goodness)
    with pytest.raises(InputError, match="there are no templates"):
        prompt_sensitivity(reader, NAMES, [], goodness)
