"""Text towers for open_clip: its own, those on BERT and RoBERTa, and transformers that read their padding.

open_clip's text transformer cannot ignore padding (version 3.3 has the switch, and no setting for it), so that the
house's own transformer, which never sees any, cannot be one. Its text towers on transformers do ignore it, and their
projection has no bias: a head's bias goes into that of the last norm, where the projection has room for it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from littune.apps.export.hf.text import write_tokenizer
from littune.apps.export.open_clip.part import Affine, Part, shift_before
from littune.base.errors import InputError
from littune.base.files import read_json
from littune.model.lit import LiT
from littune.towers.text.encoder import Encoder
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.from_open_clip import OpenClipEncoder
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer

TEXT_FOLDER = "."
_HF_KINDS = ("bert", "roberta", "xlm-roberta")
_HF_POOLERS = {"mean": "mean_pooler", "first": "cls_last_hidden_state_pooler"}


def text_part(model: LiT, out: Path) -> Part:
    """The model's text tower with its head; what else open_clip reads of it is written into ``out``.

    Raises:
        InputError: open_clip has no such tower.
        LittuneError: ``out`` cannot be written.
    """
    head = None if model.text_head is None else Affine.of_head(model.text_head)
    write = next((part for kind, part in _PARTS.items() if isinstance(model.text.encoder, kind)), None)
    if write is None:
        raise InputError(f"open_clip has no text tower like {model.text.spec}")
    return write(model.text, head, out)


def _open_clip_part(tower: TextTower, head: Affine | None, out: Path) -> Part:
    encoder = tower.encoder
    assert isinstance(encoder, OpenClipEncoder)
    if tower.pooling != encoder.pooling:
        raise InputError(f"open_clip pools {tower.spec} by {encoder.pooling} alone, and this run by {tower.pooling}")
    settings = {**encoder.config["text_cfg"], "context_length": tower.max_tokens, "output_tokens": False}
    weights = {name: value.cpu() for name, value in encoder.weights().items()}
    weights["positional_embedding"] = weights["positional_embedding"][: tower.max_tokens]
    if head is not None:
        settings |= {"proj_type": "linear", "proj_bias": True}
        weights |= _projection(head, weights)
    if settings.get("hf_tokenizer_name"):
        _write_tokenizer(tower, out)
        settings["hf_tokenizer_name"] = TEXT_FOLDER
    return Part(settings=settings, weights=weights, quick_gelu=bool(encoder.config["quick_gelu"]))


def _projection(head: Affine, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head on the projection, out of ``weights``: with a bias it is a layer, without it a turned matrix."""
    turned, weight = weights.pop("text_projection", None), weights.pop("text_projection.weight", None)
    bias = weights.pop("text_projection.bias", None)
    if turned is not None:
        weight = turned.T
    after = head if weight is None else head.after(weight, bias)
    return {"text_projection.weight": after.weight, "text_projection.bias": after.bias}


def _transformer_part(tower: TextTower, head: Affine | None, out: Path) -> Part:
    encoder = tower.encoder
    assert isinstance(encoder, Transformer)
    if not tower.padded:
        raise InputError(
            f"open_clip's text transformer reads padding as text, which {tower.spec} never sees; export it to "
            "transformers, sentence-transformers or onnx"
        )
    if tower.pooling == "mean":
        raise InputError("open_clip's text transformer pools one token, and this run the mean of all")
    shape = encoder.shape
    settings = {
        "context_length": tower.max_tokens,
        "vocab_size": shape.vocab_size,
        "width": shape.width,
        "heads": shape.num_heads,
        "layers": shape.depth,
        "no_causal_mask": True,
        "pool_type": tower.pooling,
        "pad_id": tower.pad_id,
        "proj_type": "none" if head is None else "linear",
        "proj_bias": head is not None,
        "act_kwargs": {"approximate": "tanh"},
        "norm_kwargs": {"eps": encoder.norm.eps},
        "hf_tokenizer_name": TEXT_FOLDER,
    }
    _write_tokenizer(tower, out)
    weights = _renamed(encoder) | ({} if head is None else _projection(head, {}))
    return Part(settings=settings, weights=weights, quick_gelu=False, notes=(_CLEANED,))


