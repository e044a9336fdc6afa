"""Batches: together, fair, in order, and without those who have gone."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest

from littune.apps.server import batching
from littune.apps.server.batching import Batcher


class Double:
    """Doubles numbers; a batch waits until ``go`` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.set()
        assert self.go.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [2 * item for item in items]


Use = Callable[[Batcher[int, int], Double], Coroutine[None, None, None]]


def run(use: Use, *, max_batch: int = 4) -> list[list[int]]:
    """The batches that come of it."""
    double = Double()

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            sizes: list[int] = []
            await use(Batcher(double, thread=thread, max_batch=max_batch, on_batch=sizes.append), double)
            assert sizes == [len(batch) for batch in double.batches]

    asyncio.run(asyncio.wait_for(main(), 20))
    return double.batches


async def begun(double: Double) -> None:
    await asyncio.to_thread(double.begun.wait, 10)


def test_a_job_s_results_are_in_its_order_over_several_batches() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        assert await batcher.submit(list(range(10))) == [2 * number for number in range(10)]
        assert await batcher.submit([]) == []

    assert run(use) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_waits_runs_together() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        double.go.clear()
        first = asyncio.create_task(batcher.submit([0]))
        await begun(double)
        others = [asyncio.create_task(batcher.submit([number])) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        double.go.set()
        assert await first == [0]
        assert [await other for other in others] == [[2], [4], [6]]

    assert run(use) == [[0], [1, 2, 3]]


def test_a_small_job_does_not_wait_for_a_large_one() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        double.go.clear()
        large = asyncio.create_task(batcher.submit(range(100, 120)))
        await begun(double)
        small = asyncio.create_task(batcher.submit([1, 2]))
        await asyncio.sleep(0)
        double.go.set()
        assert await small == [2, 4]
        assert not large.done()
        assert await large == [2 * number for number in range(100, 120)]

    assert run(use)[1] == [104, 1, 105, 2]


def test_who_has_gone_leaves() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        double.go.clear()
        first = asyncio.create_task(batcher.submit([0]))
        await begun(double)
        gone = asyncio.create_task(batcher.submit([7, 8, 9]))
        after = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        double.go.set()
        assert (await first, await after) == ([0], [2])
        assert gone.cancelled()

    assert run(use) == [[0], [1]]


def test_a_job_that_goes_while_it_runs_harms_no_other() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        double.go.clear()
        gone = asyncio.create_task(batcher.submit(range(6)))
        await begun(double)
        after = asyncio.create_task(batcher.submit([9]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        double.go.set()
        assert await after == [18]

    assert run(use) == [[0, 1, 2, 3], [9]]


def test_a_failure_is_told_to_those_it_concerns() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        with pytest.raises(ValueError, match="minus one"):
            await batcher.submit([1, 2, 3, -1, 5, 6])
        assert await batcher.submit([4]) == [8]

    assert run(use) == [[1, 2, 3, -1], [4]]


def test_a_lone_one_waits_for_nobody_and_others_for_those_who_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GATHERING", 5.0)

    async def use(batcher: Batcher[int, int], double: Double) -> None:
        async with asyncio.timeout(1):
            await batcher.submit([0])
            with batcher.coming():
                first = asyncio.create_task(batcher.submit([1]))
                await asyncio.sleep(0.05)
                assert double.batches == [[0]]
            assert await batcher.submit([2]) == [4]
            assert await first == [2]

    assert run(use) == [[0], [1, 2]]


def test_who_comes_and_does_not_arrive_is_not_waited_for_long() -> None:
    async def use(batcher: Batcher[int, int], double: Double) -> None:
        with batcher.coming():
            async with asyncio.timeout(1):
                assert await batcher.submit([3]) == [6]

    assert run(use) == [[3]]
