"""Recall by hand, against clip-benchmark, and against a slow, obvious count where there are ties."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

from littune.evaluation.metrics import retrieval
from littune.evaluation.metrics.ranks import share_within
from littune.evaluation.metrics.retrieval import nearest, retrieval_ranks, text_groups


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(seed: int, *, num_images: int = 60, dim: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, texts near them, and each text's image; an image has one to five texts, in no order."""
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.arange(num_images), rng.integers(1, 6, num_images)))
    images = rng.standard_normal((num_images, dim))
    return unit(images), unit(images[owners] + 1.5 * rng.standard_normal((len(owners), dim))), owners


def obvious_ranks(scores: np.ndarray, right: np.ndarray) -> list[int]:
    """The wrong answers that are not below the best right one, row by row."""
    ranks = []
    for row, is_right in zip(scores, right, strict=True):
        best = max(row[is_right])
        ranks.append(sum(1 for score, it_is in zip(row, is_right, strict=True) if not it_is and score >= best))
    return ranks


def test_by_hand() -> None:
    # Along one axis each: image 0 has the texts 0 and 1, image 1 the text 2, image 2 the text 3.
    images = np.eye(3, dtype=np.float32)
    texts = unit(
        np.array(
            [
                [0.9, 0.1, 0.0],  # finds its image 0 first
                [0.5, 0.8, 0.3],  # second, behind image 1
                [0.3, 0.4, 0.1],  # first
                [0.7, 0.6, 0.4],  # last
            ]
        )
    )
    owners = np.array([0, 0, 1, 2])
    ranks = retrieval_ranks(images, texts, owners, np.arange(4))
    assert ranks["text_to_image/recall"].tolist() == [0, 1, 0, 2]
    # Scores of the four texts: image 1 .11 .81 .78 .60 (its own is text 2), image 2 0 .30 .20 .40 (text 3).
    assert ranks["image_to_text/recall"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(6))
def test_recall_is_clip_benchmarks_to_the_last_digit(seed: int) -> None:
    images, texts, owners = drawn(seed)
    scores = torch.from_numpy(texts @ images.T)
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.from_numpy(owners)] = True
    ranks = retrieval_ranks(images, texts, owners, np.arange(len(texts)))
    ours = {f"{name}@{k}": share_within(values, k) for name, values in ranks.items() for k in (1, 5, 10)}
    for k in (1, 5, 10):
        for name, args in {"text_to_image": (scores, positive), "image_to_text": (scores.T, positive.T)}.items():
            theirs = (batchify(recall_at_k, *args, 17, "cpu", k=k) > 0).float().mean().item()
            assert np.float32(ours[f"{name}/recall@{k}"]) == np.float32(theirs)
            assert ours[f"{name}/recall_dedup@{k}"] == ours[f"{name}/recall@{k}"]
    assert 0 < ours["text_to_image/recall@1"] < ours["text_to_image/recall@10"] < 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_ranks_with_ties_and_duplicates_are_the_obvious_ones(
    monkeypatch: pytest.MonkeyPatch, seed: int, block: int
) -> None:
    monkeypatch.setattr(retrieval, "_SCORES_IN_A_BLOCK", block)
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.arange(20), rng.integers(1, 5, 20)))
    groups = rng.integers(0, 25, len(owners))
    # Small whole numbers: many scores are equal, and every product is exact.
    images = rng.integers(-1, 2, (20, 4)).astype(np.float32)
    texts = rng.integers(-1, 2, (len(owners), 4)).astype(np.float32)
    scores = texts @ images.T
    own = owners[:, None] == np.arange(20)
    # A text of image i's group is right for i, and i for the text.
    same = groups[:, None] == groups
    shared = (same.astype(int) @ own) > 0
    ranks = retrieval_ranks(images, texts, owners, groups)
    assert ranks["text_to_image/recall"].tolist() == obvious_ranks(scores, own)
    assert ranks["image_to_text/recall"].tolist() == obvious_ranks(scores.T, own.T)
    assert ranks["text_to_image/recall_dedup"].tolist() == obvious_ranks(scores, shared)
    assert ranks["image_to_text/recall_dedup"].tolist() == obvious_ranks(scores.T, shared.T)
    assert (ranks["text_to_image/recall"] != ranks["text_to_image/recall_dedup"]).any()


