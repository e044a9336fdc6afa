import threading
import time
from contextlib import closing

import pytest

from littune.store.ahead import map_ahead


def test_results_come_in_order_whatever_finishes_first() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.03 if item % 4 == 0 else 0)
        return item * 10

    assert list(map_ahead(slow_first, range(20), workers=3, ahead=5)) == [item * 10 for item in range(20)]


def test_never_reads_further_ahead_than_allowed() -> None:
    read = []

    def items():
        for item in range(100):
            read.append(item)
            yield item

    with closing(map_ahead(lambda item: item, items(), workers=2, ahead=4)) as results:
        assert next(results) == 0
        time.sleep(0.1)
        # One is with the caller, four wait, and the reader holds the next in its hand.
        assert len(read) <= 6


def test_runs_while_the_caller_is_busy() -> None:
    done = threading.Semaphore(0)

    def work(item: int) -> int:
        done.release()
        return item

    with closing(map_ahead(work, range(10), workers=1, ahead=3)) as results:
        next(results)
        assert all(done.acquire(timeout=5) for _ in range(3))


def test_an_error_of_the_function_comes_out_in_its_place() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError("three")
        return item

    results = map_ahead(work, range(10), workers=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)


def test_an_error_of_the_items_comes_out_in_its_place() -> None:
    def items():
        yield 1
        raise OSError("the disk is gone")

    results = map_ahead(lambda item: item, items(), workers=2, ahead=4)
    assert next(results) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_closing_ends_its_threads() -> None:
    before = threading.active_count()
    with closing(map_ahead(lambda item: item, iter(int, 1), workers=2, ahead=4)) as results:
        next(results)
    assert threading.active_count() == before
