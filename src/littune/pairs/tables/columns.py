"""Which column of a table holds the image, which ones the texts: asked for, or known by their usual names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from littune.base.errors import InputError
from littune.pairs.texts import DEFAULT_FIELDS

IMAGE_NAMES = (
    "image",
    "img",
    "jpg",
    "png",
    "webp",
    "bytes",
    "image_bytes",
    "path",
    "image_path",
    "file",
    "file_name",
    "filename",
    "filepath",
)
"""What a column that holds images, or the paths of images, is usually called; case does not matter."""

TEXT_NAMES = ("text", "texts", "title")
"""What a column of texts is called where there is neither ``captions`` nor ``caption``."""

KEY_NAME = "key"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table that matter.

    Attributes:
        image: the column of images or of their paths.
        texts: the fields that supply texts, as in ``caption_texts``.
        key: the column that names the rows, or None.
        label: the column of class indices of a labelled set, or None for pairs.
        classnames: the class names of a labelled set.
    """

    image: str
    texts: tuple[str, ...] = ()
    key: str | None
    label: str | None = None
    classnames: tuple[str, ...] = ()


def choose_columns(
    where: str,
    columns: Sequence[str],
    *,
    binary: Collection[str] = (),
    texts: tuple[str, ...],
    image_field: str | None,
) -> Columns:
    """The columns of the table ``where``; ``binary`` are those that hold encoded pictures, not paths.

    Raises:
        InputError: a column that was asked for is missing, or none or several have a usual name.
    """
    return Columns(
        image=image_column(where, columns, binary=binary, image_field=image_field),
        texts=text_columns(where, columns, texts),
        key=KEY_NAME if KEY_NAME in columns else None,
    )


def image_column(where: str, columns: Sequence[str], *, binary: Collection[str] = (), image_field: str | None) -> str:
    """The column ``image_field``, or the one that holds pictures, or the one of a usual name."""
    if image_field is not None:
        if image_field not in columns:
            raise InputError(f"{where} has no column {image_field!r} for the image; it has {_listed(columns)}")
        return image_field
    usual = [column for column in columns if column.lower() in IMAGE_NAMES]
    # A column of pictures beats the column of the names that they once had.
    candidates = [column for column in usual if column in binary] or usual or list(binary)
    if len(candidates) == 1:
        return candidates[0]
    found = f"several columns that may be the image ({', '.join(candidates)})" if candidates else "no column of images"
    raise InputError(f"{where} has {found}; say which with --image-field: it has {_listed(columns)}")


def text_columns(where: str, columns: Sequence[str], texts: tuple[str, ...]) -> tuple[str, ...]:
    """``texts`` if asked for, () where ``captions`` or ``caption`` will do, or the one column of a usual name."""
    for name in texts:
        if name not in columns and name.partition(".")[0] not in columns:
            raise InputError(f"{where} has no column {name!r} for texts; it has {_listed(columns)}")
    if texts or any(name in columns for name in DEFAULT_FIELDS):
        return texts
    candidates = [column for column in columns if column.lower() in (*DEFAULT_FIELDS, *TEXT_NAMES)]
    if len(candidates) == 1:
        return (candidates[0],)
    found = f"several columns that may be the text ({', '.join(candidates)})" if candidates else "no column of texts"
    raise InputError(f"{where} has {found}; say which with --texts: it has {_listed(columns)}")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "no columns"