@pytest.mark.parametrize("block", [1, 100, 1 << 24])
def test_scores_are_adjusted_before_they_are_ranked(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(retrieval, "_SCORES_IN_A_BLOCK", block)
    images, texts, owners = drawn(3, num_images=30)
    rng = np.random.default_rng(0)
    less_for_image, less_for_text = (rng.random(n, dtype=np.float32) for n in (len(images), len(texts)))
    own = owners[:, None] == np.arange(len(images))
    for direction, less, scores, right in (
        ("text_to_image", less_for_image, texts @ images.T, own),
        ("image_to_text", less_for_text, images @ texts.T, own.T),
    ):
        # Not in place: a function must be free to hand back new scores.
        adjust = {direction: lambda block, less=less: block - less}
        plain = retrieval_ranks(images, texts, owners, np.arange(len(texts)))
        ranks = retrieval_ranks(images, texts, owners, np.arange(len(texts)), adjust=adjust)
        expected = obvious_ranks(scores - less, right)
        for name, found in ranks.items():
            assert found.tolist() == (expected if name.startswith(direction) else plain[name].tolist())
        assert ranks[f"{direction}/recall"].tolist() != plain[f"{direction}/recall"].tolist()


@pytest.mark.parametrize("block", [1, 50, 1 << 24])
def test_nearest_answers_are_those_of_a_stable_sort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(retrieval, "_SCORES_IN_A_BLOCK", block)
    rng = np.random.default_rng(0)
    # Small whole numbers: many scores are equal.
    queries, answers = (rng.integers(-1, 2, (n, 4)).astype(np.float32) for n in (30, 20))
    order = np.argsort(-(queries @ answers.T), axis=1, kind="stable")
    for k in (1, 5, 20):
        assert nearest(queries, answers, k).tolist() == order[:, :k].tolist()
    assert nearest(queries, answers, 21).shape == (30, 20)
    assert (
        nearest(queries, answers, 20, adjust=np.negative).tolist()
        == np.argsort(queries @ answers.T, axis=1, kind="stable").tolist()
    )


def test_equal_answers_are_named_in_their_order() -> None:
    images, texts, _ = drawn(0, num_images=33, dim=37)
    twice = nearest(texts, np.concatenate([images, images]), 4)
    once = nearest(texts, images, 2)
    assert twice.tolist() == np.stack([once, once + 33], axis=2).reshape(-1, 4).tolist()


@pytest.mark.parametrize("block", [1 << 12, 1 << 24])
def test_one_product_gives_the_ranks_of_two(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(retrieval, "_SCORES_IN_A_BLOCK", block)
    images, texts, owners = drawn(1, num_images=300, dim=37)
    # Equal texts of several images, equal images, and an image and its text that are no numbers.
    texts[5], images[7], images[9] = texts[100], images[8], np.nan
    groups = np.arange(len(texts)) // 2
    one = retrieval_ranks(images, texts, owners, groups)
    # Texts that are ranked by adjusted scores must not make images see those.
    adjusted = retrieval_ranks(images, texts, owners, groups, adjust={"text_to_image": np.negative})
    two = retrieval_ranks(images, texts, owners, groups, adjust={"image_to_text": np.positive})
    for name, ranks in two.items():
        assert one[name].tolist() == ranks.tolist()
        assert (adjusted[name].tolist() == ranks.tolist()) == name.startswith("image_to_text")


def test_memory_is_a_block_whatever_the_number_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_SCORES_IN_A_BLOCK", 1 << 16)
    rng = np.random.default_rng(0)
    images, texts = (unit(rng.standard_normal((n, 8))) for n in (800, 4000))
    owners = np.repeat(np.arange(800), 5)
    peaks = []
    for call in (
        lambda: retrieval_ranks(images, texts, owners, owners),
        lambda: retrieval_ranks(images, texts, owners, owners, adjust={"image_to_text": np.negative}),
        lambda: nearest(images, texts, 5),
    ):
        tracemalloc.start()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # All scores would be 12.8 MB, and their comparison 3.2 more; a block is 0.26 MB, and each row takes some numbers.
    assert max(peaks) < 2e6


def test_a_duplicate_text_counts_for_every_owner_only_in_dedup() -> None:
    images = np.eye(2, dtype=np.float32)
    texts = unit(np.array([[1.0, 0.5], [1.0, 0.5]]))
    ranks = retrieval_ranks(images, texts, np.array([0, 1]), text_groups(["A dog .", "a dog"]))
    # Text 1 finds image 0 first, which has the same text. Either image sees two equal texts, one of them its own.
    assert {name: found.tolist() for name, found in ranks.items()} == {
        "text_to_image/recall": [0, 1],
        "image_to_text/recall": [1, 1],
        "text_to_image/recall_dedup": [0, 0],
        "image_to_text/recall_dedup": [0, 0],
    }


def test_a_model_that_says_nothing_gets_nothing_right() -> None:
    owners = np.arange(12)
    for value in (0.5, math.nan):
        rows = np.full((12, 4), value, dtype=np.float32)
        for ranks in retrieval_ranks(rows, rows, owners, owners).values():
            assert ranks.tolist() == [11] * 12


@pytest.mark.parametrize("num_images", [5, 33, 130])
def test_equal_embeddings_tie_wherever_they_stand(num_images: int) -> None:
    # A matrix product may round the same dot product differently at its edges; a tie must not be lost by that.
    images, texts, owners = drawn(0, num_images=num_images, dim=37)
    twice = np.concatenate([images, images])
    ranks = retrieval_ranks(
        twice,
        np.concatenate([texts, texts]),
        np.concatenate([owners, owners + num_images]),
        np.arange(2 * len(texts)),
    )
    # Each right answer has a twin that is wrong.
    assert (ranks["text_to_image/recall"] % 2 == 1).all()
    assert (ranks["image_to_text/recall"] >= 1).all()


def test_texts_are_duplicates_whatever_their_case_spacing_and_full_stop() -> None:
    groups = text_groups(["A  dog .", "a dog", "a dog!", "keycap: #", "keycap: *", ".", "STRASSE", "straße"])
    assert groups.tolist() == [0, 0, 1, 2, 3, 4, 5, 5]


def test_an_image_without_a_text_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        retrieval_ranks(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.array([0, 0, 2]), np.arange(3))
