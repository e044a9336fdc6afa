"""The zero-shot classifier, by hand and against clip-benchmark's."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier as reference_classifier

from littune.base.errors import InputError
from littune.model import zero_shot
from littune.model.zero_shot import prompts, zero_shot_classifier

TEMPLATES = ["a {}.", "{}", "two {}s"]
NAMES = ["cat", "Sea_Lion", "St. Bernard", "cat"]


def embed(texts: Sequence[str]) -> np.ndarray:
    """A row of lengths between 0 and 10 that a text alone decides."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(5) for text in texts]
    scales = [1 + len(text) % 10 for text in texts]
    return np.array([row * scale for row, scale in zip(rows, scales, strict=True)], dtype=np.float32)


def test_rows_are_normalised_averaged_and_normalised_again() -> None:
    rows = {"a x": [3.0, 0.0], "x": [0.0, 0.5], "a y": [0.0, 2.0], "y": [0.0, 4.0]}
    classifier = zero_shot_classifier(
        lambda texts: np.array([rows[text] for text in texts], dtype=np.float32), ["x", "y"], ["a {}", "{}"]
    )
    assert classifier.dtype == np.float32
    np.testing.assert_allclose(classifier, [[2**-0.5, 2**-0.5], [0, 1]], rtol=1e-6)


def test_it_is_the_classifier_of_clip_benchmark() -> None:
    class Model:
        def encode_text(self, numbers: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(embed([texts[number] for number in numbers.tolist()]))

    texts: list[str] = []

    def tokenizer(batch: list[str]) -> torch.Tensor:
        texts.extend(batch)
        return torch.arange(len(texts) - len(batch), len(texts))

    spelled = [template.replace("{}", "{c}") for template in TEMPLATES]
    expected = reference_classifier(Model(), tokenizer, NAMES, spelled, "cpu", amp=False).T.numpy()
    np.testing.assert_allclose(zero_shot_classifier(embed, NAMES, spelled), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("at_once", "calls"), [(1 << 14, [12]), (7, [6, 6]), (6, [6, 6]), (1, [3, 3, 3, 3])])
def test_the_tower_is_called_with_many_whole_classes_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int, calls: list[int]
) -> None:
    expected = zero_shot_classifier(embed, NAMES, TEMPLATES)
    monkeypatch.setattr(zero_shot, "_TEXTS_AT_ONCE", at_once)
    read: list[Sequence[str]] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        read.append(texts)
        return embed(texts)

    assert np.array_equal(zero_shot_classifier(encode, NAMES, TEMPLATES), expected)
    assert [len(texts) for texts in read] == calls
    assert [text for texts in read for text in texts] == prompts(NAMES, TEMPLATES)


def test_prompts_keep_a_class_together_and_may_be_canonical() -> None:
    assert prompts(["Sea_Lion", "x"], ["A {}.", "{}"]) == ["A Sea_Lion.", "Sea_Lion", "A x.", "x"]
    assert prompts(["Sea_Lion", "x"], ["A {}.", "{}"], canonical=True) == ["a sea lion", "sea lion", "a x", "x"]


def test_an_embedding_of_zeros_stays_zero() -> None:
    classifier = zero_shot_classifier(lambda texts: np.zeros((len(texts), 3), np.float32), ["x"], ["{}"])
    assert np.array_equal(classifier, np.zeros((1, 3)))


def test_no_names_no_templates_and_a_template_without_a_place_are_errors() -> None:
    with pytest.raises(InputError, match="no class names"):
        zero_shot_classifier(embed, [], ["{}"])
    with pytest.raises(InputError, match="no templates"):
        zero_shot_classifier(embed, ["x"], [])
    with pytest.raises(InputError, match=r"'a photo' has no \{\}"):
        zero_shot_classifier(embed, ["x"], ["a photo"])
