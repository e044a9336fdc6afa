"""Published text towers: BERT against transformers, the small ones against a plain account of what flax computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import BertConfig, BertModel

from littune.base.errors import InputError
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower
from tests.towers.lit.checkpoints import PUBLISHED, TEXTS, VARIANTS, Array, Sizes, bert_vocabulary, draw, save

Rows = npt.NDArray[np.float64]

BERTS = [name for name, sizes in VARIANTS.items() if sizes.bert]
SMALL = [name for name, sizes in VARIANTS.items() if not sizes.bert]


def load(path: Path, *, max_tokens: int | None = None) -> TextTower:
    return load_text_tower(f"lit:{path}", max_tokens=max_tokens)


def padded_ids(tower: TextTower, texts: list[str], pad: int) -> npt.NDArray[np.int64]:
    """What the tower's tokenizer says, each text filled up to 16 tokens."""
    ids = np.full((len(texts), 16), pad)
    for row, text in zip(ids, texts, strict=True):
        tokens = tower.tokenizer.encode(text).ids
        row[: len(tokens)] = tokens
    return ids


def by_transformers(arrays: dict[str, Array], sizes: Sizes, ids: npt.NDArray[np.int64]) -> torch.Tensor:
    """The class token's outputs of transformers' own BERT, on padded texts."""
    config = BertConfig(
        vocab_size=sizes.words,
        hidden_size=sizes.text_width,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_heads,
        intermediate_size=4 * sizes.text_width,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-12,
        max_position_embeddings=sizes.text_positions,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    root = "txt/BertEncoder_0"
    state = {
        f"embeddings.{ours}_embeddings.weight": arrays[f"{root}/embedder/embedders_{theirs}_ids/embedding"]
        for ours, theirs in (("word", "token"), ("position", "position"), ("token_type", "segment"))
    }
    norms = {"embeddings.LayerNorm": f"{root}/layer_norm"}
    denses = {}
    for index in range(sizes.text_depth):
        layer, theirs = f"encoder.layer.{index}", f"{root}/encoder_block/layer_sequence/layers_{index}"
        for part in ("query", "key", "value"):
            denses[f"{layer}.attention.self.{part}"] = f"{theirs}/attention_block/attention_layer/{part}"
        denses[f"{layer}.attention.output.dense"] = f"{theirs}/attention_block/dense_layer"
        denses[f"{layer}.intermediate.dense"] = f"{theirs}/mlp_block/mlp/dense_layer"
        denses[f"{layer}.output.dense"] = f"{theirs}/mlp_block/dense_layer"
        norms[f"{layer}.attention.output.LayerNorm"] = f"{theirs}/attention_block/layer_norm"
        norms[f"{layer}.output.LayerNorm"] = f"{theirs}/mlp_block/layer_norm"
    for place, name in denses.items():
        state |= {f"{place}.weight": arrays[f"{name}/kernel"].T, f"{place}.bias": arrays[f"{name}/bias"]}
    for place, name in norms.items():
        state |= {f"{place}.weight": arrays[f"{name}/scale"], f"{place}.bias": arrays[f"{name}/bias"]}
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(ids != 0).long())
    rows: torch.Tensor = outputs.last_hidden_state[:, 0]
    return rows


def by_numpy(arrays: dict[str, Array], sizes: Sizes, ids: npt.NDArray[np.int64]) -> Rows:
    """The last token's outputs of the release's text transformer, in float64, padding read as text."""
    get = {name: array.astype(np.float64) for name, array in arrays.items()}
    attention, second, mlp = (1, 2, 3) if sizes.old_text else (0, 1, 0)

    def norm(x: Rows, name: str) -> Rows:
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        rows: Rows = unit * get[f"{name}/scale"] + get[f"{name}/bias"]
        return rows

    def gelu(x: Rows) -> Rows:
        rows: Rows = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return rows

    x = get["txt/Embed_0/embedding"][ids] + get["txt/pos_embedding"]
    for index in range(sizes.text_depth):
        block = f"txt/Encoder_0/encoderblock_{index}"
        dots = f"{block}/MultiHeadDotProductAttention_{attention}"
        y = norm(x, f"{block}/LayerNorm_0")
        query, key, value = (
            np.einsum("ntd,dhk->nthk", y, get[f"{dots}/{part}/kernel"]) + get[f"{dots}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        scores = np.exp(np.einsum("nqhk,nthk->nhqt", query, key) / np.sqrt(query.shape[-1]))
        mixed = np.einsum("nhqt,nthk->nqhk", scores / scores.sum(-1, keepdims=True), value)
        x = x + np.einsum("nqhk,hkd->nqd", mixed, get[f"{dots}/out/kernel"]) + get[f"{dots}/out/bias"]
        y = norm(x, f"{block}/LayerNorm_{second}")
        hidden = gelu(y @ get[f"{block}/MlpBlock_{mlp}/Dense_0/kernel"] + get[f"{block}/MlpBlock_{mlp}/Dense_0/bias"])
        x = x + hidden @ get[f"{block}/MlpBlock_{mlp}/Dense_1/kernel"] + get[f"{block}/MlpBlock_{mlp}/Dense_1/bias"]
    return norm(x, "txt/Encoder_0/encoder_norm")[:, -1]


@pytest.mark.parametrize("name", BERTS)
def test_bert_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    sizes = VARIANTS[name]
    tower = load(save(tmp_path, sizes))
    assert (tower.pooling, tower.max_tokens, tower.padded) == ("first", 16, False)
    expected = by_transformers(draw(sizes), sizes, padded_ids(tower, TEXTS, 0))
    torch.testing.assert_close(tower.embed(TEXTS, precision="float32"), expected, atol=1e-5, rtol=0)


def test_berts_text_begins_with_its_class_and_has_no_end(tmp_path: Path) -> None:
    tower = load(save(tmp_path, VARIANTS["LiT-B16B"]))
    vocabulary = bert_vocabulary(120).decode().split("\n")
    tokens = tower.tokenize(["A dog", " ".join(["a"] * 20)])
    assert [vocabulary[token] for token in tokens.ids[:3]] == ["[CLS]", "a", "dog"]
    assert tokens.lengths.tolist() == [3, 16]
    assert vocabulary[tokens.ids[-1]] == "a"
    assert tokens.num_truncated == 1


@pytest.mark.parametrize("name", SMALL)
def test_the_small_transformer_is_that_of_the_release(name: str, tmp_path: Path) -> None:
    sizes = VARIANTS[name]
    tower = load(save(tmp_path, sizes))
    assert (tower.pooling, tower.max_tokens, tower.padded) == ("last", 16, True)
    expected = by_numpy(draw(sizes), sizes, padded_ids(tower, TEXTS, 1))
    np.testing.assert_allclose(tower.embed(TEXTS, precision="float32").numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LiT-B16B", "LiT-L16S"])
def test_published_sizes(name: str, tmp_path: Path) -> None:
    sizes = replace(PUBLISHED[name], depth=1, words=PUBLISHED[name].words if name == "LiT-B16B" else 320)
    tower = load(save(tmp_path, sizes))
    compute = by_transformers if sizes.bert else by_numpy
    expected = np.asarray(compute(draw(sizes), sizes, padded_ids(tower, TEXTS, 1 - sizes.bert)))
    np.testing.assert_allclose(tower.embed(TEXTS, precision="float32").numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cut", [0, 3, 14, 15, 16, 40])
def test_the_end_fills_a_text_up_and_survives_a_cut(cut: int, tmp_path: Path) -> None:
    tower = load(save(tmp_path, VARIANTS["LiT-L16S"]))
    pieces = tower.tokenize([" ".join(["a"] * cut)]).ids.tolist()
    num_pieces = min(cut, 15)
    assert len(pieces) == 16
    assert 1 not in pieces[:num_pieces]
    assert pieces[num_pieces:] == [1] * (16 - num_pieces)


@pytest.mark.parametrize("name", ["old names, BERT", "old names, small"])
def test_a_tower_is_saved_and_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    tower = load(save(tmp_path, VARIANTS[name]))
    tower.save(tmp_path / "text_tower")
    again = TextTower.load(tmp_path / "text_tower")
    assert again.identity == tower.identity
    assert again.kept == tower.kept
    assert again.kept.keys() == ({"npz.json"} if VARIANTS[name].bert else {"npz.json", "vocabulary.model"})
    assert torch.equal(again.embed(TEXTS, precision="float32"), tower.embed(TEXTS, precision="float32"))


def test_the_usual_names_need_no_state(tmp_path: Path) -> None:
    assert load(save(tmp_path, VARIANTS["LiT-B16B"])).kept == {}


def test_max_tokens(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    bert = save(tmp_path / "bert", VARIANTS["LiT-B16B"])
    assert load(bert, max_tokens=8).tokenize(["a " * 20]).lengths.tolist() == [8]
    with pytest.raises(InputError, match="has positions for 20 tokens and takes no max_tokens 32"):
        load(bert, max_tokens=32)
    small = save(tmp_path, VARIANTS["LiT-L16S"])
    assert load(small, max_tokens=16).max_tokens == 16
    with pytest.raises(InputError, match=r"fills every text up to 16 tokens; leave --max-tokens 32 out"):
        load(small, max_tokens=32)


@pytest.mark.parametrize("name", ["LiT-B16B", "old names, small"])
def test_names_that_are_wrong_missing_or_left_over(name: str, tmp_path: Path) -> None:
    sizes = VARIANTS[name]
    optional = () if sizes.bert else ("txt/head/bias",)
    path = save(tmp_path, sizes)
    for array in draw(sizes):
        if array.startswith("txt/") and array not in optional:
            arrays = draw(sizes)
            arrays[f"{array}s"] = arrays.pop(array)
            np.savez(path, **arrays)  # type: ignore[arg-type]
            with pytest.raises(InputError, match=rf"model.npz lacks {array}"):
                load(path)
    path = save(tmp_path, sizes, draw(sizes) | {"txt/pooler/bias": np.zeros(4, np.float32)})
    with pytest.raises(InputError, match=r"model.npz holds txt/pooler/bias, which is no part of such"):
        load(path)


@pytest.mark.parametrize(("name", "suffix"), [("LiT-B16B", ".txt"), ("LiT-L16S", ".model")])
def test_a_vocabulary_of_another_checkpoint(name: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path = save(tmp_path, VARIANTS[name])
    sizes = replace(VARIANTS[name], words=VARIANTS[name].words - 10)
    other = save(tmp_path / "other", sizes).with_suffix(suffix)
    message = (
        rf"the vocabulary of .* has {sizes.words} tokens, its text tower {sizes.words + 10}: it belongs to another"
    )
    with pytest.raises(InputError, match=message):
        load_text_tower(f"lit:{path}@{other}")


def test_a_vocabulary_of_another_kind(tmp_path: Path) -> None:
    path = save(tmp_path, VARIANTS["LiT-L16S"])
    (tmp_path / "a.txt").write_bytes(bert_vocabulary(120))
    with pytest.raises(InputError, match=r"a.txt is no SentencePiece model"):
        load_text_tower(f"lit:{path}@{tmp_path / 'a.txt'}")


def test_shapes_that_do_not_go_together(tmp_path: Path) -> None:
    sizes = VARIANTS["LiT-L16S"]
    name = "txt/Encoder_0/encoderblock_1/LayerNorm_1/scale"
    path = save(tmp_path, sizes, draw(sizes) | {name: np.ones(23, np.float32)})
    with pytest.raises(InputError, match=rf"{name} has the shape \(23,\); with the others it must be \(24,\)"):
        load(path)
