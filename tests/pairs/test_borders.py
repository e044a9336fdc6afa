"""Borders: cropped pixel by pixel, everything else as it was."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from littune.pairs.base import BadSample, LabelledImage, Pair, Sample, Source
from littune.pairs.borders import crop_borders
from littune.pairs.decode import decode
from littune.pairs.open import open_pairs
from littune.pairs.rows import iter_samples
from tests.pairs.conftest import MakePicture, WriteTar


def samples_of(source: Source) -> list[Sample]:
    samples = list(iter_samples(source))
    assert all(isinstance(sample, Sample) for sample in samples)
    return [sample for sample in samples if isinstance(sample, Sample)]


def framed(width: int, height: int) -> tuple[bytes, np.ndarray]:
    """A picture of noise with a red frame of two pixels, and the noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = Image.new("RGB", (width + 4, height + 4), "red")
    whole.paste(Image.fromarray(noise), (2, 2))
    file = io.BytesIO()
    whole.save(file, "PNG")
    return file.getvalue(), noise


def test_the_border_goes_and_no_other_pixel_changes(tmp_path: Path) -> None:
    encoded, noise = framed(7, 5)
    for name in ("chair", "whisk"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encoded)
    plain = open_pairs(tmp_path)
    cropped = crop_borders(plain, 2)
    for before, after in zip(samples_of(plain), samples_of(cropped), strict=True):
        assert isinstance(after, LabelledImage) and isinstance(before, LabelledImage)
        assert np.array_equal(np.asarray(decode(after.image)), noise)
        assert (after.key, after.source, after.label) == (before.key, before.source, before.label)


def test_a_source_is_otherwise_the_same(tmp_path: Path, picture: MakePicture, write_tar: WriteTar) -> None:
    tar = write_tar(tmp_path / "a.tar", [("1.png", picture()), ("1.txt", b"a text")])
    plain = open_pairs(tar)
    cropped = crop_borders(plain, 1)
    assert isinstance(cropped, Source)
    assert (cropped.spec, cropped.texts, cropped.num_samples) == (plain.spec, plain.texts, 1)
    assert cropped.classnames is None and "each side cropped by 1 px" in cropped.kind
    (pair,) = samples_of(cropped)
    assert isinstance(pair, Pair) and pair.texts == ("a text",) and pair.fields == {"caption": "a text"}
    # Where the uncropped picture lies on disk would lead astray.
    assert pair.place is None and decode(pair.image).size == (6, 4)


def test_parts_keep_their_names_and_tell_the_border(tmp_path: Path, picture: MakePicture, write_tar: WriteTar) -> None:
    plain = open_pairs(write_tar(tmp_path / "a.tar", [("1.png", picture()), ("1.txt", b"a text")]))
    parts = [*plain.parts(), *crop_borders(plain, 1).parts(), *crop_borders(plain, 2).parts()]
    assert len({part.name for part in parts}) == 1
    assert len({part.fingerprint() for part in parts}) == 3


def test_pictures_that_are_damaged_or_nothing_but_border_are_bad_rows(
    tmp_path: Path, picture: MakePicture, write_tar: WriteTar
) -> None:
    members = [
        ("1.png", picture(size=(8, 4))),
        ("1.txt", b"small"),
        ("2.png", b"no picture"),
        ("2.txt", b"damaged"),
        ("3.txt", b"no image"),
    ]
    source = open_pairs(write_tar(tmp_path / "a.tar", members))
    first, second, third = iter_samples(crop_borders(source, 2))
    assert isinstance(first, BadSample) and first.reason == "the image has 8 × 4 pixels, all of them border"
    assert isinstance(second, BadSample) and second.reason.startswith("the image is none of JPEG")
    assert third == list(iter_samples(source))[2]
