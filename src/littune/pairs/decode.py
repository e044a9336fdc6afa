"""Encoded bytes → one RGB picture, whatever was sent, within limits.

The plugins of Pillow are called directly instead of through ``Image.open``: only the formats below are
tried (none of them starts another program), and the header's size is checked against our own limit, so
that a decompression bomb is refused before a pixel is decoded without touching Pillow's global settings.
What makes a picture look right is applied here: EXIF rotation, white behind transparency, the full range
of 16-bit greys. Colour profiles are not applied, as no tower was trained with them applied.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from littune.base.errors import LittuneError
from littune.pairs.base import Slice

MAX_PIXELS = 89_478_485
"""Pillow's own threshold: a quarter of a gigabyte of RGB."""

MAX_IMAGE_BYTES = 256 << 20
"""The largest encoded picture that is read."""

IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pnm", "avif", "jp2", "j2k")
)
"""What the names of pictures end in, lower-case, without the dot."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


class DecodeError(LittuneError):
    """A picture that cannot be used; the message completes "KEY in SOURCE: …"."""


def decode(image: bytes | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in ``image``, upright, in mode RGB; the first frame of an animation.

    Raises:
        DecodeError: it cannot be read, is empty, no image, truncated, damaged or has too many pixels.
    """
    encoded = read_encoded(image)
    with _damage_explained():
        picture = _open(encoded, max_pixels)
        picture.load()
        return to_rgb(picture)


def check_header(encoded: bytes) -> None:
    """Refuse what ``decode`` refuses without decoding a pixel: 60 µs for a JPEG.

    Raises:
        DecodeError: it is no image, has too many pixels, or its header is damaged.
    """
    with _damage_explained():
        _open(encoded, MAX_PIXELS)


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture upright and in RGB: EXIF rotation applied, transparency on white, 16-bit greys over their full range.

    Raises:
        DecodeError: it holds numbers whose range is unknown.
    """
    orientation = _orientation(picture)
    rgb = _as_rgb(picture)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def read_encoded(image: bytes | Path | Slice) -> bytes:
    """The encoded bytes of ``image``, which is these bytes, the path of a regular file, or a slice of one.

    Raises:
        DecodeError: the file cannot be read, or the bytes are empty or over ``MAX_IMAGE_BYTES``.
    """
    encoded = image if isinstance(image, bytes) else _read_file(image)
    if not encoded:
        raise DecodeError("the image is empty (0 bytes)")
    _check_bytes(len(encoded))
    return encoded


def _read_file(place: Path | Slice) -> bytes:
    path = place.path if isinstance(place, Slice) else place
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError(f"the image {path} is not a regular file")
            if isinstance(place, Slice):
                return _read_slice(file, place)
            _check_bytes(status.st_size)
            return file.read()
    except DecodeError:
        raise
    except OSError as error:
        raise DecodeError(f"the image {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DecodeError(f"the image {str(path)!r} cannot be read: {error}") from error


def _read_slice(file: BinaryIO, place: Slice) -> bytes:
    _check_bytes(place.size)
    file.seek(place.offset)
    encoded = file.read(place.size)
    if len(encoded) < place.size:
        raise DecodeError(f"the image at byte {place.offset} of {place.path} is cut off: the file has changed")
    return encoded


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe waits for a writer otherwise, for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_bytes(size: int) -> None:
    if size > MAX_IMAGE_BYTES:
        raise DecodeError(f"the image has {size >> 20} MB, over the limit of {MAX_IMAGE_BYTES >> 20} MB")


@cache
def _formats() -> tuple[str, ...]:
    """Those of our formats that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except DecodeError:
        raise
    # Pillow's plugins meet damaged files with a dozen kinds of exception, from SyntaxError to IndexError.
    except Exception as error:
        raise DecodeError(f"the image is damaged or truncated ({error})") from error


def _open(encoded: bytes, max_pixels: int) -> ImageFile:
    start = encoded[:16]
    for name in _formats():
        plugin, accepts = Image.OPEN[name]
        # Some plugins answer with a string, which says why a file that is theirs cannot be read.
        if accepts is None or accepts(start) is True:
            picture = plugin(BytesIO(encoded), "")
            _check_size(picture.width, picture.height, max_pixels)
            return picture
    raise DecodeError(f"the image is none of {', '.join(_formats())}: it starts with {start!r}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(f"the image has {width} × {height} pixels, over the limit of {max_pixels:,}")


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the EXIF block is damaged: the pixels are still good."""
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _as_8_bit(picture)
    if picture.has_transparency_data:
        return _on_white(picture.convert("RGBA"))
    return picture.convert("RGB")


def _as_8_bit(picture: Image.Image) -> Image.Image:
    """16-bit greys over their full range; converting would cut everything above 255 off."""
    values = np.asarray(picture)
    if picture.mode == "F" or (picture.mode == "I" and (values.min() < 0 or values.max() > 65535)):
        raise DecodeError(f"the image holds {values.dtype} greys of unknown range: convert it to 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
