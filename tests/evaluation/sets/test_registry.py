"""The known sets: each can be scored as it says, and what names one."""

from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.evaluation.sets.registry import KNOWN_SETS, split_known
from littune.model.classnames import load_classnames
from littune.model.prompts import load_templates


def test_the_papers_sets_are_there() -> None:
    paper = "imagenet imagenet-v2 imagenet-r imagenet-a imagenet-real objectnet cifar10 cifar100 pets"
    natural = "caltech101 cifar100 dtd flowers102 pets sun397 svhn"
    assert {*paper.split(), *natural.split(), "coco", "flickr30k", "xm3600", "wit"} <= KNOWN_SETS.keys()
    assert all(name == known.name and ":" not in name for name, known in KNOWN_SETS.items())


@pytest.mark.parametrize("name", [name for name, known in KNOWN_SETS.items() if known.task == "zero_shot"])
def test_every_labelled_set_names_templates_and_names_that_there_are(name: str) -> None:
    known = KNOWN_SETS[name]
    assert load_templates(known.templates)
    assert not known.classnames or len(load_classnames(known.classnames)) in (10, 37, 102, 1000)


def test_the_sets_of_few_images_a_class_are_scored_by_class() -> None:
    by_class = {name for name, known in KNOWN_SETS.items() if known.headline == "mean_per_class_accuracy"}
    assert by_class == {"caltech101", "flowers102", "pets"}
    assert KNOWN_SETS["objectnet"].border == 2


@pytest.mark.parametrize("place", ["/data/a", "data/{0..3}.tar", "hf:user/name#test", "C:/data"])
def test_a_name_and_a_place(place: str) -> None:
    assert split_known(f"imagenet-a:{place}") == (KNOWN_SETS["imagenet-a"], place)


@pytest.mark.parametrize("spec", ["/data/imagenet-a", "hf:imagenet-a", "imagenet-b:/data", "shards/*.tar", ":x"])
def test_any_other_spec_stays_as_it_is(spec: str) -> None:
    assert split_known(spec) == (None, spec)


def test_a_folder_that_exists_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="cifar10 lacks the place where it lies; write cifar10:FOLDER, with the layout"
    ):
        split_known("cifar10")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "pets:old").mkdir()
    assert split_known("cifar10") == (None, "cifar10")
    assert split_known(Path("pets:old")) == (None, "pets:old")
