"""Loading from transformers' folders and hub: silently, and with one line where it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging

from littune.base.errors import InputError, LittuneError, first_line


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Keep transformers silent while the block runs, and turn what it raises into one line about ``name``.

    Raises:
        InputError: whatever was raised in the block that is no error of littune's.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except LittuneError:
        raise
    except Exception as error:  # Missing files, foreign code, damaged weights: each library has its own.
        raise InputError(_explanation(name, error)) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _explanation(name: str, error: Exception) -> str:
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return f"{name} has no config.json; name a folder that a transformers model was saved to"
        return f"{name} cannot be loaded: {first_line(error)}"
    if folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        return f"the folder {name} does not exist"
    return f"{name} is no folder here, nor a model that can be downloaded now: {first_line(error)}"
