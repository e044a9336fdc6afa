"""A table of a checkpoint's arrays, each with its shape and its place in torch: read one way, written the other.

Kernels lie as inputs × outputs there, of several axes where there are heads, and as outputs × inputs in torch;
those of convolutions as height, width, inputs, outputs. Arrays that share a place in torch are its parts in turn,
as query, key and value are of timm's ``qkv``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.base.errors import InputError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entry:
    """One array."""

    name: str
    """In the file."""
    shape: tuple[int, ...]
    """In the file."""
    tensor: str
    """Its place in a module's state."""
    layout: Literal["plain", "dense", "convolution"] = "plain"


def norm_entries(name: str, tensor: str, width: int) -> list[Entry]:
    """A layer norm's."""
    return [Entry(f"{name}/scale", (width,), f"{tensor}.weight"), Entry(f"{name}/bias", (width,), f"{tensor}.bias")]


def dense_entries(name: str, tensor: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> list[Entry]:
    """A linear layer's, whose inputs and outputs may have several axes."""
    return [
        Entry(f"{name}/kernel", (*inputs, *outputs), f"{tensor}.weight", "dense"),
        Entry(f"{name}/bias", outputs, f"{tensor}.bias"),
    ]


def check_arrays(arrays: Mapping[str, Array], entries: Iterable[Entry], path: Path) -> None:
    """Check that ``arrays`` are those of the table, all of them and no others.

    Raises:
        InputError: one is missing, left over or of another shape; the message names it.
    """
    wanted = {entry.name: entry.shape for entry in entries}
    missing, left_over = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or left_over:
        problems = [f"lacks {_some(missing)}"] if missing else []
        problems += [f"holds {_some(left_over)}, which is no part of such a checkpoint"] if left_over else []
        raise InputError(f"{path} {' and '.join(problems)}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} has the shape {arrays[name].shape}; with the others it must be {shape}")


def fill(module: nn.Module, arrays: Mapping[str, Array], entries: Iterable[Entry]) -> None:
    """Put the arrays of the table into all of the module's weights; they were checked."""
    state = module.state_dict()
    module.load_state_dict(
        {
            tensor: torch.cat([_as_torch(arrays[entry.name], entry, state[tensor].shape) for entry in group])
            for tensor, group in _by_tensor(entries)
        }
    )


def extract(state: Mapping[str, Tensor], entries: Iterable[Entry]) -> dict[str, Array]:
    """The arrays of the table, out of a module's state: what ``fill`` puts in, bit for bit."""
    return {
        entry.name: _as_numpy(part, entry)
        for tensor, group in _by_tensor(entries)
        for entry, part in zip(group, state[tensor].detach().float().cpu().chunk(len(group)), strict=True)
    }


def _by_tensor(entries: Iterable[Entry]) -> list[tuple[str, list[Entry]]]:
    ordered = sorted(entries, key=lambda entry: entry.tensor)
    return [(tensor, list(group)) for tensor, group in groupby(ordered, key=lambda entry: entry.tensor)]


def _as_torch(array: Array, entry: Entry, shape: torch.Size) -> Float[Tensor, "..."]:
    tensor = torch.from_numpy(array)
    if entry.layout == "convolution":
        return tensor.permute(3, 2, 0, 1)
    if entry.layout == "dense":
        return tensor.reshape(shape[1], -1).T
    return tensor.reshape(-1, *shape[1:])


def _as_numpy(tensor: Float[Tensor, "..."], entry: Entry) -> Array:
    if entry.layout == "convolution":
        tensor = tensor.permute(2, 3, 1, 0)
    if entry.layout == "dense":
        tensor = tensor.T
    array: Array = tensor.reshape(entry.shape).contiguous().numpy()
    return array


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
