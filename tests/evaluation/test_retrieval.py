"""A set of pairs scored: names and values of its metrics, and query-bank normalisation against its formula."""

import numpy as np
import pytest
from scipy import stats

from littune.evaluation import evaluate
from littune.evaluation.retrieval import NORMALISED, Banks, Pairs, normalised, score_retrieval
from littune.evaluation.sets.stores import project
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import ColorReader, MakeStore

KS = [1, 5, 10, 20]
LEAN = np.array([0.5, 0.0, 0.0])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn_store(make_store: MakeStore, seed: int, num: int, name: str) -> EmbeddingStore:
    """Images of drawn colours, of one or two texts each; every text is another."""
    rng = np.random.default_rng(seed)
    rows = [
        Row(key=str(number), source="s", texts=tuple(f"{name} {number} {place}" for place in range(1 + number % 2)))
        for number in range(num)
    ]
    return make_store(rows, rng.random((num, 3)), name=name)


def drawn_directions(texts: list[str]) -> np.ndarray:
    """A direction for each text, the same wherever it is asked for; they lean to one side, so that there are hubs."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(3) + LEAN for text in texts]
    return unit(np.stack(rows))


def recalls(scores: np.ndarray, right: np.ndarray) -> list[float]:
    """The share of queries of which a right answer is among the first k, by sorting."""
    order = np.argsort(-scores, axis=1)
    return [float(np.mean([right[row, found[:k]].any() for row, found in enumerate(order)])) for k in KS]


def by_the_formula(bank: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Scores by the dynamic inverted softmax of Bogolin et al., query by query."""
    of_bank, scores = (rows.astype(np.float64) @ answers.T for rows in (bank, queries))
    active = set(of_bank.argmax(axis=1).tolist())
    sums = np.exp(20 * of_bank).sum(axis=0)
    return np.stack([np.exp(20 * row) / sums if int(row.argmax()) in active else row for row in scores])


def skewness_at_10(scores: np.ndarray) -> float:
    top = np.argsort(-scores, axis=1)[:, :10]
    return float(stats.skew(np.bincount(top.ravel(), minlength=scores.shape[1])))


def expected_of(pairs: Pairs, of_texts: np.ndarray, of_images: np.ndarray) -> dict[str, float]:
    """Recall and skewness of these scores, texts with images and images with texts."""
    right = pairs.owners[:, None] == np.arange(len(pairs.images))
    expected = {}
    for way, scores, mask in (("text_to_image", of_texts, right), ("image_to_text", of_images, right.T)):
        for k, share in zip(KS, recalls(scores, mask), strict=True):
            # No text is another's duplicate here.
            expected[f"{way}/recall@{k}"] = expected[f"{way}/recall_dedup@{k}"] = share
        expected[f"{way}/skewness@10"] = skewness_at_10(scores)
    return expected


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore) -> Pairs:
    monkeypatch.setattr(model, "encode_text", drawn_directions)
    store = drawn_store(make_store, 0, 60, "evaluated")
    return Pairs.of(model, store, store.texts(), "evaluated")


def test_a_k_beyond_the_number_of_answers_is_left_out(pairs: Pairs) -> None:
    metrics = score_retrieval(pairs, [1, 60, 61, 90, 91], details=False, banks=None).metrics
    assert set(metrics) == {
        *(f"text_to_image/{kind}@{k}" for kind in ("recall", "recall_dedup") for k in (1, 60)),
        *(f"image_to_text/{kind}@{k}" for kind in ("recall", "recall_dedup") for k in (1, 60, 61, 90)),
    }
    assert metrics["text_to_image/recall@60"] == metrics["image_to_text/recall@90"] == 1
    assert all(type(value) is float for value in metrics.values())


def test_where_every_k_is_beyond_there_is_nothing_to_say(pairs: Pairs) -> None:
    result = score_retrieval(pairs, [1000], details=True, banks=None)
    assert result.metrics == result.intervals == {}


def test_recall_and_skewness_are_those_of_sorted_scores(pairs: Pairs) -> None:
    result = score_retrieval(pairs, KS, details=True, banks=None)
    scores = pairs.texts.astype(np.float64) @ pairs.images.T
    found = {**result.metrics, **result.findings["hubness"]}
    assert found == pytest.approx(expected_of(pairs, scores, scores.T))
    assert found["text_to_image/recall@1"] != found["image_to_text/recall@1"]


def test_each_direction_is_normalised_by_its_own_bank(pairs: Pairs) -> None:
    rng = np.random.default_rng(1)
    banks = Banks(texts=unit(rng.standard_normal((80, 3)) + LEAN), images=unit(rng.standard_normal((70, 3))))
    expected = expected_of(
        pairs,
        by_the_formula(banks.texts, pairs.texts, pairs.images),
        by_the_formula(banks.images, pairs.images, pairs.texts),
    )
    assert normalised(pairs, banks, KS) == pytest.approx(expected)
    # The test can tell: neither the other bank nor plain scores give these numbers, in either direction.
    scores = pairs.texts @ pairs.images.T
    plain = expected_of(pairs, scores, scores.T)
    swapped = normalised(pairs, Banks(texts=banks.images, images=banks.texts), KS)
    for way in ("text_to_image", "image_to_text"):
        for other in (plain, swapped):
            assert expected[f"{way}/skewness@10"] != pytest.approx(other[f"{way}/skewness@10"])
            assert any(expected[f"{way}/recall@{k}"] != pytest.approx(other[f"{way}/recall@{k}"]) for k in KS)


def test_the_banks_are_the_texts_and_images_of_the_training_data(
    pairs: Pairs, model: ColorReader, make_store: MakeStore
) -> None:
    seen = drawn_store(make_store, 5, 40, "seen")
    (result,) = evaluate(model, pairs.store, ks=KS, checks=["hubness"], seen=[seen.path]).results
    texts = drawn_directions([text for its in seen.texts() for text in its])
    images = np.concatenate(list(project(model, seen)))
    expected = expected_of(
        pairs,
        by_the_formula(texts, pairs.texts, pairs.images),
        by_the_formula(images, pairs.images, pairs.texts),
    )
    assert result.findings[NORMALISED] == pytest.approx(expected)
