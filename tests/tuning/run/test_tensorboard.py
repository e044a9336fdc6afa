"""TensorBoard: numbers arrive, a missing extra is named."""

import sys
from pathlib import Path

import pytest

from littune.base.errors import MissingExtraError
from littune.tuning.run.tensorboard import TensorBoard


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'littune\[tensorboard\]'"):
        TensorBoard(tmp_path, step=0)


def test_numbers_arrive(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard(tmp_path, step=0) as board:
        board.write(3, {"step": 3, "loss": 1.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 1.5)]


def test_without_a_folder_nothing_is_written() -> None:
    with TensorBoard(None, step=0) as board:
        board.write(3, {"loss": 1.5})
