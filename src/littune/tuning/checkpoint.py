"""The run folder: settings, metrics, and checkpoints from which a killed run goes on exactly.

    config.toml           the settings; ``littune train --config`` repeats the run
    metrics.jsonl         a line a step, and a line each time that the model is scored
    checkpoint.pt         the last complete state of an unfinished run; gone when it is finished
    curves.png            the metrics as a picture
    model.json, model.safetensors, text_tower/    the model (see ``littune.model.lit``); model.json is written
                          last, and its presence says that the run is finished

Nothing random is drawn outside the sampler, and its order follows from the seed and the step, so the weights,
the optimiser's state and the number of steps are all there is to keep.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from littune.base.errors import InputError
from littune.base.files import folder_lock, write_atomic
from littune.config import TrainConfig, read_toml
from littune.model.lit import is_run

_CONFIG = "config.toml"
_CHECKPOINT = "checkpoint.pt"
_METRICS = "metrics.jsonl"

Record = Mapping[str, object]


@contextmanager
def open_run(config: TrainConfig) -> Iterator[bool]:
    """Hold the run folder of ``config`` while the block runs, and hand out whether the run is finished already.

    Raises:
        InputError: the folder holds something that is no run.
        MismatchError: it was begun with other settings.
        LittuneError: another process trains in it.
    """
    out = config.out
    begun = is_run(out) or (out / _CHECKPOINT).is_file()
    if out.exists() and not begun and not _is_free(out):
        raise InputError(f"{out} holds something that is no littune run; choose another --out")
    with folder_lock(out):
        # Until there is something to lose, a corrected command may begin anew.
        if begun:
            config.check_same(out / _CONFIG)
        else:
            config.save(out / _CONFIG)
        yield is_run(out)


def _is_free(out: Path) -> bool:
    """Whether a folder holds nothing but the traces of a run that got nowhere."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")}
    ours = {_CONFIG, _METRICS, "curves.png", "text_tower", "model.safetensors", "image_tower.safetensors"}
    return not names or (_CONFIG in names <= ours and "store" in read_toml(out / _CONFIG))


def save_checkpoint(out: Path, *, step: int, model: nn.Module, optimizer: Optimizer) -> None:
    """Atomically write the state after ``step`` steps."""
    state = {"step": step, "trained": trained_weights(model), "optimizer": optimizer.state_dict()}
    write_atomic(out / _CHECKPOINT, lambda file: torch.save(state, file))


def load_checkpoint(out: Path, *, model: nn.Module, optimizer: Optimizer) -> int:
    """Take up the last complete state, if there is one.

    Returns:
        How many steps have been taken.

    Raises:
        InputError: the file is damaged or of another model.
    """
    path = out / _CHECKPOINT
    if not path.is_file():
        return 0
    try:
        state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
        left_over = state["trained"].keys() ^ trained_weights(model).keys()
        if left_over:
            raise KeyError(f"weights {sorted(left_over)}")
        model.load_state_dict(state["trained"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        raise InputError(f"{path} cannot be taken up ({error}); delete it to begin again") from error
    return int(state["step"])


def remove_checkpoint(out: Path) -> None:
    """Remove what only an unfinished run needs."""
    (out / _CHECKPOINT).unlink(missing_ok=True)


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


class MetricsLog:
    """``metrics.jsonl``, cut back to the step that the run goes on from.

    Args:
        out: the run folder.
        step: records of later steps are dropped, for they will be written again.
    """

    def __init__(self, out: Path, *, step: int) -> None:
        path = out / _METRICS
        kept = [record for record in read_metrics(out) if _step(record) <= step] if step else []
        lines = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomic(path, lambda file: file.write(lines.encode()))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(json.dumps(record) + "\n")

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_metrics(out: Path) -> list[dict[str, object]]:
    """The records of a run so far; a line cut short by a kill is passed over."""
    path = out / _METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _step(record: Record) -> int:
    step = record["step"]
    assert isinstance(step, int)
    return step
