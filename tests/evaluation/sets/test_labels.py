"""Labels: as the files say, by names of one's own, and as the authors of known sets score them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError
from littune.evaluation.sets.labels import Labels, labels_of
from littune.evaluation.sets.registry import KNOWN_SETS
from littune.evaluation.sets.stores import open_set
from littune.model.classnames import load_classnames
from littune.model.shipped import wordnet_ids
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import ColorReader, MakeStore, paint

IMAGENET = load_classnames("imagenet")
Labelled = Callable[..., EmbeddingStore]


@pytest.fixture
def labelled(make_store: MakeStore) -> Labelled:
    """A store of these class names and labels, with what else is said of the rows."""

    def make(
        own: Sequence[str],
        labels: Sequence[int | None],
        *,
        keys: Sequence[str] = (),
        fields: Sequence[dict[str, object]] = (),
    ) -> EmbeddingStore:
        rows = [
            Row(
                key=keys[number] if keys else f"{number}.jpg",
                source="a",
                label=label,
                fields=fields[number] if fields else {},
            )
            for number, label in enumerate(labels)
        ]
        return make_store(rows, np.ones((len(rows), 3)), classnames=tuple(own))

    return make


def test_a_set_says_what_its_images_are(labelled: Labelled) -> None:
    assert labels_of(labelled(["red", "green"], [1, 0, 1])) == Labels(
        classnames=("red", "green"), right=((1,), (0,), (1,))
    )


def test_other_names_for_the_same_classes(labelled: Labelled, tmp_path: Path) -> None:
    store = labelled(["red", "green"], [1, 0])
    (tmp_path / "german.txt").write_text("rot\ngrün\n", encoding="utf-8")
    assert labels_of(store, classnames=tmp_path / "german.txt").classnames == ("rot", "grün")
    with pytest.raises(InputError, match="2 classes .* 3 class names"):
        labels_of(store, classnames=["a", "b", "c"])


def test_several_labels_one_and_none(labelled: Labelled) -> None:
    fields = [{"labels": [2, 0, 2]}, {"labels": []}, {}, {"labels": ["outdoors"]}]
    labels = labels_of(labelled(["a", "b", "c"], [0, 1, 2, 1], fields=fields))
    assert labels.right == ((2, 0), (), (2,), (1,))


def test_labels_that_are_missing_or_out_of_range(labelled: Labelled, make_store: MakeStore) -> None:
    with pytest.raises(InputError, match="has no label for each image"):
        labels_of(labelled(["a", "b"], [0, None]))
    pairs = make_store([Row(key="1", source="a", texts=("x",))], np.ones((1, 3)), name="pairs")
    with pytest.raises(InputError, match="pairs has no label for each image"):
        labels_of(pairs)


@pytest.mark.parametrize("fields", [[{}, {}], [{}, {"labels": [2]}]])
def test_a_label_without_a_name(labelled: Labelled, fields: list[dict[str, object]]) -> None:
    with pytest.raises(InputError, match="labels from 0 to 2 but 2 class names"):
        labels_of(labelled(["a", "b"], [0, 1 if fields[1] else 2], fields=fields))


def test_imagenets_folders_are_told_from_all_thousand_classes(labelled: Labelled) -> None:
    labels = labels_of(labelled(["n01443537", "n15075141"], [1, 0]), known=KNOWN_SETS["imagenet"])
    assert labels == Labels(classnames=IMAGENET, right=((999,), (1,)))


def test_imagenet_v2s_folders_are_numbers_that_sort_as_strings(labelled: Labelled) -> None:
    folders = sorted(map(str, range(1000)))
    labels = labels_of(labelled(folders, [2, 999]), known=KNOWN_SETS["imagenet-v2"])
    assert (folders[2], folders[999]) == ("10", "999")
    assert labels == Labels(classnames=IMAGENET, right=((10,), (999,)))


@pytest.mark.parametrize("own", [wordnet_ids("r"), tuple(IMAGENET[wordnet_ids().index(i)] for i in wordnet_ids("r"))])
def test_the_two_hundred_classes_of_imagenet_r(labelled: Labelled, own: tuple[str, ...]) -> None:
    """As folders, and as clip-benchmark's layout names them."""
    labels = labels_of(labelled(own, [0, 199]), known=KNOWN_SETS["imagenet-r"])
    assert len(labels.classnames) == 200 and labels.classnames[:2] == ("goldfish", "great white shark")
    assert labels.right == ((0,), (199,))


