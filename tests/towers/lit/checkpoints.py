"""Synthetic checkpoints under the published names, which are spelt out here once more, and vocabularies for them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]

TEXTS = [
    "a dog runs over the grass",
    "Two children play with a red ball in the park",
    "a man in a blue shirt rides a bicycle down a very long and winding road in the pouring rain of november",
    "a cat",
    "",
    "naïve café, 3 o'clock!",
]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the files differ in."""

    width: int
    depth: int
    heads: int
    grid: int = 14
    class_position: bool = True
    old_image: bool = False
    bert: bool = True
    text_width: int
    text_depth: int
    text_heads: int
    words: int
    text_positions: int = 512
    old_text: bool = False
    text_head_bias: bool = True
    image_head: int | None = None
    out_dim: int


_B16 = {"width": 768, "depth": 12, "heads": 12}
_L16 = {"width": 1024, "depth": 24, "heads": 16}
_BERT_BASE = {"text_width": 768, "text_depth": 12, "text_heads": 12, "words": 30522}
_BERT_LARGE = {"text_width": 1024, "text_depth": 24, "text_heads": 16, "words": 30522}
_SMALL = {"bert": False, "text_depth": 12, "words": 16000, "text_positions": 16}

PUBLISHED = {
    "LiT-B16B": Sizes(**_B16, **_BERT_BASE, image_head=768, out_dim=768),
    "LiT-B16B_2": Sizes(**_B16, **_BERT_BASE, out_dim=768),
    "LiT-L16L": Sizes(**_L16, **_BERT_LARGE, out_dim=1024),
    "LiT-L16S": Sizes(**_L16, **_SMALL, text_width=384, text_heads=6, out_dim=1024),
    "LiT-L16Ti": Sizes(**_L16, **_SMALL, text_width=192, text_heads=3, out_dim=1024),
}

_NARROW = Sizes(
    width=32,
    depth=2,
    heads=4,
    grid=2,
    text_width=64,
    text_depth=2,
    text_heads=1,
    words=120,
    text_positions=20,
    out_dim=32,
)
_NARROW_SMALL = replace(_NARROW, bert=False, text_width=24, text_heads=3, words=320, text_positions=16)
NARROW = {
    "LiT-B16B": replace(_NARROW, image_head=40, out_dim=40),
    "LiT-B16B_2": _NARROW,
    "LiT-L16L": replace(_NARROW, text_width=128, text_heads=2),
    "LiT-L16S": _NARROW_SMALL,
    "LiT-L16Ti": replace(_NARROW_SMALL, text_width=48, text_heads=2, text_head_bias=False),
}
"""The same kinds of files, with less in them."""

VARIANTS = {
    **NARROW,
    "old names, BERT": replace(_NARROW, old_image=True, image_head=32),
    "no position for the class token": replace(_NARROW, class_position=False),
    "old names, small": replace(_NARROW_SMALL, old_image=True, old_text=True),
    "old image tower, new text tower": replace(_NARROW_SMALL, old_image=True, class_position=False),
}


def shapes(sizes: Sizes) -> Shapes:
    """The names of a file's arrays, and their shapes."""
    positions = sizes.grid**2 + sizes.class_position
    found: Shapes = {
        "t": (1,),
        "img/embedding/kernel": (16, 16, 3, sizes.width),
        "img/embedding/bias": (sizes.width,),
        "img/cls": (1, 1, sizes.width),
        "img/Transformer/posembed_input/pos_embedding": (1, positions, sizes.width),
        **_norm("img/Transformer/encoder_norm", sizes.width),
        **_blocks("img/Transformer", sizes.width, sizes.depth, sizes.heads, old=sizes.old_image),
    }
    if sizes.image_head is not None:
        found |= _dense("img/head", (sizes.width,), (sizes.image_head,))
    found |= _bert(sizes) if sizes.bert else _small(sizes)
    found["txt/head/kernel"] = (sizes.text_width, sizes.out_dim)
    if sizes.text_head_bias:
        found["txt/head/bias"] = (sizes.out_dim,)
    return found


