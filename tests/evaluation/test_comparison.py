"""Two readers of colours side by side."""

import json
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError, MismatchError
from littune.evaluation import compare
from littune.store.writer import Row
from tests.evaluation.conftest import COLORS, ColorReader, MakeStore, make_tower

NAMES = ("red", "green", "blue", "yellow")
COLOR = np.stack([np.array(COLORS[name]) / 255 for name in NAMES])


class RedGreenBlind(ColorReader):
    """Takes green for red."""

    def encode_text(self, texts: object) -> np.ndarray:
        texts = [texts] if isinstance(texts, str) else texts
        return super().encode_text([text.replace("green", "red") for text in texts])


@pytest.fixture
def spec(make_store: MakeStore) -> Path:
    rows = [Row(key=str(number), source="s", texts=(NAMES[number % 4],), label=None) for number in range(8)]
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, (8, 3))
    return make_store(rows, COLOR[np.arange(8) % 4] + jitter).path


def test_differences_are_to_the_first_run_image_by_image(model: ColorReader, spec: Path, tmp_path: Path) -> None:
    blind = RedGreenBlind(make_tower())
    comparison = compare({"sees": model, "blind": blind, "again": model}, spec, ks=[4])
    row = next(row for row in comparison.rows if row.metric == "text_to_image/recall_dedup@4")
    assert row.scores[0] == row.scores[2] > row.scores[1]
    first, second, third = row.differences
    assert first is None and second is not None and third is not None
    assert second.difference == pytest.approx(row.scores[1] - row.scores[0])
    assert second.interval[0] <= second.difference <= second.interval[1] <= 0
    assert (third.difference, third.p_value) == (0, 1)
    comparison.save(tmp_path / "comparison.json")
    saved = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert saved["runs"] == ["sees", "blind", "again"]
    assert saved["rows"][0]["runs"][0]["difference"] is None
    comparison.save(tmp_path / "comparison.html")
    assert "blind" in (tmp_path / "comparison.html").read_text(encoding="utf-8")
    text = comparison.to_text()
    assert "blind" in text and "p 1" in text


def test_one_run_is_nothing_to_compare(model: ColorReader, spec: Path) -> None:
    with pytest.raises(InputError, match="at least two runs"):
        compare({"one": model}, spec)


def test_runs_that_see_other_images_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, spec: Path
) -> None:
    from littune.evaluation import comparison

    evaluations = [comparison.evaluate(model, spec), comparison.evaluate(model, spec)]
    evaluations[1].results[0].outcome.keys[0] = "another"
    monkeypatch.setattr(comparison, "evaluate", lambda *_, **__: evaluations.pop(0))
    with pytest.raises(MismatchError, match="not the same images"):
        compare({"one": model, "two": model}, spec)
