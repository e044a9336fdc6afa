from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from littune.base.errors import InputError
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import train_tokenizer

# Makes a tiny model of a kind in a folder (conftest.py).
SaveTextModel = Callable[..., Path]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("minilm", "text tower 'minilm' does not say what kind it is; write KIND:NAME with KIND one of hf, lit"),
        ("scrach:S", "text tower 'scrach:S' is of an unknown kind 'scrach'; did you mean 'scratch'?"),
        ("package:bert", "text tower 'package:bert' is unknown; choose one of package:minilm"),
        ("package:minilm@x", "'package' takes no '@x'"),
        ("scratch:XL", "the text transformer has no size 'XL'; choose one of Ti, S, B, L"),
        ("hf:./nowhere", "the folder ./nowhere does not exist"),
    ],
)
def test_a_bad_spec_is_a_line_with_the_fix(spec: str, message: str, texts: list[str]):
    with pytest.raises(InputError) as error:
        load_text_tower(spec, max_tokens=16, texts=texts)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_from_scratch(texts: list[str]):
    torch.manual_seed(3)
    tower = load_text_tower("scratch", max_tokens=11, texts=iter(texts))
    assert (tower.spec, tower.dim, tower.pooling, tower.max_tokens) == ("scratch:S", 384, "last", 11)
    torch.manual_seed(3)
    again = load_text_tower("scratch:S", max_tokens=11, texts=texts)
    assert again.identity == tower.identity
    assert load_text_tower("scratch:Ti", max_tokens=11, pooling="mean", texts=texts).pooling == "mean"


def test_from_scratch_without_texts():
    with pytest.raises(InputError, match="scratch:Ti trains its tokenizer on texts, and there are none here"):
        load_text_tower("scratch:Ti", max_tokens=16)


def test_what_a_folder_asks_for_and_what_the_caller_asks_for(save_text_model: SaveTextModel, tmp_path: Path):
    folder = save_text_model("bert", tmp_path, pooling="mean_tokens")
    tower = load_text_tower(f"hf:{folder}", max_tokens=16)
    assert (tower.spec, tower.pooling, tower.dim, tower.max_tokens) == (f"hf:{folder}", "mean", 32, 16)
    assert load_text_tower(f"hf:{folder}", max_tokens=16, pooling="last").pooling == "last"
    with pytest.raises(InputError, match="text pooling 'max' is unknown"):
        load_text_tower(f"hf:{folder}", max_tokens=16, pooling="max")


def test_a_folder_below_the_home_folder(
    save_text_model: SaveTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_text_model("t5", tmp_path / "model")
    assert load_text_tower("hf:~/model", max_tokens=16).spec == "hf:~/model"


def test_more_tokens_than_the_model_reads(save_text_model: SaveTextModel, tmp_path: Path):
    folder = save_text_model("bert", tmp_path)
    with pytest.raises(InputError, match=f"hf:{folder} has positions for 40 tokens and takes no max_tokens 41"):
        load_text_tower(f"hf:{folder}", max_tokens=41)
    with pytest.raises(InputError, match="max_tokens 1 leaves no room for words; take at least 2"):
        load_text_tower(f"hf:{folder}", max_tokens=1)


def test_a_tokenizer_of_another_model(save_text_model: SaveTextModel, tmp_path: Path):
    folder = save_text_model("bert", tmp_path)
    large = train_tokenizer([f"word{number} word{number}" for number in range(400)])
    PreTrainedTokenizerFast(tokenizer_object=large, pad_token="<pad>").save_pretrained(folder)
    with pytest.raises(InputError, match=r"its tokenizer has \d+ tokens, its model only 400"):
        load_text_tower(f"hf:{folder}", max_tokens=16)
