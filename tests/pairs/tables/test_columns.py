import pytest

from littune.base.errors import InputError
from littune.pairs.tables.columns import Columns, choose_columns


def choose(columns: str, **options: object) -> Columns:
    settings: dict[str, object] = {"texts": (), "image_field": None, "binary": ()} | options
    return choose_columns("t.csv", columns.split(), **settings)


@pytest.mark.parametrize(
    ("columns", "image", "texts"),
    [
        ("image caption", "image", ()),
        ("Image_Path captions caption", "Image_Path", ()),
        ("filepath title", "filepath", ("title",)),
        ("path TEXT", "path", ("TEXT",)),
        ("file_name text", "file_name", ("text",)),
        ("jpg texts", "jpg", ("texts",)),
        ("filename Caption", "filename", ("Caption",)),
        ("path caption title text", "path", ()),
    ],
)
def test_usual_names_are_known(columns: str, image: str, texts: tuple[str, ...]) -> None:
    assert choose(columns) == Columns(image=image, texts=texts, key=None)


def test_a_column_of_bytes_beats_a_column_of_names() -> None:
    assert choose("filename image caption", binary=("image",)).image == "image"
    assert choose("filename photo caption", binary=("photo",)).image == "filename"
    assert choose("photo caption", binary=("photo",)).image == "photo"


def test_columns_can_be_chosen() -> None:
    chosen = choose("path image key meta", image_field="path", texts=("meta.title", "key"))
    assert chosen == Columns(image="path", texts=("meta.title", "key"), key="key")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            "path image caption",
            {},
            r"several columns that may be the image \(path, image\).*--image-field.*it has path, ima",
        ),
        ("url caption", {}, "no column of images; say which with --image-field: it has url, caption"),
        ("path text title", {}, r"several columns that may be the text \(text, title\); say which with --texts"),
        ("path alt", {}, "no column of texts; say which with --texts: it has path, alt"),
        ("path alt", {"texts": ("caption",)}, "has no column 'caption' for texts; it has path, alt"),
        ("path alt", {"image_field": "jpg"}, "has no column 'jpg' for the image; it has path, alt"),
        ("", {}, "it has no columns"),
        ("a b", {"binary": ("a", "b")}, "several columns that may be the image"),
    ],
)
def test_what_is_unknown_or_ambiguous_lists_the_columns(columns: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"t.csv has.*{message}|t.csv {message}"):
        choose(columns, **options)
