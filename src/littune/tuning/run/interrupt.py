"""Ctrl-C and SIGTERM end a run after the step that is under way, so that its state can be saved whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from littune.base.progress import log


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Hand out whether a stop has been asked for since the block was entered.

    A second Ctrl-C interrupts at once. Off the main thread, where signals cannot be caught, nothing changes.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        log("stopping after this step; Ctrl-C once more stops at once, without saving it")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
