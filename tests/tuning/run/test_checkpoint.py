"""What a run keeps: the last states and the best, nothing of another model or other data, nothing half written."""

from pathlib import Path

import pytest
import torch
from torch import nn

from littune.base.errors import InputError, MismatchError
from littune.tuning.run.checkpoint import Best, Checkpoints, MetricsLog, changing_weights, read_metrics


def states_of(out: Path, *, about: str = "rows", keep: int = 2, width: int = 3) -> tuple[nn.Module, Checkpoints]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, Checkpoints(out, model=model, optimizer=optimizer, about=about, keep=keep)


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in changing_weights(model).values():
            weight.add_(1)


def test_the_last_states_are_kept_and_the_last_is_taken_up(tmp_path: Path) -> None:
    model, states = states_of(tmp_path)
    for step in (1, 2, 10):
        change(model)
        states.save(step, Best(score=0.5, step=1))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10.pt", "2.pt"]
    other, resumed = states_of(tmp_path)
    assert resumed.load() == (10, Best(score=0.5, step=1))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_nothing_is_taken_up_where_nothing_was_saved(tmp_path: Path) -> None:
    assert states_of(tmp_path)[1].load() == (0, None)


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    model, states = states_of(tmp_path)
    change(model)
    best = {name: value.clone() for name, value in changing_weights(model).items()}
    states.save_best()
    change(model)
    states.take_best()
    assert all(torch.equal(best[name], value) for name, value in changing_weights(model).items())


def test_a_damaged_state_or_one_of_another_model_or_of_other_data_is_refused(tmp_path: Path) -> None:
    states_of(tmp_path)[1].save(3, None)
    with pytest.raises(MismatchError, match="was begun on other data"):
        states_of(tmp_path, about="other rows")[1].load()
    with pytest.raises(InputError, match=r"3\.pt cannot be taken up .*delete it to go on from the state before"):
        states_of(tmp_path, width=4)[1].load()
    (tmp_path / "checkpoints" / "3.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"3\.pt cannot be taken up"):
        states_of(tmp_path)[1].load()


def test_statistics_that_training_keeps_are_a_part_of_the_state(tmp_path: Path) -> None:
    model, _ = states_of(tmp_path)
    assert "1.running_mean" in changing_weights(model)
    model.eval()
    assert "1.running_mean" not in changing_weights(model)


def test_metrics_are_cut_back_to_the_step_that_a_run_goes_on_from(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, step=0) as log:
        for step in (1, 2, 3):
            log.write({"step": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    with MetricsLog(tmp_path, step=2) as log:
        log.write({"step": 3, "again": True})
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    with MetricsLog(tmp_path, step=0, quiet=True) as log:
        log.write({"step": 9})
    assert len(read_metrics(tmp_path)) == 3