def test_a_class_outside_the_subset_is_not_scored(labelled: Labelled) -> None:
    # Tench is in neither; the folders of all of ImageNet, or a few of the subset's, make no other task.
    labels = labels_of(labelled(["n01440764", "n01443537"], [0, 1]), known=KNOWN_SETS["imagenet-r"])
    assert labels.right == ((), (0,)) and len(labels.classnames) == 200


def test_names_for_a_subset_are_two_hundred_or_a_thousand(labelled: Labelled) -> None:
    store, known = labelled(wordnet_ids("a"), [3]), KNOWN_SETS["imagenet-a"]
    own = [f"own {number}" for number in range(200)]
    assert labels_of(store, known=known, classnames=own) == Labels(classnames=tuple(own), right=((3,),))
    italian = labels_of(store, known=known, classnames="clip_benchmark:imagenet1k:it")
    assert italian.classnames[0] == load_classnames("clip_benchmark:imagenet1k:it")[6]
    with pytest.raises(InputError, match="3 class names for 200 classes"):
        labels_of(store, known=known, classnames=["a", "b", "c"])


def test_real_labels_go_by_the_numbers_of_the_files(labelled: Labelled) -> None:
    keys = ["ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000003.JPEG"]
    labels = labels_of(labelled(["n01440764"], [0, 0, 0], keys=keys), known=KNOWN_SETS["imagenet-real"])
    assert labels == Labels(classnames=IMAGENET, right=((970, 795), (), (230, 231)))


@pytest.mark.parametrize("key", ["s0000001", "ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG"])
def test_real_refuses_images_that_are_not_the_validation_splits(labelled: Labelled, key: str) -> None:
    with pytest.raises(InputError, match=f"'{key}' is no image of ImageNet's validation split"):
        labels_of(labelled(["n01440764"], [0], keys=[key]), known=KNOWN_SETS["imagenet-real"])


@pytest.fixture
def objectnet(tmp_path: Path) -> Path:
    """ObjectNet's tree with four classes, of which two are shared with ImageNet."""
    root = tmp_path / "objectnet-1.0"
    for folder in ("alarm_clock", "bench", "chair", "whisk"):
        paint(root / "images" / folder / "1.png", "red")
    labels = {"alarm_clock": "Alarm clock", "bench": "Bench", "chair": "Chair", "whisk": "Whisk"}
    shared = {"Whisk": "whisk", "Chair": "barber chair; folding chair"}
    (root / "mappings").mkdir()
    (root / "mappings" / "folder_to_objectnet_label.json").write_text(json.dumps(labels), encoding="utf-8")
    (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shared), encoding="utf-8")
    return root


def test_objectnet_is_scored_on_the_classes_that_its_maps_share_with_imagenet(
    model: ColorReader, objectnet: Path
) -> None:
    store = open_set(model, objectnet / "images")
    labels = labels_of(store, known=KNOWN_SETS["objectnet"])
    assert labels == Labels(classnames=("chair", "whisk"), right=((), (), (0,), (1,)))
    assert labels_of(store, known=KNOWN_SETS["objectnet"], classnames=["Stuhl", "Schneebesen"]).classnames[0] == "Stuhl"


def test_objectnet_lacks_a_map_or_a_class(model: ColorReader, objectnet: Path, labelled: Labelled) -> None:
    (objectnet / "images" / "whisk" / "1.png").unlink()
    store = open_set(model, objectnet / "images")
    with pytest.raises(InputError, match="lacks the class whisk"):
        labels_of(store, known=KNOWN_SETS["objectnet"])
    (objectnet / "mappings" / "objectnet_to_imagenet_1k.json").unlink()
    with pytest.raises(InputError, match=r"objectnet_to_imagenet_1k\.json is not there; put its folder mappings"):
        labels_of(store, known=KNOWN_SETS["objectnet"])
    # In clip-benchmark's layout the shared classes are all that there are.
    shared = tuple(f"class {number}" for number in range(113))
    assert labels_of(labelled(shared, [112]), known=KNOWN_SETS["objectnet"]).right == ((112,),)


def test_flowers_folders_count_from_one(labelled: Labelled) -> None:
    folders = sorted(map(str, range(1, 103)))
    labels = labels_of(labelled(folders, [0, 1]), known=KNOWN_SETS["flowers102"])
    assert folders[1] == "10"
    assert labels.classnames[:2] == ("pink primrose", load_classnames("clip_benchmark:flowers")[9])
    assert labels.right == ((0,), (1,))
