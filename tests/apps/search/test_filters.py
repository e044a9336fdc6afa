"""When a condition holds of a value, and which conditions are none."""

import pytest

from littune.apps.search.filters import as_text, conditions_of
from littune.base.errors import InputError
from littune.pairs.texts import look_up


@pytest.mark.parametrize(
    ("wanted", "holding", "failing"),
    [
        ("640", ["640", 640, 640.0], ["64", None, 641]),
        (640, ["640", 640.0], ["640.0", True]),
        (0.25, [0.25, "0.25"], [0.5]),
        (True, [True, "true"], [1, False]),
        (["a", "b"], ["a", "b", ["c", "b"]], ["c", [], ["c", ["d"]], None]),
        ("a", [["x", "a"], ("a",)], ["A", "ab"]),
        ({"min": 2}, [2, 2.5, [1, 3]], [1, "3", None, True, float("nan")]),
        ({"max": 2}, [2, -5], [2.1]),
        ({"min": 1, "max": 2}, [1, 1.5, 2], [0, 3]),
    ],
)
def test_when_it_holds(wanted: object, holding: list[object], failing: list[object]) -> None:
    [condition] = conditions_of({"x": wanted})
    assert all(condition.holds(value) for value in holding)
    assert not any(condition.holds(value) for value in failing)


def test_numbers_read_the_same_however_they_are_written() -> None:
    assert [as_text(value) for value in (100, 100.0, 1e2, 1e-7, 1e20, 0.0, False, "x")] == [
        "100", "100", "100", "0.0000001", "1" + "0" * 20, "0", "false", "x",
    ]  # fmt: skip


def test_labels_go_by_their_names() -> None:
    classnames = ("cat", "dog", "3")
    [condition] = conditions_of({"label": ["dog", 0]}, classnames)
    assert condition.texts == ("1", "0")
    assert conditions_of({"label": "dog"})[0].texts == ("dog",)
    with pytest.raises(InputError, match="no class is called 'cow'; the classes are cat, dog"):
        conditions_of({"label": "cow"}, classnames)


def test_a_name_or_a_dotted_path() -> None:
    fields = {"a": {"b": {"c": 1}}, "a.b": 2, "d": 3}
    assert [look_up(fields, name) for name in ("a.b", "a.b.c", "d", "d.e", "e")] == [2, 1, 3, None, None]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([], "the filter on x is"),
        (None, "the filter on x is None"),
        ([["a"]], "give a value, a list of values"),
        ({}, "the filter on x is"),
        ({"least": 1}, "the filter on x is"),
        ({"min": "1"}, "ends at '1', which is no number"),
        ({"min": True}, "no number"),
        ({"max": float("inf")}, "no number"),
    ],
)
def test_no_conditions(wanted: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        conditions_of({"x": wanted})
