"""The recipes are settings that littune takes, and name towers that timm has."""

import re
from pathlib import Path

import pytest
import timm

from littune.config import TrainConfig, read_toml

FOLDER = Path(__file__).parent.parent / "recipes"
FILES = sorted(FOLDER.glob("*.toml"))


def test_there_are_recipes() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run_s_settings(path: Path, tmp_path: Path) -> None:
    config = TrainConfig(store=("store",), out=tmp_path / "run", **read_toml(path))  # type: ignore[arg-type]
    assert config.batch_size >= 16_384
    assert config.center == "none"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_named_in_the_readme(path: Path) -> None:
    assert path.name in (FOLDER / "README.md").read_text()


def test_towers_have_weights() -> None:
    names = re.findall(r"timm:([\w.]+)(@?)", (FOLDER / "README.md").read_text())
    assert names
    for name, checkpoint in names:
        assert timm.is_model(name) and (checkpoint or timm.models.is_model_pretrained(name)), name
