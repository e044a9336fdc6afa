"""What a text tower keeps of a file's style: itself again, or one clear line."""

import json

import pytest

from littune.base.errors import InputError
from littune.towers.lit.style import STYLE, Style


@pytest.mark.parametrize("style", [Style(), Style(image_blocks="old"), Style(text_blocks="old", text_head_bias=False)])
def test_kept_and_read_back(style: Style) -> None:
    assert Style.of_kept(style.kept()) == style
    assert (STYLE in style.kept()) == (style != Style())


@pytest.mark.parametrize(
    "kept",
    [
        json.dumps({"image_blocks": "old", "colour": "red"}).encode(),
        json.dumps({"image_blocks": "older"}).encode(),
        json.dumps({"text_blocks": ["old"]}).encode(),
        json.dumps({"text_head_bias": "no"}).encode(),
        b"[1]",
        b"3",
        b"{",
        b"\xff\xfe",
    ],
)
def test_what_littune_did_not_write(kept: bytes) -> None:
    with pytest.raises(InputError, match="what the text tower keeps as npz.json is not littune's") as error:
        Style.of_kept({STYLE: kept})
    assert "\n" not in str(error.value)
