"""The demo's pictures: what ships where, how it is named, drawn and laid out as pairs."""

import importlib.util
import io
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from littune.apps.demo_pictures import (
    LABELS,
    PHOTOS,
    check_packages,
    copy_photos,
    find_concepts,
    parse_name,
    photo_path,
    render_concepts,
    render_svg,
)
from littune.base.errors import MissingExtraError
from littune.pairs.base import Pair
from littune.pairs.open import open_pairs


def test_every_photograph_ships_and_has_its_label_once() -> None:
    for photo in PHOTOS:
        with Image.open(photo_path(photo)) as picture:
            assert min(picture.size) >= 200
        assert LABELS.count(photo.label) == 1
        assert photo.credit.rpartition(", ")[2] in ("CC0", "public domain", "no known copyright restrictions")
    assert len(set(LABELS)) == len(LABELS) > len(PHOTOS)


def test_names_are_written_as_people_write_them() -> None:
    assert parse_name(":woman’s_boot:") == "woman's boot"
    assert parse_name(":T-Rex:") == "T-Rex"


def test_concepts_are_things_with_one_drawing_and_one_name_each() -> None:
    concepts = find_concepts()
    names = {concept.name for concept in concepts}
    assert len(concepts) == len(names) == len({concept.key for concept in concepts}) > 400
    assert {"cat", "banana", "bicycle", "mantelpiece clock"} <= names
    assert not any("grinning" in name or "person" in name or "flag" in name for name in names)


def test_a_drawing_is_rendered_opaque_on_white(tmp_path: Path) -> None:
    svg = tmp_path / "square.svg"
    svg.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path fill="#ff0000" d="M1 1h2v2H1z"/></svg>'
    )
    with Image.open(io.BytesIO(render_svg(svg, size=40))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    assert pixels.shape == (40, 40, 4)
    assert tuple(pixels[2, 2]) == (255, 255, 255, 255)
    assert tuple(pixels[20, 20]) == (255, 0, 0, 255)


def test_pictures_become_pairs_and_are_not_made_twice(tmp_path: Path) -> None:
    concepts = find_concepts()[:3]
    render_concepts(concepts, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    render_concepts(concepts, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert _texts(tmp_path) == {concept.key: concept.name for concept in concepts}


def test_photographs_become_pairs(tmp_path: Path) -> None:
    copy_photos(tmp_path)
    assert _texts(tmp_path) == {Path(photo.file).stem: photo.label for photo in PHOTOS}


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_resvg(name: str) -> ModuleSpec | None:
        return None if name == "resvg_py" else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_resvg)
    with pytest.raises(MissingExtraError, match=r"resvg-py.*littune\[demo\]"):
        check_packages()


def _texts(folder: Path) -> dict[str, str]:
    samples = [sample for part in open_pairs(folder).parts() for sample in part.samples()]
    assert all(isinstance(sample, Pair) for sample in samples)
    return {sample.key: sample.texts[0] for sample in samples if isinstance(sample, Pair)}
