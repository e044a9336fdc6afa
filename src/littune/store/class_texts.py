"""What the classes of a classifier are called: the texts that timm ships for ImageNet, or a user's file.

The texts of an ImageNet class are its first name, its list of names with the definition, each name alone, and
"a photo of a NAME." for each name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo

from littune.base.errors import InputError

_FORMATS = "a line a class (NAME, or NAME<TAB>text|text), or JSON {NAME or INDEX: [texts]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTexts:
    """One class.

    Attributes:
        name: what it is called first.
        texts: what a store's captions become; the first is a name.
        fields: what else is known, so that another choice of texts can be made later.
    """

    name: str
    texts: tuple[str, ...]
    fields: Mapping[str, object]


def imagenet_classes(label_set: str) -> dict[int, ClassTexts]:
    """The classes of one of timm's ImageNet label sets, such as "imagenet-1k", by index."""
    info = ImageNetInfo(label_set)
    return {index: _imagenet_class(info, index) for index in range(info.num_classes())}


def _imagenet_class(info: ImageNetInfo, index: int) -> ClassTexts:
    wnid = info.index_to_label_name(index)
    names = [name.strip() for name in info.index_to_description(index).split(",")]
    described = info.index_to_description(index, detailed=True)
    definition = described.removeprefix(info.index_to_description(index)).removeprefix(":").strip()
    return ClassTexts(
        name=names[0],
        texts=(*names, described, *map(_photo, names)),
        fields={"names": names, "definition": definition, "wnid": wnid},
    )


def read_classes(path: Path, num_classes: int) -> dict[int, ClassTexts]:
    """The classes of a user's file, by their index in the classifier.

    Args:
        path: text with a line a class in the classifier's order, NAME or NAME<TAB>text|text|…; or a JSON object whose
            keys are all names, in the classifier's order, or all class indices, and whose values are a text or a list
            of texts. A class without texts of its own gets its name and "a photo of a NAME.".
        num_classes: the classes that the classifier has.

    Raises:
        InputError: the file cannot be read, or does not fit the classifier.
    """
    listed = _from_json(path) if path.suffix.lower() == ".json" else _from_lines(path)
    if listed and all(name.isdecimal() for name, _ in listed):
        classes = {int(name): _named(texts[0] if texts else name, texts) for name, texts in listed}
        beyond = [index for index in classes if index >= num_classes]
        if beyond:
            raise InputError(
                f"{path} names class {beyond[0]} and the classifier has {num_classes}, 0 to {num_classes - 1}"
            )
        return classes
    if len(listed) != num_classes:
        raise InputError(
            f"{path} lists {len(listed)} classes and the classifier has {num_classes}; list them all in its order, "
            "or some of them as JSON {INDEX: [texts]}"
        )
    return {index: _named(name, texts) for index, (name, texts) in enumerate(listed)}


def _named(name: str, texts: tuple[str, ...]) -> ClassTexts:
    return ClassTexts(name=name, texts=texts or (name, _photo(name)), fields={"names": [name]})


def _photo(name: str) -> str:
    return f"a photo of a {name}."


def _from_json(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    try:
        value = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object; class files are {_FORMATS}")
    return [(name, _texts_of(path, name, texts)) for name, texts in value.items()]


def _texts_of(path: Path, name: str, value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: the texts of class {name!r} are not a text or a list of texts")
    return _clean(texts)


def _from_lines(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    listed = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        name, _, texts = line.partition("\t")
        if not name.strip():
            raise InputError(f"{path} has no class name in line {number}; class files are {_FORMATS}")
        listed.append((name.strip(), _clean(texts.split("|"))))
    return listed


def _clean(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the class file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; class files are {_FORMATS}") from error