def draw(sizes: Sizes, seed: int = 0) -> dict[str, Array]:
    """A file's arrays, their values drawn, far enough from 0 that every part tells in the outputs."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(sizes).items():
        scale = 0.3 if len(shape) == 1 else 1.5 * float(np.prod(shape[:-1])) ** -0.5 if "kernel" in name else 0.5
        arrays[name] = (scale * rng.standard_normal(shape) + name.endswith("scale")).astype(np.float32)
    return arrays | {"t": np.array([2.5 + rng.random()], np.float32)}


def save(folder: Path, sizes: Sizes, arrays: dict[str, Array] | None = None) -> Path:
    """Write a checkpoint and the vocabulary beside it."""
    path = folder / "model.npz"
    np.savez(path, **(draw(sizes) if arrays is None else arrays))  # type: ignore[arg-type]
    vocabulary = bert_vocabulary(sizes.words) if sizes.bert else sentencepiece_model(TEXTS, sizes.words)
    path.with_suffix(".txt" if sizes.bert else ".model").write_bytes(vocabulary)
    return path


def bert_vocabulary(num_tokens: int) -> bytes:
    """A BERT vocabulary: special tokens, letters, and words and pieces of words."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    words = ["the", "dog", "run", "##s", "##ing", "child", "##ren", "a", "in", "red"]
    rest = [*letters, *words, *(f"##{letter}" for letter in letters)]
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = list(dict.fromkeys([*special, *words, *rest]))[:num_tokens]
    tokens += [f"[unused{index + 1}]" for index in range(num_tokens - len(tokens))]
    return "".join(f"{token}\n" for token in tokens).encode()


def sentencepiece_model(
    texts: Sequence[str], num_pieces: int, *, kind: str = "bpe", byte_fallback: bool = True, **more: object
) -> bytes:
    """A model that the sentencepiece package trains, with special pieces as the published one has them."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        vocab_size=num_pieces,
        model_type=kind,
        byte_fallback=byte_fallback,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        minloglevel=2,
        hard_vocab_limit=kind == "bpe",
        **more,
    )
    return out.getvalue()


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _dense(name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Shapes:
    return {f"{name}/kernel": (*inputs, *outputs), f"{name}/bias": outputs}


def _blocks(prefix: str, width: int, depth: int, heads: int, *, old: bool) -> Shapes:
    attention, norm, mlp = (1, 2, 3) if old else (0, 1, 0)
    each = (heads, width // heads)
    found: Shapes = {}
    for index in range(depth):
        block = f"{prefix}/encoderblock_{index}"
        dots = f"{block}/MultiHeadDotProductAttention_{attention}"
        found |= _norm(f"{block}/LayerNorm_0", width) | _norm(f"{block}/LayerNorm_{norm}", width)
        for part in ("query", "key", "value"):
            found |= _dense(f"{dots}/{part}", (width,), each)
        found |= _dense(f"{dots}/out", each, (width,))
        found |= _dense(f"{block}/MlpBlock_{mlp}/Dense_0", (width,), (4 * width,))
        found |= _dense(f"{block}/MlpBlock_{mlp}/Dense_1", (4 * width,), (width,))
    return found


def _bert(sizes: Sizes) -> Shapes:
    width, bert = sizes.text_width, "txt/BertEncoder_0"
    rows = {"token_ids": sizes.words, "position_ids": sizes.text_positions, "segment_ids": 2}
    found: Shapes = {f"{bert}/embedder/embedders_{name}/embedding": (rows[name], width) for name in rows}
    found |= _norm(f"{bert}/layer_norm", width)
    for index in range(sizes.text_depth):
        layer = f"{bert}/encoder_block/layer_sequence/layers_{index}"
        for part in ("query", "key", "value"):
            found |= _dense(f"{layer}/attention_block/attention_layer/{part}", (width,), (width,))
        found |= _dense(f"{layer}/attention_block/dense_layer", (width,), (width,))
        found |= _norm(f"{layer}/attention_block/layer_norm", width)
        found |= _dense(f"{layer}/mlp_block/mlp/dense_layer", (width,), (4 * width,))
        found |= _dense(f"{layer}/mlp_block/dense_layer", (4 * width,), (width,))
        found |= _norm(f"{layer}/mlp_block/layer_norm", width)
    return found


def _small(sizes: Sizes) -> Shapes:
    width = sizes.text_width
    return {
        "txt/Embed_0/embedding": (sizes.words, width),
        "txt/pos_embedding": (1, sizes.text_positions, width),
        **_norm("txt/Encoder_0/encoder_norm", width),
        **_blocks("txt/Encoder_0", width, sizes.text_depth, sizes.text_heads, old=sizes.old_text),
    }
