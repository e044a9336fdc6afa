"""Classifiers are made once, kept within bounds, and given up where nobody waits."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import numpy as np
import pytest

from littune.apps.server.classifiers import Classifiers
from littune.base.errors import InputError
from littune.model.zero_shot import zero_shot_classifier
from tests.evaluation.conftest import ColorReader


class Encoder:
    """Encodes by a model, where ``go`` is set."""

    def __init__(self, model: ColorReader) -> None:
        self.model = model
        self.go = asyncio.Event()
        self.go.set()
        self.calls: list[list[str]] = []
        self.ended = 0

    async def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.calls.append(list(texts))
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        return list(self.model.encode_text(texts))


Use = Callable[[Classifiers, Encoder], Coroutine[None, None, None]]


def run(model: ColorReader, use: Use, **options: int) -> list[bool]:
    """Whether each classifier was found."""
    found: list[bool] = []

    async def main() -> None:
        encoder = Encoder(model)
        await use(Classifiers(encoder, on_look=found.append, **options), encoder)

    asyncio.run(asyncio.wait_for(main(), 20))
    return found


def test_it_is_the_plain_classifier_and_is_kept(model: ColorReader) -> None:
    templates = ("a {}", "the {c}", "a {}")

    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        first = await classifiers.of(["red", "blue"], templates)
        expected = zero_shot_classifier(model.encode_text, ["red", "blue"], ("a {}", "the {}", "a {}"))
        np.testing.assert_allclose(first, expected, atol=1e-6)
        assert await classifiers.of(("red", "blue"), templates) is first
        assert await classifiers.of(("blue", "red"), templates) is not first
        assert encoder.calls[0] == ["a red", "the red", "a blue", "the blue"]

    assert run(model, use) == [False, True, False]


def test_what_many_wait_for_is_made_once(model: ColorReader) -> None:
    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        encoder.go.clear()
        tasks = [asyncio.create_task(classifiers.of(["red"], ["{}"])) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()  # the others still wait
        encoder.go.set()
        rows = await asyncio.gather(*tasks[1:])
        assert all(row is rows[0] for row in rows) and len(encoder.calls) == 1

    assert run(model, use) == [False, True, True, True, True]


def test_what_nobody_waits_for_is_given_up_and_can_be_made_anew(model: ColorReader) -> None:
    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        encoder.go.clear()
        tasks = [asyncio.create_task(classifiers.of(["red"], ["{}"])) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        again = asyncio.create_task(classifiers.of(["red"], ["{}"]))
        await asyncio.sleep(0.01)
        assert encoder.ended == 1 or len(encoder.calls) == 1
        encoder.go.set()
        assert (await again).shape == (1, 3)

    run(model, use)


def test_the_oldest_goes_first(model: ColorReader) -> None:
    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        for name in ("red", "green", "red", "blue", "red", "green"):
            await classifiers.of([name], ["{}"])

    assert run(model, use, max_bytes=2 * 12) == [False, False, True, False, True, False]


def test_what_is_larger_than_the_cache_is_still_given(model: ColorReader) -> None:
    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        assert (await classifiers.of(["red", "blue"], ["{}"])).shape == (2, 3)

    run(model, use, max_bytes=1)


def test_a_failure_is_not_kept(model: ColorReader) -> None:
    async def use(classifiers: Classifiers, encoder: Encoder) -> None:
        with pytest.raises(InputError, match="has no"):
            await classifiers.of(["red"], ["a thing"])
        model.encode_text = None  # type: ignore[assignment,method-assign]
        with pytest.raises(TypeError):
            await classifiers.of(["red"], ["{}"])
        del model.encode_text
        assert (await classifiers.of(["red"], ["{}"])).shape == (1, 3)

    run(model, use)
