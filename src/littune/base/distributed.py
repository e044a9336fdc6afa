"""Ranks: the processes that ``torchrun`` starts, and what they tell each other (gloo on CPUs, NCCL on GPUs).

Without ``torchrun`` there is one rank, and every function here is the identity: callers need no second path.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's contiguous share of ``count`` things; shares differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, which are of one shape."""
        return self._reduced(tensor, "SUM")

    def max(self, tensor: Tensor) -> Tensor:
        """The maximum of all ranks' tensors, element by element."""
        return self._reduced(tensor, "MAX")

    def gather(self, rows: Tensor) -> Tensor:
        """All ranks' rows, one rank after the other; the ranks may have different numbers of rows."""
        if self.size == 1:
            return rows
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(self.size)]
        distributed.all_gather(counts, count)
        most = max(int(one) for one in counts)
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[: int(one)] for part, one in zip(parts, counts, strict=True)])

    def wait(self) -> None:
        """Go on when every rank has come here."""
        if self.size > 1:
            distributed.barrier()

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        distributed.all_reduce(total, op=getattr(distributed.ReduceOp, how))
        return total


ALONE = Ranks()


def launched() -> Ranks:
    """This process's place among those that ``torchrun`` started; the only one without it."""
    return Ranks(rank=int(os.environ.get("RANK", "0")), size=int(os.environ.get("WORLD_SIZE", "1")))


def launch_name() -> str:
    """What the processes of one launch have in common, and no other launch has that runs at the same time."""
    marks = [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")]
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return " ".join([*marks, socket.gethostname()] if on_one_machine else marks)


def own_device(device: str) -> str:
    """Where this rank's tower runs: of "cuda", the GPU that ``torchrun`` meant for it."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and launched().size > 1 else device


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the ranks while the block runs.

    Args:
        device: the torch device that towers run on; it decides how ranks talk.
    """
    ranks = launched()
    if ranks.size == 1:
        yield ranks
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # The first rank alone scores the model, and the others wait for it.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(days=1))
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
