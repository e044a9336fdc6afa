"""The paper's evaluation sets by name (section 4): where each comes from, in which layout it is read, how it is scored.

``NAME:PATH`` names a set and the place where it lies, as in ``imagenet-a:/data/imagenet-a``; the place is a folder,
a pattern or a store, and is read as without the name. The name adds what the files do not say: names to prompt with,
which classes are to choose from, further right classes, a border to crop, the score that counts.

The paper chose the prompts of VTAB-Natural on 800 validation images a set; here they are CLIP's for all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from littune.base.errors import InputError

_BY_IMAGE = "accuracy@1"
_BY_CLASS = "mean_per_class_accuracy"
_BY_TEXT = "text_to_image/recall@1"

_CLASS_FOLDERS = "a folder a class, named by WordNet id (n01440764)"
_BENCHMARK = "the layout of clip-benchmark (test/N.tar, classnames.txt), or a folder a class"
_PAIRS = "tar shards, a table, or images with texts beside them; several captions an image in the field captions"
_MANY_LANGUAGES = "the same, with the other languages' texts in the fields translations.LANG or captions_LANG"


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A set that the paper, or the field, evaluates on."""

    name: str
    title: str
    task: Literal["zero_shot", "retrieval"]
    origin: str
    """Where it comes from, in words."""
    layout: str
    """How it lies on disk for littune to read it."""
    classnames: str = ""
    """The names to prompt with, as ``load_classnames`` takes them; empty for the set's own."""
    templates: str = ""
    """The templates, as ``load_templates`` takes them; empty for those that come with the set, or the default."""
    subset: Literal["", "a", "r"] = ""
    """Of ImageNet's 1,000 classes, which are to choose from; empty for all."""
    labels: Literal["own", "imagenet", "real", "objectnet"] = "own"
    """What its labels are: as they come; places among ImageNet's classes; those and ReaL's; ObjectNet's folders."""
    num_classes: int = 0
    """How many classes a set has whose labels are its own; 0 where versions of it differ."""
    border: int = 0
    """How many pixels are cropped off at each side."""
    headline: str = _BY_IMAGE
    """The score that is quoted."""


def _imagenet(
    name: str,
    title: str,
    origin: str,
    layout: str = _CLASS_FOLDERS,
    *,
    subset: Literal["", "a", "r"] = "",
    labels: Literal["imagenet", "real", "objectnet"] = "imagenet",
    border: int = 0,
) -> KnownSet:
    return KnownSet(
        name=name,
        title=title,
        task="zero_shot",
        origin=origin,
        layout=layout,
        classnames="" if labels == "objectnet" else "imagenet",
        templates="clip_paper",
        subset=subset,
        labels=labels,
        border=border,
    )


def _natural(
    name: str,
    title: str,
    origin: str,
    *,
    num_classes: int = 0,
    names: str = "",
    templates: str,
    headline: str = _BY_IMAGE,
) -> KnownSet:
    return KnownSet(
        name=name,
        title=title,
        task="zero_shot",
        origin=origin,
        layout=_BENCHMARK,
        num_classes=num_classes,
        classnames=names and f"clip_benchmark:{names}",
        templates=f"clip_benchmark:{templates}",
        headline=headline,
    )


def _pairs(name: str, title: str, origin: str, layout: str = _PAIRS) -> KnownSet:
    return KnownSet(name=name, title=title, task="retrieval", origin=origin, layout=layout, headline=_BY_TEXT)


_VAL = "the ImageNet project; the 50,000 images of the validation split of 2012"

KNOWN_SETS: dict[str, KnownSet] = {
    known.name: known
    for known in (
        _imagenet("imagenet", "ImageNet", _VAL),
        _imagenet(
            "imagenet-v2",
            "ImageNet v2",
            "Recht et al. 2019; 10,000 images, the variant matched-frequency",
            "a folder a class, named 0 to 999",
        ),
        _imagenet("imagenet-r", "ImageNet-R", "Hendrycks et al. 2021; 30,000 renditions of 200 classes", subset="r"),
        _imagenet("imagenet-a", "ImageNet-A", "Hendrycks et al. 2021; 7,500 hard photos of 200 classes", subset="a"),
        _imagenet(
            "imagenet-real",
            "ImageNet ReaL",
            f"{_VAL}; Beyer et al. 2020 labelled it anew, the labels ship in timm",
            f"{_CLASS_FOLDERS}; files keep their names, ILSVRC2012_val_00000001.JPEG",
            labels="real",
        ),
        _imagenet(
            "objectnet",
            "ObjectNet",
            "Barbu et al. 2019; 50,000 photos of 313 classes, of which the 113 shared with ImageNet are scored",
            "its folder images, a folder a class, with the set's own JSON maps in mappings beside it",
            labels="objectnet",
            border=2,
        ),
        _natural("cifar10", "CIFAR-10", "Krizhevsky 2009; 10,000 test images", num_classes=10, templates="cifar10"),
        _natural(
            "cifar100",
            "CIFAR-100",
            "Krizhevsky 2009; 10,000 test images; VTAB-Natural",
            num_classes=100,
            templates="cifar100",
        ),
        _natural(
            "caltech101",
            "Caltech-101",
            "Fei-Fei et al. 2004; VTAB-Natural",
            templates="caltech101",
            headline=_BY_CLASS,
        ),
        _natural("dtd", "Describable Textures", "Cimpoi et al. 2014; VTAB-Natural", num_classes=47, templates="dtd"),
        _natural(
            "flowers102",
            "Oxford Flowers 102",
            "Nilsback and Zisserman 2008; VTAB-Natural",
            names="flowers",
            templates="flowers",
            headline=_BY_CLASS,
        ),
        _natural(
            "pets",
            "Oxford-IIIT Pets",
            "Parkhi et al. 2012; VTAB-Natural",
            names="pets",
            templates="pets",
            headline=_BY_CLASS,
        ),
        _natural("sun397", "SUN397", "Xiao et al. 2010; VTAB-Natural", num_classes=397, templates="sun397"),
        _natural(
            "svhn",
            "Street View House Numbers",
            "Netzer et al. 2011; cropped digits; VTAB-Natural",
            names="svhn",
            templates="svhn",
        ),
        _pairs("coco", "COCO captions", "Lin et al. 2014; Karpathy's test split: 5,000 images, 25,010 captions"),
        _pairs("flickr30k", "Flickr30k", "Young et al. 2014; Karpathy's test split: 1,000 images, 5,000 captions"),
        _pairs("flickr8k", "Flickr8k", "Hodosh et al. 2013; Karpathy's test split: 1,000 images, 5,000 captions"),
        _pairs(
            "xm3600",
            "Crossmodal-3600",
            "Thapliyal et al. 2022; 3,600 images, captions in 36 languages",
            _MANY_LANGUAGES,
        ),
        _pairs("wit", "Wikipedia Image Text", "Srinivasan et al. 2021; texts in 108 languages", _MANY_LANGUAGES),
    )
}


def split_known(spec: str | Path) -> tuple[KnownSet | None, str]:
    """``NAME:PATH`` → the known set and the place where it lies; any other spec → None and the spec as it is.

    Raises:
        InputError: a known set is named without its place.
    """
    text = str(spec)
    name, _, place = text.partition(":")
    known = KNOWN_SETS.get(name)
    if known is None or Path(text).expanduser().exists():
        return None, text
    if not place:
        raise InputError(f"{name} lacks the place where it lies; write {name}:FOLDER, with {known.layout}")
    return known, place
