"""Pictures in whatever form they come, and a clear word about those that are none."""

from pathlib import Path

import pytest
from PIL import Image

from littune.base.errors import InputError, LittuneError
from littune.model.pictures import open_picture


def test_every_form_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    transparent = Image.new("RGBA", (4, 4), (255, 128, 0, 0))
    transparent.save(path)
    opened = [open_picture(form) for form in (path, str(path), path.read_bytes(), transparent)]
    assert {picture.mode for picture in opened} == {"RGB"}
    assert {picture.tobytes() for picture in opened} == {bytes([255]) * 48}


def test_what_is_no_picture_is_named_once(tmp_path: Path) -> None:
    bad = tmp_path / "b.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(LittuneError, match=r"^[^ ]*/b\.png: the image is none of"):
        open_picture(bad)
    with pytest.raises(InputError, match=r"^the picture nowhere\.png does not exist$"):
        open_picture("nowhere.png")
    with pytest.raises(InputError, match=r"is a folder; name the pictures in it, as in .*/\*\.jpg$"):
        open_picture(tmp_path)
