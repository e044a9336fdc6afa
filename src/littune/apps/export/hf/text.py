"""Text towers as models of transformers, and their tokenizers as AutoTokenizer loads them.

The paper's text transformer is XLM-RoBERTa-XL's architecture: norms before the blocks, none over the embeddings, a
final norm. RoBERTa leaves padding out when it counts positions, and begins with the number after the padding's: those
rows of its table before are never reached. Where padding is read as text is, the padding is called -1, which no token
is, so that nothing is left out and the first position is 0.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, XLMRobertaXLConfig, XLMRobertaXLModel

from littune.apps.export.hf.saving import save_model
from littune.base.errors import InputError
from littune.base.files import write_bytes, write_json
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.tokenizer import plain_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer

# The layers of a block, by their names in littune and in XLM-RoBERTa-XL.
_BLOCK = {
    "attention_norm": "attention.self_attn_layer_norm",
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "mlp_norm": "LayerNorm",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
}


def text_model(tower: TextTower) -> PreTrainedModel:
    """A copy of the tower's encoder as a model of transformers: float32, on the CPU, without a pooler.

    Raises:
        InputError: transformers has no such model.
    """
    if isinstance(tower.encoder, HFEncoder):
        return copy.deepcopy(tower.encoder.core).cpu().float().eval()
    if isinstance(tower.encoder, Transformer):
        return _xlm_roberta_xl(tower.encoder, -1 if tower.padded else tower.pad_id)
    raise InputError(f"the text tower {tower.spec} is not written: transformers has no {tower.encoder.kind} model")


def write_text_tower(tower: TextTower, folder: Path) -> PreTrainedModel:
    """Write the encoder and its tokenizer as a folder of transformers'.

    Returns:
        The model that was written.

    Raises:
        InputError: transformers has no such model, or the tokenizer has no token to pad with.
    """
    model = text_model(tower)
    save_model(model, folder)
    write_tokenizer(tower, folder)
    return model


def write_tokenizer(tower: TextTower, folder: Path) -> None:
    """Write the tokenizer, which pads on the right and, asked to truncate, cuts as the tower does.

    Of a tower that reads padding (``padded``), it gives no mask, so that the model takes the padding for text; asked
    for ``padding="max_length"``, it pads as the tower does.

    Raises:
        InputError: it has no token to pad with.
    """
    write_bytes(folder / "tokenizer.json", plain_tokenizer(tower.tokenizer).to_str(pretty=True).encode())
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": tower.max_tokens,
            "pad_token": _pad_token(tower),
            "padding_side": "right",
            "truncation_side": "right",
            "model_input_names": ["input_ids"] if tower.padded else ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        },
    )


def _pad_token(tower: TextTower) -> str:
    """A token that may be called special: a word that is would no longer be cut as it was.

    Padding is masked, so that any special token will do where the tower pads with a word.
    """
    added = tower.tokenizer.get_added_tokens_decoder().items()
    special = {number: token.content for number, token in added if token.special}
    processor: dict[str, Any] = json.loads(tower.tokenizer.to_str())["post_processor"] or {}
    for token, about in processor.get("special_tokens", {}).items():
        special |= dict.fromkeys(about["ids"], token)
    if not special or (tower.padded and tower.pad_id not in special):
        raise InputError(f"the text tower {tower.spec} is not written: its tokenizer has no special token to pad with")
    return special.get(tower.pad_id) or special[min(special)]


def _xlm_roberta_xl(encoder: Transformer, padding: int) -> PreTrainedModel:
    shape = encoder.shape
    config = XLMRobertaXLConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.width,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=encoder.norm.eps,
        max_position_embeddings=padding + 1 + shape.num_positions,
        type_vocab_size=1,
        pad_token_id=padding,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = XLMRobertaXLModel(config, add_pooling_layer=False)
    model.load_state_dict({name: value.cpu().float() for name, value in _renamed(encoder, padding).items()})
    return model.eval()


def _renamed(encoder: Transformer, padding: int) -> dict[str, Tensor]:
    """The weights under XLM-RoBERTa-XL's names."""
    unreached = encoder.positions.new_zeros(padding + 1, encoder.dim)
    renamed = {
        "embeddings.word_embeddings.weight": encoder.words.weight,
        "embeddings.token_type_embeddings.weight": encoder.positions.new_zeros(1, encoder.dim),
        "embeddings.position_embeddings.weight": torch.cat([unreached, encoder.positions]),
        "encoder.LayerNorm.weight": encoder.norm.weight,
        "encoder.LayerNorm.bias": encoder.norm.bias,
    }
    for number, block in enumerate(encoder.blocks):
        for name, other in _BLOCK.items():
            layer = block.get_submodule(name)
            for part in ("weight", "bias"):
                renamed[f"encoder.layer.{number}.{other}.{part}"] = layer.get_parameter(part)
    return {name: value.detach() for name, value in renamed.items()}
