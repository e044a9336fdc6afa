"""Limits that would let nothing through are refused."""

import pytest

from littune.apps.server.limits import Limits
from littune.base.errors import InputError


@pytest.mark.parametrize("name", ["max_body_mb", "max_pixels", "max_batch", "max_queue", "timeout", "body_timeout"])
def test_each_is_above_zero(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} = 0"):
        Limits(**{name: 0})
    assert getattr(Limits(**{name: 1}), name) == 1
