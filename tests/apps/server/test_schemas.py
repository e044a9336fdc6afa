"""What is asked, checked."""

import base64

import pytest
from pydantic import ValidationError

from littune.apps.server.schemas import ClassifyQuestion, SearchQuestion
from littune.model.prompts import DEFAULT_TEMPLATES


def test_base64_may_be_wrapped_but_is_nothing_else() -> None:
    wrapped = base64.encodebytes(bytes(range(200))).decode()
    assert "\n" in wrapped
    asked = ClassifyQuestion.model_validate({"image": wrapped, "labels": ["a"]})
    assert (asked.image, asked.templates) == (bytes(range(200)), DEFAULT_TEMPLATES)
    for wrong in ("data:image/png;base64,AAAA", "AAA", "A_A-", "é"):
        with pytest.raises(ValidationError, match="base64"):
            ClassifyQuestion.model_validate({"image": wrong, "labels": ["a"]})


def test_filters_keep_their_kinds() -> None:
    where = {"a": 1, "b": True, "c": "1", "d": [1, "x"], "e": {"min": 1, "max": 2.5}, "f": 0.5}
    kept = SearchQuestion.model_validate({"text": "x", "where": where}).where
    assert kept == where and [type(kept[name]) for name in "abcf"] == [int, bool, str, float]
    for wrong in (float("nan"), float("inf"), {"min": float("inf")}, {}, None, [[1]]):
        with pytest.raises(ValidationError):
            SearchQuestion.model_validate({"text": "x", "where": {"a": wrong}})
