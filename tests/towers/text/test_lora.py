"""Adapters: the tower starts as it was, its own weights never change, and merging changes no output."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from littune.base.errors import InputError, MissingExtraError
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.lora import SCALE, add_adapters, merge_adapters
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import train_tokenizer
from littune.towers.text.tower import TextTower

pytest.importorskip("peft", reason="the extra lora is not installed")

TEXTS = ["a dog runs over the grass", "two children play", "a cat", "a cat and a dog"]


@pytest.fixture
def tower() -> TextTower:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=48,
        max_position_embeddings=20,
    )
    encoder = HFEncoder(BertModel(config, add_pooling_layer=False), config)
    return TextTower(encoder, tokenizer, spec="hf:tiny", pooling="mean", max_tokens=16, pad_id=0)


def trained(tower: TextTower) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}


def test_adapters_alone_are_trained_two_narrow_matrices_a_linear_layer(tower: TextTower) -> None:
    linear = {name: m for name, m in tower.named_modules() if type(m) is torch.nn.Linear}
    add_adapters(tower, rank=3)
    shapes = {name: tuple(parameter.shape) for name, parameter in trained(tower).items()}
    expected = {f"{name}.lora_A.default.weight": (3, module.in_features) for name, module in linear.items()}
    expected |= {f"{name}.lora_B.default.weight": (module.out_features, 3) for name, module in linear.items()}
    assert shapes == expected and len(linear) == 12


def test_the_tower_starts_as_it_was_and_merged_it_says_what_its_adapters_made_it_say(tower: TextTower) -> None:
    before = copy.deepcopy(tower)
    add_adapters(tower, rank=3)
    assert torch.equal(tower.embed(TEXTS), before.embed(TEXTS))
    for parameter in trained(tower).values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapted, matrices = tower.embed(TEXTS), {name: p.detach().clone() for name, p in trained(tower).items()}
    merge_adapters(tower)
    assert (adapted - before.embed(TEXTS)).abs().max() > 0.1
    torch.testing.assert_close(tower.embed(TEXTS), adapted, rtol=1e-4, atol=1e-5)
    state = tower.state_dict()
    assert state.keys() == before.state_dict().keys()
    name = "encoder.core.encoder.layer.1.output.dense"
    low, high = matrices[f"{name}.lora_A.default.weight"], matrices[f"{name}.lora_B.default.weight"]
    expected = before.state_dict()[f"{name}.weight"] + SCALE * high @ low
    torch.testing.assert_close(state[f"{name}.weight"], expected, rtol=1e-6, atol=1e-7)


def test_the_same_seed_draws_the_same_adapters(tower: TextTower) -> None:
    other = copy.deepcopy(tower)
    for each in (tower, other):
        torch.manual_seed(5)
        add_adapters(each, rank=2)
    assert all(torch.equal(a, b) for a, b in zip(tower.parameters(), other.parameters(), strict=True))


def test_a_merged_tower_is_saved_as_any_other(tower: TextTower, tmp_path: Path) -> None:
    add_adapters(tower, rank=2)
    for parameter in trained(tower).values():
        torch.nn.init.normal_(parameter, std=0.3)
    merge_adapters(tower)
    tower.save(tmp_path)
    assert TextTower.load(tmp_path).identity == tower.identity


def test_other_towers_are_refused() -> None:
    tower = load_text_tower("scratch:Ti", max_tokens=8, texts=TEXTS)
    with pytest.raises(InputError, match="lora = 4 needs a text tower of transformers .* scratch:Ti is none"):
        add_adapters(tower, rank=4)


def test_without_peft(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"the package peft.*littune\[lora\]"):
        add_adapters(tower, rank=4)
