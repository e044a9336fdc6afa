"""Pictures or the lines of a text file → unit float32 rows in a ``.npy`` file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from littune.base.errors import InputError
from littune.base.files import write_atomic
from littune.model.lit import LiT


def encode_to_file(
    run: str | Path,
    out: Path,
    *,
    images: Sequence[Path] = (),
    texts: Path | None = None,
    device: str = "cpu",
    precision: str = "auto",
) -> dict[str, object]:
    """Embed either ``images`` or each line of the UTF-8 file ``texts``, and write the rows to ``out``.

    Returns:
        What was written: ``out``, ``rows`` and ``dim``.

    Raises:
        InputError: the run or the text file cannot be used.
        LittuneError: a picture cannot be read.
    """
    assert bool(images) != (texts is not None), "pictures or texts"
    lines = read_lines(texts) if texts is not None else []
    model = LiT.load(run, device=device, precision=precision)
    rows = model.encode_text(lines) if texts is not None else model.encode_image(images)
    write_atomic(out, lambda file: np.save(file, rows))
    return {"out": str(out), "rows": rows.shape[0], "dim": rows.shape[1]}


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, none of them blank.

    Raises:
        InputError: the file cannot be read, is not UTF-8, is empty, or has a blank line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the texts {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8, one text a line") from error
    blank = next((number for number, line in enumerate(lines, start=1) if not line.strip()), None)
    if not lines or blank is not None:
        where = f"line {blank} is blank" if blank is not None else "it is empty"
        raise InputError(f"{path} cannot be embedded: {where}; put one text on every line")
    return lines
