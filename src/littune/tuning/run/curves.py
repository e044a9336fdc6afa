"""A run's metrics as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from littune.base.files import write_bytes

Record = Mapping[str, object]


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Draw loss, learning rate, temperature and, where it was scored, recall or accuracy over the steps (PNG)."""
    scores = _score_names(records)
    panels = ["loss", "lr", "temperature", *(["scores"] if scores else [])]
    figure = Figure(figsize=(3.6 * len(panels), 3.0), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in scores if panel == "scores" else [panel]:
            _plot(axes, records, name)
        axes.set_title("validation" if panel == "scores" else panel)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if panel == "scores":
            axes.legend(fontsize="x-small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())


def _plot(axes: Axes, records: Sequence[Record], name: str) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    axes.plot([float(str(step)) for step, _ in points], [float(str(value)) for _, value in points], label=name)


def _score_names(records: Sequence[Record]) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if name.endswith(("recall@1", "accuracy@1"))]
