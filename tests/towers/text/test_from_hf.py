import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, BartConfig, BartModel, BertModel, PreTrainedModel, ViTConfig, ViTModel

from littune.base.errors import InputError
from littune.towers.text.from_hf import HFEncoder, default_pooling, load_hf_tokenizer

# Makes a tiny model of a kind in a folder (conftest.py).
SaveTextModel = Callable[..., Path]

KINDS = ["bert", "roberta", "modernbert", "t5", "gpt2"]


def ragged_batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(2, 300, (4, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(11) < torch.tensor([11, 1, 4, 10])[:, None]
    return ids.where(mask, 0), mask


@pytest.mark.parametrize("kind", KINDS)
def test_padded_texts_agree_with_fused_attention(kind: str, save_text_model: SaveTextModel, tmp_path: Path):
    encoder = HFEncoder.load(save_text_model(kind, tmp_path)).eval()
    ids, mask = ragged_batch()
    eager = encoder(ids, mask)
    encoder.core.set_attn_implementation("sdpa")
    torch.testing.assert_close(eager[mask], encoder(ids, mask)[mask], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, save_text_model: SaveTextModel, tmp_path: Path):
    encoder = HFEncoder.load(save_text_model(kind, tmp_path)).eval()
    ids, mask = ragged_batch()
    together = encoder(ids, mask)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = encoder(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row, :length], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_used(kind: str, save_text_model: SaveTextModel, tmp_path: Path):
    encoder = HFEncoder.load(save_text_model(kind, tmp_path)).eval()
    ids, mask = ragged_batch()
    encoder(ids, mask)[mask].square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
    assert encoder.dim == 32


def test_outputs_are_those_of_the_model_itself(save_text_model: SaveTextModel, tmp_path: Path):
    encoder = HFEncoder.load(save_text_model("bert", tmp_path)).eval()
    ids, mask = ragged_batch()
    own = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    expected = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(ids, mask)[mask], expected[mask], rtol=1e-4, atol=1e-4)


def test_half_precision_weights_are_read_as_float32(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path)
    halves = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(halves, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text()) | {"dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert {p.dtype for p in HFEncoder.load(tmp_path).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "asked_for", "pooling"),
    [
        ("bert", None, "first"),
        ("modernbert", None, "first"),
        ("t5", None, "mean"),
        ("gpt2", None, "last"),
        ("bert", "mean_tokens", "mean"),
        ("bert", "lasttoken", "last"),
        ("t5", "cls_token", "first"),
        ("bert", "max_tokens", "first"),
    ],
)
def test_the_default_pooling(
    kind: str, asked_for: str | None, pooling: str, save_text_model: SaveTextModel, tmp_path: Path
):
    save_text_model(kind, tmp_path, pooling=asked_for)
    assert default_pooling(tmp_path, AutoConfig.from_pretrained(tmp_path)) == pooling


def test_the_newest_way_to_name_a_pooling(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path, pooling="lasttoken")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    assert default_pooling(tmp_path, AutoConfig.from_pretrained(tmp_path)) == "mean"


@pytest.mark.parametrize(("kind", "limit"), [("bert", 40), ("roberta", 39), ("modernbert", 40), ("gpt2", 40)])
def test_more_tokens_than_positions(kind: str, limit: int, save_text_model: SaveTextModel, tmp_path: Path):
    encoder = HFEncoder.load(save_text_model(kind, tmp_path)).eval()
    encoder.check_length(limit, "it")
    with pytest.raises(InputError, match=f"^it .*takes no max_tokens {limit + 1}; take fewer"):
        encoder.check_length(limit + 1, "it")


def test_relative_positions_have_no_end(save_text_model: SaveTextModel, tmp_path: Path):
    HFEncoder.load(save_text_model("t5", tmp_path)).eval().check_length(700, "it")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "^the folder ./nowhere does not exist$"),
        ("somebody/some-model", "^somebody/some-model is no folder here, nor a model that can be downloaded now: "),
    ],
)
def test_what_is_not_there(name: str, message: str):
    with pytest.raises(InputError, match=message) as error:
        HFEncoder.load(name)
    assert "\n" not in str(error.value)


def test_a_folder_of_something_else(tmp_path: Path):
    with pytest.raises(InputError, match=r"has no config.json; name a folder that a transformers model was saved to"):
        HFEncoder.load(tmp_path)


def image_model() -> PreTrainedModel:
    return ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))


def bart() -> PreTrainedModel:
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    return BartModel(BartConfig(vocab_size=60, encoder_attention_heads=1, decoder_attention_heads=1, **sizes))


def test_a_model_that_reads_no_text(save_text_model: SaveTextModel, tmp_path: Path):
    image_model().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a vit model, not a text encoder; name one, such as a BERT or a T5"):
        HFEncoder.load(tmp_path)


def test_an_encoder_that_cannot_be_taken_by_itself(save_text_model: SaveTextModel, tmp_path: Path):
    bart().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a bart model, whose encoder littune cannot take by itself"):
        HFEncoder.load(tmp_path)


def test_weights_that_are_lacking_are_not_made_up(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of the model's weights, such as encoder.layer.1.output.dense"):
        HFEncoder.load(tmp_path)


def test_left_over_weights_are_errors_where_there_should_be_none(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path)  # with a head that predicts masked words
    with pytest.raises(InputError, match=r"unknown weights, such as cls\.predictions"):
        HFEncoder.load(tmp_path, exact=True)


def test_damaged_weights(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        HFEncoder.load(tmp_path)


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path("harm-was-done").touch, ())  # type: ignore[return-value]


def test_a_pickle_is_not_run(save_text_model: SaveTextModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_text_model("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    HFEncoder.load(tmp_path)
    torch.save(weights | {"more": _Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        HFEncoder.load(tmp_path)
    assert not (tmp_path / "harm-was-done").exists()


def test_a_folder_without_a_tokenizer(save_text_model: SaveTextModel, tmp_path: Path):
    save_text_model("bert", tmp_path)
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match=r"has no tokenizer; save one there, as tokenizer.json"):
        load_hf_tokenizer(tmp_path)
