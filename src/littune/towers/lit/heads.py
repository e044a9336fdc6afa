"""The linear heads of a checkpoint; their places are those of a ``nn.Linear``."""

from littune.towers.lit.arrays import Entry
from littune.towers.lit.npz import Checkpoint


def has_head(checkpoint: Checkpoint, tower: str) -> bool:
    """Whether a tower ("img/" or "txt/") ends in a head."""
    return any(name.startswith(f"{tower}head/") for name in checkpoint.names)


def head_entries(tower: str, inputs: int, outputs: int, *, bias: bool = True) -> list[Entry]:
    """The arrays of a tower's head."""
    kernel = Entry(f"{tower}head/kernel", (inputs, outputs), "weight", "dense")
    return [kernel, Entry(f"{tower}head/bias", (outputs,), "bias")] if bias else [kernel]


def num_outputs(checkpoint: Checkpoint, tower: str) -> int:
    """The dimensions that a tower's head maps onto.

    Raises:
        InputError: it has no head.
    """
    return checkpoint.shape(f"{tower}head/kernel", 2)[1]
