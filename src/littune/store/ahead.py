"""Work done ahead: a function over items in threads, results in order, never more than a few waiting."""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in the items' order.

    The items are read in a thread of their own and the function runs in ``workers`` more, while the caller is busy
    with what it has; at most ``ahead`` results wait. An error of either comes out where its result would have been.
    Close the iterator (``contextlib.closing``) when leaving it early.
    """
    waiting: SimpleQueue[Future[Result] | None] = SimpleQueue()
    room = threading.Semaphore(ahead)
    stopped = threading.Event()

    def feed() -> None:
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                waiting.put(pool.submit(function, item))
            waiting.put(None)
        except BaseException as error:  # to be raised by the reader of the results, not in this thread
            failed: Future[Result] = Future()
            failed.set_exception(error)
            waiting.put(failed)

    feeder = threading.Thread(target=feed, name="littune-reader", daemon=True)
    with ThreadPoolExecutor(workers, thread_name_prefix="littune-decoder") as pool:
        feeder.start()
        try:
            while (future := waiting.get()) is not None:
                yield future.result()
                room.release()
        finally:
            stopped.set()
            room.release()
            feeder.join()
            pool.shutdown(wait=False, cancel_futures=True)
