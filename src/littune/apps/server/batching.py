"""Dynamic batching: what is asked within a few milliseconds runs through a tower together.

While a batch runs, the next one gathers; when the tower is free, it is taken. Waiting is worth it only where more is
known to come: a lone request runs at once. A batch takes one item of each job in turn, so that a job of one picture or
text waits for one batch, however many items the jobs before it have.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GATHERING = 0.005
"""Seconds that a batch waits at most for requests that are on their way."""


class _Job(Generic[Item, Result]):
    """Items of one request, and what has come of them so far."""

    def __init__(self, items: Sequence[Item], future: "asyncio.Future[list[Result]]") -> None:
        self.waiting = deque(enumerate(items))
        self.results: dict[int, Result] = {}
        self.num_items = len(items)
        self.future = future

    def take(self, place: int, result: Result) -> None:
        self.results[place] = result
        if len(self.results) == self.num_items and not self.future.done():
            self.future.set_result([self.results[place] for place in range(self.num_items)])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[Item, Result]):
    """Runs items in batches, on a thread that may be shared with other batchers.

    Args:
        run: a batch's items → a result for each, in order; called on ``thread``.
        thread: where it is called. Of one batcher one batch is there at a time, so that batchers that share a thread
            take turns.
        max_batch: the most items of a batch.
        on_batch: told the size of each batch.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        thread: Executor,
        max_batch: int,
        on_batch: Callable[[int], None],
    ) -> None:
        self._run = run
        self._thread = thread
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._coming = 0
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The items' results, in order. Where the caller is cancelled, what has not begun is taken out again."""
        if not items:
            return []
        job: _Job[Item, Result] = _Job(items, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._changed.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run_all())
        try:
            return await job.future
        finally:
            job.waiting.clear()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While the block runs, an item is on its way, and worth a few milliseconds of waiting."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._changed.set()

    async def _run_all(self) -> None:
        """Run batches until nothing waits."""
        try:
            while await self._gather():
                await self._run_one(self._next_batch())
        finally:
            self._running = None

    async def _gather(self) -> bool:
        """Wait for what is on its way; whether anything waits then."""
        try:
            async with asyncio.timeout(GATHERING):
                while self._coming and self._num_waiting() < self._max_batch:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._num_waiting() > 0

    def _num_waiting(self) -> int:
        return sum(len(job.waiting) for job in self._jobs)

    def _next_batch(self) -> list[tuple[_Job[Item, Result], int, Item]]:
        """One item of each job in turn, until the batch is full."""
        batch: list[tuple[_Job[Item, Result], int, Item]] = []
        while self._jobs and len(batch) < self._max_batch:
            job = self._jobs.popleft()
            if job.waiting:
                batch.append((job, *job.waiting.popleft()))
                self._jobs.append(job)
        return batch

    async def _run_one(self, batch: list[tuple[_Job[Item, Result], int, Item]]) -> None:
        self._on_batch(len(batch))
        items = [item for _, _, item in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        except Exception as error:
            for job, _, _ in batch:
                job.waiting.clear()
                job.fail(error)
            return
        for (job, place, _), result in zip(batch, results, strict=True):
            job.take(place, result)
