"""Files are classified in order, and those that are no pictures stop none of the others."""

from pathlib import Path

import pytest
import torch

from littune.apps.classifying import classify_files
from littune.base.errors import InputError
from tests.evaluation.conftest import ColorReader, paint

COLORS = ("red", "green", "blue")


@pytest.fixture
def model(model: ColorReader) -> ColorReader:
    model.log_temperature = torch.nn.Parameter(torch.zeros(()))
    return model


def test_bad_files_stop_no_others(model: ColorReader, tmp_path: Path) -> None:
    names = [COLORS[number % 3] for number in range(10)]  # more than are open at once
    images = [tmp_path / f"{number}.png" for number in range(10)]
    for name, image in zip(names, images, strict=True):
        paint(image, name)
    images[3].write_bytes(b"no picture")
    images[9].unlink()
    results = list(classify_files(model, images, COLORS, templates=("{}",)))
    assert [result.image for result in results] == images
    assert [result.scores[0].label if result.scores else "" for result in results] == [
        "" if number in (3, 9) else name for number, name in enumerate(names)
    ]
    assert "none of" in results[3].problem and "does not exist" in results[9].problem
    assert not any(result.problem for number, result in enumerate(results) if number not in (3, 9))


def test_labels_that_cannot_be_used(model: ColorReader, tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    with pytest.raises(InputError, match="more than once"):
        list(classify_files(model, [tmp_path / "a.png"], ["red", "red"], templates=("{}",)))
