from pathlib import Path

import pytest
from transformers.utils import logging

from littune.base.errors import InputError, MismatchError
from littune.towers.hub import explained


def test_transformers_is_silent_inside_and_as_before_outside() -> None:
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    with explained("a"):
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING and logging.is_progress_bar_enabled()


def test_errors_become_one_line_and_littunes_own_pass(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded: first$"), explained(str(tmp_path)):
        raise RuntimeError("first\nsecond")
    with pytest.raises(InputError, match="a/b is no folder here, .*: KeyError$"), explained("a/b"):
        raise KeyError
    with pytest.raises(MismatchError, match="own"), explained("a/b"):
        raise MismatchError("own")
