"""Run a command and say how long it took, how much memory it held, and what else kept the cores busy meanwhile."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command cost."""

    seconds: float
    peak_bytes: int
    """The largest resident set among the process and its children."""
    foreign: float
    """The share of all cores that other processes took meanwhile."""
    stdout: str


def run(command: Sequence[str], *, log: Path, watch: Callable[[], None] | None = None) -> Run:
    """Run ``command`` to its end; its messages go to ``log``, and ``watch`` is called every few milliseconds.

    Raises:
        SystemExit: the command failed; the end of its messages is shown.
    """
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    # Offline: every model lies on this machine.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    output = log.with_suffix(".out")
    with log.open("w") as messages, output.open("w") as results:
        busy, start = _busy_seconds(), time.perf_counter()
        process = subprocess.Popen(command, stdout=results, stderr=messages, env=environment)
        try:
            done = 0
            while not done:
                done, status, usage = os.wait4(process.pid, os.WNOHANG)
                if watch is not None:
                    watch()
                time.sleep(0.005)
        except KeyboardInterrupt:
            process.kill()
            raise
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{shlex.join(command)}\nended with {process.returncode}:\n{log.read_text()[-2000:]}")
    foreign = (_busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / (seconds * (os.cpu_count() or 1))
    return Run(
        seconds=seconds,
        peak_bytes=usage.ru_maxrss * 1024,
        foreign=max(0.0, foreign),
        stdout=output.read_text(),
    )


class Lines:
    """When how many lines with a certain word had reached a growing file: the pace of a run, seen from outside."""

    def __init__(self, path: Path, word: str) -> None:
        self._path, self._word = path, word.encode()
        self._size = 0
        self.seen: list[tuple[float, int]] = []

    def __call__(self) -> None:
        """Look at the file again."""
        if self._path.is_file() and self._path.stat().st_size != self._size:
            content = self._path.read_bytes()
            self._size = len(content)
            count = sum(self._word in line for line in content.splitlines(keepends=True) if line.endswith(b"\n"))
            if not self.seen or count > self.seen[-1][1]:
                self.seen.append((time.perf_counter(), count))

    def per_second(self) -> float:
        """Lines a second from the first sight of any to the last: start-up and the first lines are left out."""
        if len(self.seen) < 2:
            sys.exit(f"{self._path} grew only {len(self.seen)} times: train for more epochs to see a pace")
        (first_time, first), (last_time, last) = self.seen[0], self.seen[-1]
        return (last - first) / (last_time - first_time)


def _busy_seconds() -> float:
    """Seconds that all cores together have been busy, or lent to other machines, since the start of this one."""
    _cpu, user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split()
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS
