"""Tiny models of every make: drawn towers, drawn heads, a centre that is not 0. Nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from torch import nn

from littune.config import Heads
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.from_hf import HFTrunk
from littune.towers.image.from_timm import TimmTrunk, build_timm
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import ImageTower
from littune.towers.text.encoder import Encoder
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.tokenizer import train_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Shape, Transformer

TEXTS = [
    "a dog runs over the grass",
    "A man rides a bicycle down a very long and winding road in the rain",
    "a cat",
    "Zwei Hunde spielen im Schnee",
]
MAX_TOKENS = 12
# Its last outputs lie as a picture does, with the channels last.
_SWIN = "swin_tiny_patch4_window7_224"
_SWIN_SIZES = {"img_size": 56, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
_WIDTH = 32


def bert(num_words: int) -> Encoder:
    config = transformers.BertConfig(
        vocab_size=num_words,
        hidden_size=_WIDTH,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    model = transformers.BertModel._from_config(config, add_pooling_layer=False, attn_implementation="eager")
    return HFEncoder(model.eval(), config)


def scratch(num_words: int) -> Encoder:
    return Transformer(
        Shape(width=_WIDTH, depth=2, num_heads=4, vocab_size=num_words, num_positions=MAX_TOKENS),
    )


ENCODERS = {"bert": bert, "scratch": scratch}


def text_tower(kind: str = "bert", pooling: str = "mean", *, padded: bool = False) -> TextTower:
    """A text tower whose weights all tell in its outputs."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    encoder = spread(ENCODERS[kind](tokenizer.get_vocab_size()))
    # The end token pads where padding is read, as in the published checkpoints.
    return TextTower(
        encoder, tokenizer, spec=kind, pooling=pooling, max_tokens=MAX_TOKENS, pad_id=int(padded), padded=padded
    )


def vit_trunk(*, has_pooler: bool = False) -> HFTrunk:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    model = spread(transformers.ViTModel(config).eval())
    if not has_pooler:
        model.pooler = None
    return HFTrunk(model, "vit", has_pooler=has_pooler)


def clip_trunk() -> HFTrunk:
    config = transformers.CLIPVisionConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    return HFTrunk(spread(transformers.CLIPVisionModel(config).eval()), "clip_vision_model", has_pooler=True)


def image_tower(kind: str = "test_vit", pooling: str = "own") -> ImageTower:
    """A locked tower: "vit" and "clip" of transformers, "swin" of timm, or what timm calls ``kind``; classifiers on."""
    torch.manual_seed(1)
    if kind == "vit":
        trunk, preprocess = vit_trunk(), preprocess_to(32, 32, "stretch")
    elif kind == "clip":
        trunk, preprocess = clip_trunk(), preprocess_to(32, 40)
    elif kind == "swin":
        model = timm.create_model(_SWIN, num_classes=10, **_SWIN_SIZES)
        trunk, preprocess = TimmTrunk(model, _SWIN, _SWIN_SIZES), preprocess_to(56, 64)
        spread(trunk.model, 0.05)
    else:
        trunk = build_timm({"kind": "timm", "name": kind, "num_classes": 10})
        spread(trunk.model, 0.05)
        preprocess = preprocess_to(160, 182)  # 160 / (160 / 182) is less than 182
    tower = ImageTower(spec=f"timm:{kind}", trunk=trunk, preprocess=preprocess, pooling=pooling)
    return tower.to("cpu", "float32")


def preprocess_to(size: int, resize: int, fit: str = "short") -> Preprocess:
    return Preprocess(size=size, resize=resize, fit=fit, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def lit(text: TextTower, tower: ImageTower, heads: Heads = "text", *, bias: float | None = None) -> LiT:
    """A model of the two, in float32."""
    torch.manual_seed(2)
    reference = ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity)
    model = LiT(
        text=text,
        reference=reference,
        center=torch.randn(tower.dim),
        bias=bias,
        heads=heads,
        out_dim=40 if heads == "both" else None,
    ).eval()
    for head in (model.text_head, model.image_head):
        if head is not None:
            nn.init.normal_(head.bias)
    model.precision = "float32"
    model.image_tower = tower
    return model


def pictures(sizes: Sequence[tuple[int, int]] = ((260, 200), (200, 263), (240, 240))) -> list[Image.Image]:
    """Smooth pictures, so that pixels are not noise, of some widths and heights."""
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 255, (6, 7, 3), dtype=np.uint8) for _ in sizes]
    return [Image.fromarray(pixels).resize(size) for pixels, size in zip(small, sizes, strict=True)]


def spread(module: nn.Module, deviation: float = 0.15) -> nn.Module:
    """Move all weights, biases and norms too, away from where they begin."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) * deviation)
    return module


# Runs an export's code where littune cannot be imported, and keeps what it calls embeddings.
WITHOUT_LITTUNE = """\
import sys
sys.modules["littune"] = None
exec(open("load.py").read())
import torch
torch.save([torch.as_tensor(image_embeddings), torch.as_tensor(text_embeddings)], "found.pt")
"""


def minimal_cosine(rows: object, expected: object) -> float:
    """The least cosine of unit rows with those that they should be."""
    return float((np.asarray(rows) * np.asarray(expected)).sum(axis=1).min())


def read(folder: Path) -> list[torch.Tensor]:
    found: list[torch.Tensor] = torch.load(folder / "found.pt")
    return found