def _renamed(encoder: Transformer) -> dict[str, Tensor]:
    """The weights under open_clip's names."""
    layers: dict[str, nn.Module] = {"ln_final": encoder.norm}
    renamed: dict[str, Tensor] = {
        "token_embedding.weight": encoder.words.weight,
        "positional_embedding": encoder.positions,
    }
    for number, block in enumerate(encoder.blocks):
        name = f"transformer.resblocks.{number}"
        attention: Any = block.get_submodule("attention")
        joined = (attention.query, attention.key, attention.value)
        renamed[f"{name}.attn.in_proj_weight"] = torch.cat([layer.weight for layer in joined])
        renamed[f"{name}.attn.in_proj_bias"] = torch.cat([layer.bias for layer in joined])
        layers |= {f"{name}.{other}": block.get_submodule(own) for own, other in _BLOCK.items()}
    for name, layer in layers.items():
        renamed |= {f"{name}.{part}": layer.get_parameter(part) for part in ("weight", "bias")}
    return {name: value.detach().cpu() for name, value in renamed.items()}


# The layers of a block, by their names in littune and in open_clip.
_BLOCK = {
    "attention_norm": "ln_1",
    "attention.out": "attn.out_proj",
    "mlp_norm": "ln_2",
    "mlp_in": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
}


def _hf_part(tower: TextTower, head: Affine | None, out: Path) -> Part:
    encoder = tower.encoder
    assert isinstance(encoder, HFEncoder)
    kind = encoder.config.model_type
    if kind not in _HF_KINDS:
        raise InputError(f"open_clip reads {', '.join(_HF_KINDS)} as text towers, and {tower.spec} is a {kind}")
    if tower.pooling not in _HF_POOLERS:
        raise InputError(f"open_clip pools {tower.spec} by mean or first, and this run by {tower.pooling}")
    if tower.pad_id != encoder.config.pad_token_id:
        raise InputError(f"{tower.spec} pads with {tower.pad_id}, its model says {encoder.config.pad_token_id}")
    weights = {f"transformer.{name}": value.cpu() for name, value in encoder.weights().items()}
    if head is not None:
        last = f"transformer.encoder.layer.{encoder.config.num_hidden_layers - 1}.output.LayerNorm.bias"
        weights |= {"proj.weight": head.weight, last: weights[last] + _shift(head, tower)}
    encoder.write_config(out)
    _write_tokenizer(tower, out)
    settings = {
        "context_length": tower.max_tokens,
        "hf_model_name": TEXT_FOLDER,
        "hf_model_pretrained": False,
        "hf_tokenizer_name": TEXT_FOLDER,
        "hf_pooler_type": _HF_POOLERS[tower.pooling],
        "hf_proj_type": None if head is None else "linear",
    }
    return Part(settings=settings, weights=weights, notes=(_CLEANED, _WORKING_FOLDER))


def _shift(head: Affine, tower: TextTower) -> Tensor:
    """What the bias of the last norm must grow by, so that the projection makes the head's bias of it."""
    found = shift_before(head.weight, head.bias)
    if found is None:
        raise InputError(
            f"open_clip's projection of text towers of transformers has no bias, and the {tower.dim} dimensions of "
            f"{tower.spec} have no room for the head's, of {len(head.bias)}; train with --heads image"
        )
    return found


def _write_tokenizer(tower: TextTower, out: Path) -> None:
    write_tokenizer(tower, out)
    pad_token = str(read_json(out / "tokenizer_config.json")["pad_token"])
    if tower.tokenizer.token_to_id(pad_token) != tower.pad_id:
        raise InputError(
            f"the tokenizer of {tower.spec} has no special token {tower.pad_id}, with which its model pads"
        )


_CLEANED = "open_clip mends quotes, HTML entities and white space in texts before it cuts them; littune does not"
_WORKING_FOLDER = (
    "the text tower's config.json is looked for in the working folder: load it there, or write its path as "
    "hf_model_name into open_clip_config.json"
)

_PARTS: Mapping[type[Encoder], Callable[[TextTower, Affine | None, Path], Part]] = {
    HFEncoder: _hf_part,
    OpenClipEncoder: _open_clip_part,
    Transformer: _transformer_part,
}
