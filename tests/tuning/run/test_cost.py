"""What a run took adds up over the times that it was begun."""

import json
from pathlib import Path

import pytest

from littune.tuning.run import cost
from littune.tuning.run.cost import Cost


def test_seconds_and_the_peak_are_those_of_all_beginnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, peak = iter([100.0, 107.0, 500.0, 503.0, 0.0, 1.0]), iter([2_000, 1_000, 1_000])
    monkeypatch.setattr(cost.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cost, "peak_memory", lambda: next(peak))

    def saved(step: int, pairs: int) -> dict[str, float]:
        Cost(tmp_path, step=step).save(pairs=pairs, processes=1)
        found: dict[str, float] = json.loads((tmp_path / "cost.json").read_text())
        return found

    assert saved(0, 64) == {"seconds": 7.0, "pairs seen": 64, "processes": 1, "peak memory, bytes": 2_000}
    assert saved(2, 128) == {"seconds": 10.0, "pairs seen": 128, "processes": 1, "peak memory, bytes": 2_000}
    # Begun anew, it counts anew.
    assert saved(0, 64)["seconds"] == 1.0


def test_a_damaged_file_is_counted_from_nothing(tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text("{", encoding="utf-8")
    Cost(tmp_path, step=5).save(pairs=1, processes=1)
    assert json.loads((tmp_path / "cost.json").read_text())["seconds"] < 60
