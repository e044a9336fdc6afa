"""Models of transformers in folders: whole, silent, and loaded without random poolers."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging

from littune.apps.export.hf.saving import load_arguments, quietly, save_model
from littune.base.errors import LittuneError
from tests.apps.export.drawn_models import text_tower, vit_trunk


def test_weights_in_any_order_of_memory_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = vit_trunk().model.to(memory_format=torch.channels_last)
    save_model(model, tmp_path)
    assert capfd.readouterr() == ("", "")
    with quietly():
        loaded = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_model_without_its_pooler_is_loaded_without_one() -> None:
    bert = text_tower("bert").encoder.core
    assert load_arguments(bert) == {"add_pooling_layer": False}
    assert load_arguments(vit_trunk().model) == {"add_pooling_layer": False}
    assert load_arguments(vit_trunk(has_pooler=True).model) == {}
    assert load_arguments(transformers.Dinov2Model(transformers.Dinov2Config(num_hidden_layers=1))) == {}


def test_transformers_is_silent_only_inside() -> None:
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quietly():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, bars)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LittuneError, match="cannot write"):
        save_model(vit_trunk().model, tmp_path / "file" / "folder")
