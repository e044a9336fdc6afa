"""A run's scores as a table of markdown."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from littune.apps.card.markdown import code, table

# Recall in which texts of other images that say the same count too: in scores.json, and in the report.
_LEFT_OUT = "recall_dedup@"


def scores_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for each metric of each set.

    Args:
        results: ``Result.to_dict`` of each; scores are fractions.
    """
    head = ("set", "task", "images", "metric", "score", "95 % interval")
    return table(head, [line for result in results for line in _lines(result)])


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    language = f" in {code(result['language'])}" if result.get("language") else ""
    task = {"zero_shot": "zero-shot classification", "retrieval": "retrieval"}[result["task"]]
    for metric, value in result["metrics"].items():
        if _LEFT_OUT not in metric:
            interval = result.get("intervals", {}).get(metric)
            shown = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "–"
            yield (
                f"{code(Path(result['data']).name)}{language}",
                task,
                f"{result['num_images']:,}",
                code(metric),
                f"{100 * value:.1f}",
                shown,
            )
