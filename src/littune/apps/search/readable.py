"""A damaged file of metadata is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from littune.base.errors import InputError, first_line


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Say of an error in the block that it is ``file`` that cannot be read.

    Raises:
        InputError: the block raised one of the system's or of Arrow's errors.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({first_line(error)}); restore it or embed anew") from error
