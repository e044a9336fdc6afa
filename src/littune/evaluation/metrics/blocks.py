"""So many rows at a time: what keeps memory to a block, whatever the number of rows."""

from collections.abc import Iterator


def blocks(num_rows: int, width: int, numbers: int) -> Iterator[slice]:
    """All rows, as many at a time as have no more than so many numbers; one at least.

    Args:
        num_rows: how many rows there are.
        width: how many numbers a row has.
        numbers: how many a block may have.
    """
    step = max(1, numbers // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
