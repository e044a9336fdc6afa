"""A run's metrics for TensorBoard (extra ``tensorboard``)."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from littune.base.errors import MissingExtraError


class TensorBoard:
    """Writes numbers into ``RUN/tensorboard``.

    Args:
        out: the run folder; None writes nothing.
        step: what was written of later steps, by a run that was killed, is overwritten.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, out: Path | None, *, step: int) -> None:
        self._writer: Any = None
        if out is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError("--tensorboard", "tensorboard") from error
            self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, object]) -> None:
        """Write the numbers of a step."""
        if self._writer is not None:
            for name, value in numbers.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
