"""Every row is visited as often as it should be, in an order that seed and step decide; positives are all found."""

from collections import Counter

import numpy as np
import pytest

from littune.tuning.data.batches import Batches


def _rows(num_images: int = 40, seed: int = 0):
    """Rows in which images have 1 to 4 texts and some texts belong to several images."""
    random = np.random.default_rng(seed)
    pairs = [(i, t) for i in range(num_images) for t in random.choice(60, random.integers(1, 5), replace=False)]
    image, text = np.array(pairs).T
    return np.ascontiguousarray(image), np.ascontiguousarray(text)


def _stream(batches: Batches, steps: int) -> list[tuple[int, int]]:
    """What the sampler drew, where each image has one text, so that a batch tells its rows."""
    drawn = []
    for step in range(steps):
        batch = batches.at(step)
        drawn += [(int(batch.images[i]), int(batch.texts[t])) for i, t in batch.positives]
    return drawn


def test_an_epoch_visits_every_row_once():
    rows = np.arange(12)
    batches = Batches(row_image=rows, row_text=rows[::-1].copy(), batch_size=4, seed=0)
    assert batches.num_steps(1) == 3
    for epoch in (0, 1):
        drawn = [pair for step in range(3) for pair in _pairs(batches.at(3 * epoch + step))]
        assert sorted(drawn) == [(k, 11 - k) for k in range(12)]
    assert _pairs(batches.at(0)) != _pairs(batches.at(3))


def _pairs(batch) -> list[tuple[int, int]]:
    return [(int(batch.images[i]), int(batch.texts[t])) for i, t in batch.positives]


def test_batches_go_on_into_the_next_epoch():
    rows = np.arange(10)
    batches = Batches(row_image=rows, row_text=rows, batch_size=4, seed=0)
    assert batches.num_steps(2) == 5
    assert Counter(_stream(batches, 2) + _pairs(batches.at(2))).total() >= 10
    # Two epochs are five batches; only the third may hold a row twice, and it counts once there.
    visits = Counter(_stream(batches, 5))
    assert set(visits) == {(k, k) for k in range(10)}
    assert visits.total() == 20 - (4 - len(batches.at(2).images))


def test_a_set_smaller_than_the_batch_is_a_batch_of_everything():
    image, text = _rows(5)
    batches = Batches(row_image=image, row_text=text, batch_size=512, seed=0)
    assert batches.batch_size == len(image)
    assert batches.num_steps(3) == 3
    for step in range(3):
        assert set(_pairs(batches.at(step))) == set(zip(image.tolist(), text.tolist(), strict=True))


def test_a_batch_follows_from_seed_and_step_alone():
    image, text = _rows()
    make = lambda seed: Batches(row_image=image, row_text=text, batch_size=16, seed=seed)  # noqa: E731
    forwards, late = make(1), make(1)
    expected = [_pairs(forwards.at(step)) for step in range(20)]
    assert [_pairs(late.at(step)) for step in reversed(range(20))] == expected[::-1]
    assert _pairs(make(2).at(0)) != expected[0]


def test_positives_are_all_pairs_of_the_batch_that_belong_together():
    image, text = _rows()
    belongs = set(zip(image.tolist(), text.tolist(), strict=True))
    batches = Batches(row_image=image, row_text=text, batch_size=24, seed=0)
    for step in range(10):
        batch = batches.at(step)
        assert len(set(batch.images)) == len(batch.images)
        assert len(set(batch.texts)) == len(batch.texts)
        assert set(_pairs(batch)) == {(i, t) for i in batch.images for t in batch.texts if (i, t) in belongs}
        assert len(set(_pairs(batch))) == len(batch.positives)
        assert set(batch.positives[:, 0].tolist()) == set(range(len(batch.images)))
        assert set(batch.positives[:, 1].tolist()) == set(range(len(batch.texts)))


def test_image_numbers_may_have_gaps_and_rows_any_order():
    batches = Batches(row_image=np.array([9, 2, 9, 5]), row_text=np.array([0, 7, 3, 0]), batch_size=4, seed=0)
    assert sorted(_pairs(batches.at(0))) == [(2, 7), (5, 0), (9, 0), (9, 3)]


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 2.5])
def test_weights_decide_how_often_rows_are_visited(weight):
    rows = np.arange(30)
    weights = np.where(rows < 20, 1.0, weight)
    batches = Batches(row_image=rows, row_text=rows, row_weight=weights, batch_size=1, seed=0)
    assert batches.rows_per_epoch == 20 + round(10 * weight)
    visits = Counter(_stream(batches, 4 * batches.rows_per_epoch))
    assert all(visits[k, k] == 4 for k in range(20))
    assert sum(visits[k, k] for k in range(20, 30)) == 4 * round(10 * weight)
    assert all(4 * int(weight) <= visits[k, k] <= 4 * np.ceil(weight) for k in range(20, 30))
