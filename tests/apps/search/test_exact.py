"""Exact search equals the plain product, wherever the rows lie, and ties come in the store's order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from littune.apps.search import exact
from littune.apps.search.exact import Best, ExactRows
from tests.apps.search.conftest import DIM, Drawn, drawn, write_store

ALL = 4 * DIM * 100


def plain(model: Drawn, embeddings: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray) -> tuple:
    """The slow, obvious way."""
    rows = model.project_images(torch.from_numpy(embeddings.astype(np.float16))).detach().numpy()
    scores = np.where(allowed, queries @ rows.T, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("budget", [None, 0, ALL // 3, ALL])
@pytest.mark.parametrize("head", [False, True])
def test_it_is_the_plain_product(
    budget: int | None, head: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_SCORES", 7 * 9)
    monkeypatch.setattr(exact, "_STREAMED", 8)
    torch.manual_seed(0)
    model = Drawn(image_head=nn.Linear(DIM, 5) if head else None)
    embeddings = drawn(100)
    rows = ExactRows(model, write_store(tmp_path / "store", embeddings), budget=budget)
    queries = model.encode_text([str(number) for number in range(7)])
    everything = np.ones(100, np.bool_)
    for k in (1, 10, 100):
        for allowed in (None, everything, np.arange(100) % 3 == 0, np.arange(100) > 70):
            scores, numbers = rows.find(queries, k, allowed)
            expected = plain(model, embeddings, queries, k, everything if allowed is None else allowed)
            there = expected[0] > -np.inf
            np.testing.assert_allclose(scores, expected[0], atol=1e-6)
            assert np.array_equal(numbers[there], expected[1][there]) and (numbers[~there] == -1).all()


def test_no_more_is_kept_than_the_budget(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", drawn(100))
    assert [len(ExactRows(Drawn(), store, budget=budget)._kept) for budget in (0, ALL // 3, None)] == [0, 33, 100]


@pytest.mark.parametrize("block", [1, 3, 64])
def test_ties_come_in_the_store_s_order(block: int) -> None:
    scores = np.random.default_rng(0).integers(0, 4, (3, 64)).astype(np.float32)
    for k in (1, 5, 40, 64):
        best = Best(3, k)
        for start in range(0, 64, block):
            numbers = np.arange(start, min(start + block, 64))
            best.add(scores[:, numbers], numbers)
        assert np.array_equal(best.rows, np.argsort(-scores, axis=1, kind="stable")[:, :k])
        assert np.array_equal(best.scores, np.sort(scores, axis=1)[:, ::-1][:, :k])


def test_what_is_not_allowed_is_never_found() -> None:
    best = Best(1, 3)
    best.add(np.array([[-np.inf, 0.5, -np.inf]], np.float32), np.array([10, 11, 12]))
    assert best.rows.tolist() == [[11, -1, -1]]
