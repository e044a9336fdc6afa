"""Classifiers on disk: used when they are the right ones, and never otherwise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from littune.base.errors import InputError
from littune.model.classifier_cache import classifier_of
from littune.model.lit import ImageReference, LiT
from littune.model.zero_shot import zero_shot_classifier
from littune.towers.text.sources import load_text_tower
from tests.evaluation.conftest import make_tower

NAMES, TEMPLATES = ["red square", "Blue circle"], ["a {}.", "{}", "two {}s"]


@pytest.fixture
def model() -> LiT:
    torch.manual_seed(0)
    tower = make_tower()
    text = load_text_tower("scratch:Ti", max_tokens=8, texts=NAMES)
    reference = ImageReference(spec=tower.spec, pooling="own", identity=tower.identity)
    model = LiT(text=text, reference=reference, center=torch.zeros(3))
    model.precision = "float32"
    return model.eval()


@pytest.fixture
def encoded(model: LiT, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each call of the text tower."""
    calls: list[int] = []
    embed = model.text.embed

    def counted(texts: list[str], *, precision: str) -> torch.Tensor:
        calls.append(len(texts))
        return embed(texts, precision=precision)

    monkeypatch.setattr(model.text, "embed", counted)
    return calls


def test_a_classifier_is_made_once(model: LiT, encoded: list[int], tmp_path: Path) -> None:
    expected = zero_shot_classifier(model.encode_text, NAMES, TEMPLATES)
    assert np.array_equal(classifier_of(model, NAMES, TEMPLATES), expected)
    assert not list(tmp_path.iterdir())
    for _ in range(3):
        kept = classifier_of(model, NAMES, TEMPLATES, cache=tmp_path / "new")
        assert np.array_equal(kept, expected)
        assert kept.dtype == np.float32
    # Once for what is expected, once without a cache, once with it.
    assert encoded == [6, 6, 6]
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_whatever_decides_a_classifier_makes_another_file(model: LiT, encoded: list[int], tmp_path: Path) -> None:
    def fresh(texts: list[str]) -> np.ndarray:
        return model.project_texts(model.text(*model.text.tokenize(texts).batch(range(len(texts))))).detach().numpy()

    def made(**changes: object) -> bool:
        before = len(encoded)
        arguments = {"classnames": NAMES, "templates": TEMPLATES, "canonical": False} | changes
        classifier = classifier_of(model, cache=tmp_path, **arguments)
        np.testing.assert_allclose(classifier, zero_shot_classifier(fresh, **arguments), atol=1e-2)
        return len(encoded) > before

    assert made()
    assert not made()
    assert made(classnames=NAMES[::-1])
    assert made(templates=TEMPLATES[:1])
    assert made(canonical=True)
    # Six texts, either way: two classes in three templates are not three in two.
    assert made(classnames=["a", "b", "c"], templates=["{}", "{}"])
    assert made(classnames=["a", "b"], templates=["{}", "{}", "{}"])
    with torch.no_grad():
        model.text_head.bias[0] += 1
    assert made()
    with torch.no_grad():
        next(model.text.parameters()).view(-1)[0] += 1
    assert made()
    model.precision = "bfloat16"
    assert made()
    assert not made()


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "shape"])
def test_a_damaged_file_is_made_anew(model: LiT, encoded: list[int], tmp_path: Path, damage: str) -> None:
    expected = classifier_of(model, NAMES, TEMPLATES, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "shape":
        np.savez(path, classifier=expected[:1])
    else:
        flipped = bytearray(whole)
        flipped[whole.index(expected.tobytes()) + 5] ^= 1
        contents = {"cut": whole[:-30], "empty": b"", "flipped": bytes(flipped), "foreign": b"something else"}
        path.write_bytes(contents[damage])
    assert np.array_equal(classifier_of(model, NAMES, TEMPLATES, cache=tmp_path), expected)
    assert encoded == [6, 6]
    assert np.array_equal(classifier_of(model, NAMES, TEMPLATES, cache=tmp_path), expected)
    assert encoded == [6, 6]
    assert list(tmp_path.iterdir()) == [path]


def test_no_class_names_are_an_error(model: LiT, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class names"):
        classifier_of(model, [], TEMPLATES, cache=tmp_path)
