"""The run folder: settings, metrics, and checkpoints from which a killed run goes on exactly.

    config.toml           the settings; ``littune train --config`` repeats the run
    metrics.jsonl         a line a step, and a line each time that the model is scored
    checkpoints/          the last complete states of an unfinished run, N.pt after N steps, and best.pt, the
                          weights that scored best so far; gone when it is finished
    cost.json             seconds, pairs seen, peak memory
    data.json, scores.json, README.md    what it was trained on, how it scored on --val, and its card (littune.apps)
    curves.png            the metrics as a picture
    model.json, model.safetensors, text_tower/    the model (see ``littune.model.lit``); model.json is written
                          last, and its presence says that the run is finished

Whatever is drawn at random (order, captions, views, augmentations) follows from the seed and the step, so the
weights, the optimiser's state and the number of steps are all there is to keep.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from littune.base.errors import InputError, MismatchError, first_line
from littune.base.files import explained_os_errors, folder_lock, write_atomic
from littune.config import TrainConfig, read_toml
from littune.model.run_files import COST, is_run

_CONFIG = "config.toml"
_CHECKPOINTS = "checkpoints"
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
    begun = is_run(out) or bool(_states(out))
    if out.exists() and not begun and not _is_free(out):
        raise InputError(f"{out} holds something that is no littune run; choose another --out")
    with folder_lock(out):
        _sweep(out)
        # Until there is something to lose, a corrected command may begin anew.
        if begun:
            config.check_same(out / _CONFIG)
        else:
            config.save(out / _CONFIG)
        yield is_run(out)


def _sweep(out: Path) -> None:
    """Remove what a kill left behind: halves of files, and the states of a run that was just finished."""
    for half in (*out.glob(".*.tmp"), *(out / _CHECKPOINTS).glob(".*.tmp")):
        half.unlink(missing_ok=True)
    if is_run(out):
        shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)


def _is_free(out: Path) -> bool:
    """Whether a folder holds nothing but the traces of a run that got nowhere."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")}
    ours = {_CONFIG, _METRICS, COST, _CHECKPOINTS, "curves.png", "text_tower", "tensorboard"}
    ours |= {"model.safetensors", "image_tower.safetensors"}
    return not names or (_CONFIG in names <= ours and "store" in read_toml(out / _CONFIG))


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best score on the val sets so far, and the step after which it was had."""

    score: float
    step: int


class Checkpoints:
    """The states of a run.

    Args:
        out: the run folder.
        model: what is trained.
        optimizer: its optimiser.
        about: what the run is made of beside its settings (the rows, the image tower); a state of something else is
            not taken up.
        keep: how many of the last states are kept.
    """

    def __init__(self, out: Path, *, model: nn.Module, optimizer: Optimizer, about: str, keep: int) -> None:
        self._out = out
        self._model = model
        self._optimizer = optimizer
        self._about = about
        self._keep = keep

    def save(self, step: int, best: Best | None) -> None:
        """Atomically write the state after ``step`` steps, and forget those before the last ones."""
        state = {
            "step": step,
            "about": self._about,
            "weights": changing_weights(self._model),
            "optimizer": self._optimizer.state_dict(),
            "best": None if best is None else vars(best),
        }
        write_atomic(self._out / _CHECKPOINTS / f"{step}.pt", lambda file: torch.save(state, file))
        for path in _states(self._out)[: -self._keep]:
            path.unlink()

    def load(self) -> tuple[int, Best | None]:
        """Take up the last complete state, if there is one.

        Returns:
            How many steps have been taken, and the best score so far.

        Raises:
            InputError: the file is damaged or of another model.
            MismatchError: it is of a run on other rows or another image tower.
        """
        states = _states(self._out)
        if not states:
            return 0, None
        try:
            state = _read(states[-1])
            self._take(state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise InputError(
                f"{states[-1]} cannot be taken up ({first_line(error)}); if it is damaged, delete it to go on from the "
                "state before"
            ) from error
        if state["about"] != self._about:
            raise MismatchError(
                f"{self._out} was begun on other data than its stores or pairs hold now; restore them, or another --out"
            )
        return int(state["step"]), None if state["best"] is None else Best(**state["best"])

    def save_best(self) -> None:
        """Keep the present weights as the best."""
        weights = changing_weights(self._model)
        write_atomic(self._out / _CHECKPOINTS / "best.pt", lambda file: torch.save(weights, file))

    def take_best(self) -> None:
        """Give the model the best weights."""
        self._take(_read(self._out / _CHECKPOINTS / "best.pt"))

    def remove(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self._out / _CHECKPOINTS, ignore_errors=True)

    def _take(self, weights: Mapping[str, torch.Tensor]) -> None:
        left_over = weights.keys() ^ changing_weights(self._model).keys()
        if left_over:
            raise InputError(f"it is of another model: {', '.join(sorted(left_over)[:3])}")
        self._model.load_state_dict(weights, strict=False)


def changing_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes, by name, and the statistics that it keeps (batch norms')."""
    changing = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    statistics = {
        name: value
        for prefix, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for name, value in module.named_buffers(prefix, recurse=False)
    }
    return changing | statistics


def _states(out: Path) -> list[Path]:
    """The files of states, the earliest first."""
    found = [path for path in (out / _CHECKPOINTS).glob("*.pt") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def _read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(path.read_bytes()), weights_only=True, map_location="cpu")
    return state


class MetricsLog:
    """``metrics.jsonl``, cut back to the step that the run goes on from.

    Args:
        out: the run folder.
        step: records of later steps are dropped, for they will be written again.
        quiet: write nothing, as another process does.
    """

    def __init__(self, out: Path, *, step: int, quiet: bool = False) -> None:
        path = Path(os.devnull) if quiet else out / _METRICS
        if not quiet:
            kept = [record for record in read_metrics(out) if _step(record) <= step] if step else []
            lines = "".join(json.dumps(record) + "\n" for record in kept)
            write_atomic(path, lambda file: file.write(lines.encode()))
        # By lines, for those who follow the file, and for a state that is saved never to be ahead of it.
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed by __exit__)

    def write(self, record: Record) -> None:
        """Append one record.

        Raises:
            LittuneError: the disk is full.
        """
        with explained_os_errors(Path(self._file.name)):
            self._file.write(json.dumps(record) + "\n")

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
