"""The pictures that a model is handed: a path, encoded bytes, or what is open already."""

from pathlib import Path

from PIL import Image

from littune.base.errors import InputError
from littune.pairs.decode import DecodeError, decode, to_rgb

Picture = str | Path | bytes | Image.Image


def open_picture(picture: Picture) -> Image.Image:
    """The picture, upright and in RGB.

    Raises:
        LittuneError: it cannot be read.
    """
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if isinstance(picture, bytes):
        return decode(picture)
    path = Path(picture)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the pictures in it, as in {path}/*.jpg")
    if not path.exists():
        raise InputError(f"the picture {path} does not exist")
    try:
        return decode(path)
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from error
