"""A model under the names of the paper's published checkpoints: ``model.npz``, and its vocabulary beside it.

What was read from such a file is written as it was, array for array. The format says nothing of preprocessing, of
how texts are cut or of activations: a model with others than the published ones does not fit it, and is refused.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import GELUTanh
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig

from littune.apps.export.base import Exported, ExportOptions
from littune.base.errors import InputError, LittuneError
from littune.base.files import write_bytes
from littune.model.lit import LiT
from littune.towers.image.from_lit import preprocess_of_lit
from littune.towers.image.tower import ImageTower
from littune.towers.lit.arrays import Array, Entry, extract
from littune.towers.lit.heads import head_entries
from littune.towers.lit.npz import TEMPERATURE
from littune.towers.lit.style import SENTENCEPIECE, Style
from littune.towers.lit.texts import (
    BERT_HEAD_WIDTH,
    BERT_NORM_EPS,
    MAX_TOKENS,
    TEXT,
    bert_entries,
    transformer_entries,
)
from littune.towers.lit.vit import IMAGE, ImageShape, image_entries
from littune.towers.lit.vocabulary import wordpiece_tokenizer, wordpiece_vocabulary
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.sentencepiece import sentencepiece_tokenizer
from littune.towers.text.tokenizer import plain_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer

_TANH_GELUS = ("gelu_pytorch_tanh", "gelu_new")

_CODE = """\
import littune as lt

model = lt.LiT.load("lit:model.npz")
print(model.encode_text(["a photo of a cat."]).shape)
"""


def to_npz(model: LiT, out: Path, options: ExportOptions) -> Exported:
    """Write ``model.npz``, and ``model.txt`` (BERT's word pieces) or ``model.model`` (SentencePiece).

    A centre becomes the bias of an image head, which is the same to rounding; one is made where there is none.

    Raises:
        LittuneError: the format cannot hold the model; the message says what does not fit.
    """
    model.lock_image()
    style = Style.of_kept(model.text.kept)
    arrays = {
        TEMPERATURE: model.log_temperature.detach().cpu().reshape(1).numpy(),
        **_image_arrays(model.image_tower, style),
        **_text_arrays(model.text, style),
        **_head_arrays(model, style),
    }
    if model.bias is not None:
        raise _misfit("it has the bias of a sigmoid loss")
    np.savez(out / "model.npz", **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for its options
    kept = model.text.kept.get(SENTENCEPIECE)
    name = "model.txt" if kept is None else "model.model"
    write_bytes(out / name, wordpiece_vocabulary(model.text.tokenizer) if kept is None else kept)
    notes = ("The centre of the images is now the bias of an image head.",) if model.center.any() else ()
    return Exported(how_to_load=_CODE, notes=notes)


def _image_arrays(tower: ImageTower, style: Style) -> dict[str, Array]:
    vit: Any = tower.module
    if not isinstance(vit, VisionTransformer):
        raise _misfit(f"its image tower {tower.spec} is no ViT of timm's")
    patch, _ = vit.patch_embed.patch_size
    grid, _ = vit.patch_embed.grid_size
    shape = ImageShape(
        width=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=vit.blocks[0].attn.num_heads,
        patch=patch,
        grid=grid,
        class_position=not vit.no_embed_class,
        generation=style.image_blocks,
    )
    state = {name: value for name, value in vit.state_dict().items() if not name.startswith("head.")}
    entries = image_entries(shape)
    _require(
        f"its image tower {tower.spec}",
        {
            "computes GELU in another way than by tanh": all(isinstance(each.mlp.act, GELUTanh) for each in vit.blocks),
            f"pools with {tower.pooling}, not by its class token": (tower.pooling, vit.global_pool) == ("own", "token")
            or tower.pooling == "cls",
            "has other norms": isinstance(vit.norm, nn.LayerNorm) and vit.norm.eps == 1e-6,
            "prepares pictures in another way": tower.preprocess == preprocess_of_lit(shape),
            "has other layers": _same_shapes(state, entries),
        },
    )
    return extract(state, entries)


def _text_arrays(text: TextTower, style: Style) -> dict[str, Array]:
    if isinstance(text.encoder, Transformer):
        return _transformer_arrays(text, text.encoder, style)
    if type(text.encoder) is HFEncoder and isinstance(text.encoder.config, BertConfig):
        return _bert_arrays(text, text.encoder, text.encoder.config)
    raise _misfit(f"its text tower {text.spec} is neither a BERT nor one of the published text transformers")


def _transformer_arrays(text: TextTower, encoder: Transformer, style: Style) -> dict[str, Array]:
    vocabulary = text.kept.get(SENTENCEPIECE)
    _require(
        f"its text tower {text.spec}",
        {
            "was not trained on texts that are filled up, and a vocabulary of SentencePiece's": text.padded
            and vocabulary is not None
            and _same_tokenizer(text.tokenizer, sentencepiece_tokenizer(vocabulary, SENTENCEPIECE)),
            f"pools with {text.pooling}, not the last token": text.pooling == "last",
        },
    )
    return extract(encoder.weights(), transformer_entries(encoder.shape, style.text_blocks))


def _bert_arrays(text: TextTower, encoder: HFEncoder, config: BertConfig) -> dict[str, Array]:
    entries = bert_entries(config)
    weights = encoder.weights()
    _require(
        f"its text tower {text.spec}",
        {
            f"computes {config.hidden_act}, not GELU by tanh": config.hidden_act in _TANH_GELUS,
            f"has norms of eps {config.layer_norm_eps}, not {BERT_NORM_EPS}": config.layer_norm_eps == BERT_NORM_EPS,
            f"has other attention heads than of {BERT_HEAD_WIDTH} channels": config.num_attention_heads
            * BERT_HEAD_WIDTH
            == config.hidden_size,
            "has other layers": not config.is_decoder and _same_shapes(weights, entries),
            f"pools with {text.pooling}, not by its class token": text.pooling == "first",
            f"reads {text.max_tokens} tokens, not {MAX_TOKENS}": text.max_tokens == MAX_TOKENS and not text.padded,
            "cuts texts in another way than lower-cased word pieces after [CLS], without [SEP]": _is_wordpiece(text),
        },
    )
    return extract(weights, entries)


def _head_arrays(model: LiT, style: Style) -> dict[str, Array]:
    text = _head(model.text_head, torch.zeros(model.text.dim))
    bias = style.text_head_bias or bool(text["bias"].any())
    arrays = extract(text, head_entries(TEXT, model.text.dim, len(text["bias"]), bias=bias))
    if model.image_head is not None or model.center.any():
        image = _head(model.image_head, model.center.cpu())
        arrays |= extract(image, head_entries(IMAGE, len(model.center), len(image["bias"])))
    return arrays


def _head(head: nn.Linear | None, center: Tensor) -> dict[str, Tensor]:
    """A head's weights, or those that change nothing, with the subtraction of the centre in the bias."""
    center = center.double()
    weight = torch.eye(len(center)) if head is None else head.weight.detach().cpu()
    bias = torch.zeros(len(center)) if head is None else head.bias.detach().cpu()
    return {"weight": weight, "bias": (bias.double() - weight.double() @ center).float()}


def _is_wordpiece(text: TextTower) -> bool:
    try:
        return _same_tokenizer(text.tokenizer, wordpiece_tokenizer(wordpiece_vocabulary(text.tokenizer), text.spec))
    except InputError:
        return False


def _same_tokenizer(ours: Tokenizer, published: Tokenizer) -> bool:
    return bool(plain_tokenizer(ours).to_str() == published.to_str())


def _same_shapes(state: dict[str, Tensor], entries: list[Entry]) -> bool:
    """Whether the table has a place for all of the weights, and no other."""
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.tensor] = sizes.get(entry.tensor, 0) + math.prod(entry.shape)
    return sizes == {name: value.numel() for name, value in state.items()}


def _require(what: str, fits: dict[str, bool]) -> None:
    """Refuse a part of which something does not hold."""
    for problem, fit in fits.items():
        if not fit:
            raise _misfit(f"{what} {problem}")


def _misfit(problem: str) -> LittuneError:
    return LittuneError(f"the run does not fit the published .npz format: {problem}; choose another --to")
