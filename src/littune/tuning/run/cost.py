"""``cost.json``: what a run took so far, over all the times that it was begun."""

import time
from pathlib import Path

from littune.base.errors import LittuneError
from littune.base.files import read_json, write_json
from littune.base.memory import peak_memory
from littune.model.run_files import COST


class Cost:
    """The clock of a run.

    Args:
        out: the run folder.
        step: the step that the run goes on from; from 0 on, the clock begins anew.
    """

    def __init__(self, out: Path, *, step: int) -> None:
        self._path = out / COST
        before = self._read() if step else {}
        self._seconds, self._peak = before.get("seconds", 0.0), before.get("peak memory, bytes", 0.0)
        self._started = time.monotonic()

    def save(self, *, pairs: int, processes: int) -> None:
        """Write what was taken for so many pairs seen."""
        seconds = self._seconds + time.monotonic() - self._started
        peak = int(max(self._peak, peak_memory()))
        write_json(
            self._path,
            {"seconds": round(seconds, 1), "pairs seen": pairs, "processes": processes, "peak memory, bytes": peak},
        )

    def _read(self) -> dict[str, float]:
        try:
            found = read_json(self._path)
        except LittuneError:
            return {}
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
