"""Models of transformers into folders: silently, whole, and with what loading them again must be told."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging

from littune.base.files import explained_os_errors


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' warnings and progress bars back while the block runs."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Raises:
        LittuneError: the folder cannot be written.
    """
    for weight in model.parameters():
        weight.data = weight.data.contiguous()  # towers keep convolutions channels-last, safetensors does not
    with quietly(), explained_os_errors(folder):
        model.save_pretrained(folder)


def load_arguments(model: PreTrainedModel) -> dict[str, bool]:
    """What ``from_pretrained`` must be told, so that it makes no pooler of random weights."""
    takes_it = "add_pooling_layer" in inspect.signature(type(model).__init__).parameters
    return {"add_pooling_layer": False} if takes_it and getattr(model, "pooler", None) is None else {}
