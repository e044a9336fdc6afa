"""A dry run says what is trained and what it takes, and writes nothing."""

from pathlib import Path

from littune.config import TrainConfig
from littune.tuning.forecast import forecast
from tests.tuning.conftest import MakeStore


def test_what_is_counted_is_so_and_nothing_is_written(make_store: MakeStore, tiny_text: str, tmp_path: Path) -> None:
    store = (str(make_store("a").path),)
    for locking in ("LL", "LU"):
        about = forecast(
            TrainConfig(store=store, text=tiny_text, locking=locking, out=tmp_path / "run", batch_size=16, epochs=3)
        )
        head = 32 * 12 + 12 + 1
        assert (about.parameters_trained == head) == (locking == "LL")
        assert (about.parameters_locked == 0) == (locking == "LU")
        assert (about.pairs, about.images, about.steps) == (80, 40, 15)
        assert 0 < about.loss_share < 1 and about.run_seconds > about.step_seconds > 0 and about.memory_gb > 0.1
        assert f"{about.parameters_trained:,} trained" in about.to_text()
    assert not (tmp_path / "run").exists()
