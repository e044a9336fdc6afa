"""The text towers of the five published files, name by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.towers.lit.heads import has_head, head_entries, num_outputs
from littune.towers.lit.npz import Checkpoint
from littune.towers.lit.texts import (
    bert_config,
    bert_entries,
    holds_bert,
    text_generation,
    transformer_entries,
    transformer_shape,
)
from littune.towers.text.transformer import Shape
from tests.towers.lit.checkpoints import NARROW, PUBLISHED, VARIANTS, Sizes, draw, shapes

BERTS = [name for name, sizes in PUBLISHED.items() if sizes.bert]
SMALL = [name for name, sizes in PUBLISHED.items() if not sizes.bert]


def expected(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes(sizes).items() if name.startswith("txt/")}


def checkpoint(sizes: Sizes) -> Checkpoint:
    arrays = {name: array for name, array in draw(sizes).items() if name.startswith("txt/")}
    return Checkpoint(path=Path("a.npz"), names=frozenset(arrays), arrays=arrays)


@pytest.mark.parametrize("name", BERTS)
def test_the_table_of_the_published_berts(name: str) -> None:
    sizes = PUBLISHED[name]
    narrow = bert_config(checkpoint(NARROW[name]))
    config = type(narrow)(
        vocab_size=30522,
        hidden_size=sizes.text_width,
        num_hidden_layers=sizes.text_depth,
        max_position_embeddings=512,
        type_vocab_size=2,
    )
    entries = [*bert_entries(config), *head_entries("txt/", sizes.text_width, sizes.out_dim)]
    assert {entry.name: entry.shape for entry in entries} == expected(sizes)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("old", [False, True])
def test_the_table_of_the_published_small_towers(name: str, old: bool) -> None:
    sizes = replace(PUBLISHED[name], old_text=old)
    shape = Shape(width=sizes.text_width, depth=12, num_heads=sizes.text_heads, vocab_size=16_000, num_positions=16)
    entries = [
        *transformer_entries(shape, "old" if old else "new"),
        *head_entries("txt/", sizes.text_width, sizes.out_dim),
    ]
    assert {entry.name: entry.shape for entry in entries} == expected(sizes)


def test_the_configuration_of_a_bert() -> None:
    config = bert_config(checkpoint(NARROW["LiT-L16L"]))
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (120, 128, 2)
    assert (config.num_attention_heads, config.intermediate_size) == (2, 512)
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu_pytorch_tanh", 1e-12)
    assert (config.max_position_embeddings, config.type_vocab_size) == (20, 2)


@pytest.mark.parametrize("name", ["LiT-L16S", "LiT-L16Ti", "old names, small", "old image tower, new text tower"])
def test_the_shape_of_a_small_tower(name: str) -> None:
    sizes = VARIANTS[name]
    found = checkpoint(sizes)
    assert not holds_bert(found)
    assert transformer_shape(found) == Shape(
        width=sizes.text_width, depth=2, num_heads=sizes.text_heads, vocab_size=320, num_positions=16
    )
    assert text_generation(found) == ("old" if sizes.old_text else "new")


def test_heads() -> None:
    found = checkpoint(NARROW["LiT-B16B"])
    assert has_head(found, "txt/")
    assert not has_head(found, "img/")
    assert num_outputs(found, "txt/") == 40


def test_no_text_tower_is_an_error() -> None:
    assert holds_bert(checkpoint(NARROW["LiT-B16B"]))
    with pytest.raises(InputError, match=r"a.npz has no text tower: neither txt/BertEncoder_0/… nor txt/Encoder_0/…"):
        holds_bert(Checkpoint(path=Path("a.npz"), names=frozenset(), arrays={}))


def test_a_bert_of_an_odd_width_or_without_layers_is_an_error() -> None:
    with pytest.raises(InputError, match="a BERT of width 100, which is no multiple of 64"):
        bert_config(checkpoint(replace(NARROW["LiT-B16B"], text_width=100)))
    with pytest.raises(InputError, match=r"lacks txt/BertEncoder_0/.*layers_0/attention_block"):
        bert_config(checkpoint(replace(NARROW["LiT-B16B"], text_depth=0)))
