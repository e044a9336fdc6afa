"""A published checkpoint's file, read without running anything that is in it."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from littune.base.errors import InputError, first_line
from littune.towers.lit.arrays import Array

_PARTS = ("img/", "txt/")

TEMPERATURE = "t"
"""The log of the temperature."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The arrays of a file, or of a part of it.

    Attributes:
        path: where it lies.
        names: what all of its arrays are called.
        arrays: those that were asked for.
    """

    path: Path
    names: frozenset[str]
    arrays: dict[str, Array]

    def shape(self, name: str, num_axes: int) -> tuple[int, ...]:
        """The shape of an array that all else is measured by.

        Raises:
            InputError: there is no such array, or it has another number of axes.
        """
        if name not in self.arrays:
            raise InputError(f"{self.path} lacks {name}: it is no LiT checkpoint, or not a whole one")
        shape = self.arrays[name].shape
        if len(shape) != num_axes or 0 in shape:
            raise InputError(f"{self.path}: {name} has the shape {shape}, where there should be {num_axes} axes")
        return shape

    def count(self, prefix: str) -> int:
        """How many numbered layers there are: names that go on with a number after ``prefix``."""
        return len({name.removeprefix(prefix).split("/")[0] for name in self.arrays if name.startswith(prefix)})


def read_checkpoint(path: Path, *wanted: str) -> Checkpoint:
    """Read a part of a file.

    Args:
        path: the file.
        wanted: the names of arrays, and what names begin with where it ends in "/".

    Raises:
        InputError: there is no such file, it is no whole ``.npz`` file of float32 arrays, or an array belongs to no
            part of a LiT checkpoint.
    """
    if not path.is_file():
        raise InputError(f"the checkpoint {path} does not exist")
    with _explained(path), path.open("rb") as opened:  # of a damaged archive numpy would not close it
        if not zipfile.is_zipfile(opened):
            raise ValueError("it is no archive, or its end is missing")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as file:
            names = frozenset(file.files)
            arrays = {name: _checked(file[name], name) for name in file.files if _matches(name, wanted)}
    stranger = min((name for name in names if name != TEMPERATURE and not name.startswith(_PARTS)), default=None)
    if stranger is not None:
        raise InputError(f"{path} holds {stranger}, which is no part of a LiT checkpoint (img/…, txt/… and t)")
    return Checkpoint(path=path, names=names, arrays=arrays)


def _matches(name: str, wanted: tuple[str, ...]) -> bool:
    return any(name.startswith(each) if each.endswith("/") else name == each for each in wanted)


def _checked(array: object, name: str) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else "no array"
        raise ValueError(f"{name} is {kind}, not float32")
    return array


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of what numpy finds wrong in a file that it is no whole checkpoint."""
    try:
        yield
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(
            f"{path} is no .npz file of arrays that can be read whole ({first_line(error)}); download it again"
        ) from error
    except (MemoryError, OverflowError) as error:
        raise InputError(
            f"{path} says that it holds more than memory does ({first_line(error)}): it is damaged or no LiT checkpoint"
        ) from error
