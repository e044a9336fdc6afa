"""Small pictures and tars, made as the tests need them."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

MakePicture = Callable[..., bytes]
WriteTar = Callable[[Path, Iterable[tuple[str, bytes]]], Path]


@pytest.fixture(scope="session")
def picture() -> MakePicture:
    """Encodes a picture of one colour."""

    def make(color: object = "red", *, size: tuple[int, int] = (8, 6), mode: str = "RGB", form: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.new(mode, size, color).save(file, form)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def write_tar() -> WriteTar:
    """Writes a tar of (name, contents)."""

    def write(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write
