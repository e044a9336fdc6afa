"""Run by test_train in a process of its own: trains, and is killed (SIGKILL) at random moments until it gets through.

    killed_train.py CONFIG.toml

Each attempt is a fork of this process, so that torch is imported once. Prints how many attempts were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from littune.config import TrainConfig
from littune.tuning import train
from tests.tuning.ranked_step import read_config

# A few steps of a quick machine, which is then killed several times before it gets through.
LONGEST = 0.06


def attempt(config: TrainConfig, seconds: float) -> bool:
    """Train in a child that is killed so many seconds after its first state of a run; whether it ended before."""
    child = os.fork()
    if child == 0:
        train.fit(config)
        os._exit(0)
    before = states(config.out)
    while states(config.out) == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return not os.WIFSIGNALED(status)


def states(out: Path) -> list[str]:
    """The files of a run's states, halves included."""
    return sorted(path.name for path in (out / "checkpoints").glob("*"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    train.CHECKPOINT_SECONDS, train.SAVING_TIMES = -1.0, 0
    config = read_config(Path(sys.argv[1]))
    seconds = random.Random(0)
    kills = 0
    while not attempt(config, seconds.uniform(0, LONGEST)):
        kills += 1
    print(kills)
