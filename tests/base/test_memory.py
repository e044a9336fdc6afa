import platform
import resource

import pytest
import torch

from littune.base.memory import keep_freed_memory

SIZE = 64 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands freed blocks back at once")
def test_a_large_block_is_reused_without_faulting_it_in_again() -> None:
    keep_freed_memory()
    # A small block that comes to lie in a freed large one keeps the next from fitting there; handed back to the
    # system, a large block is faulted in anew every time.
    assert min(faults_of_a_block() for _ in range(20)) < SIZE / resource.getpagesize() / 10


def faults_of_a_block() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(SIZE, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
