"""Tiny models of transformers in folders, as a user would have them: random weights, a tokenizer of their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from littune.towers.text.tokenizer import train_tokenizer

# Makes a model of a kind in a folder, as sentence-transformers writes it where its pooling is named.
SaveTextModel = Callable[..., Path]

TEXTS = [
    "a dog runs over the grass",
    "two children play with a red ball in the park",
    "A man rides a bicycle down a very long and winding road in the rain",
    "a cat",
    "Zwei Hunde spielen im Schnee",
    "a dog runs over the grass",
]

_VOCAB, _WIDTH, _POSITIONS = 400, 32, 40
_SIZES = {"vocab_size": _VOCAB, "hidden_size": _WIDTH, "num_attention_heads": 4, "num_hidden_layers": 2}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def _bert() -> PreTrainedModel:
    return BertForMaskedLM(BertConfig(**_SIZES, **_TOKENS, intermediate_size=64, max_position_embeddings=_POSITIONS))


def _roberta() -> PreTrainedModel:
    # One row is the padding's, so that the table is for a token fewer than it has rows.
    return RobertaModel(RobertaConfig(**_SIZES, **_TOKENS, intermediate_size=64, max_position_embeddings=_POSITIONS))


def _modernbert() -> PreTrainedModel:
    more = {"cls_token_id": 1, "sep_token_id": 1, "local_attention": 4, "max_position_embeddings": _POSITIONS}
    return ModernBertForMaskedLM(ModernBertConfig(**_SIZES | {"num_hidden_layers": 4}, **_TOKENS, **more))


def _t5() -> PreTrainedModel:
    sizes = {"vocab_size": _VOCAB, "d_model": _WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**sizes, pad_token_id=0, eos_token_id=1))


def _gpt2() -> PreTrainedModel:
    sizes = {"vocab_size": _VOCAB, "n_embd": _WIDTH, "n_layer": 2, "n_head": 4, "n_positions": _POSITIONS}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1))


_MODELS = {"bert": _bert, "roberta": _roberta, "modernbert": _modernbert, "t5": _t5, "gpt2": _gpt2}


@pytest.fixture
def texts() -> list[str]:
    """A few texts, one of them twice, one of them in capitals, one much longer than the others."""
    return list(TEXTS)


@pytest.fixture
def save_text_model() -> Iterator[SaveTextModel]:
    """Call with a kind, a folder, and optionally sentence-transformers' name of a pooling."""
    transformers_logging.disable_progress_bar()
    yield _save
    transformers_logging.enable_progress_bar()


def _save(kind: str, folder: Path, *, pooling: str | None = None) -> Path:
    torch.manual_seed(0)
    model = _MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():  # far from 0, so that every part of the model tells in its outputs
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer = train_tokenizer(TEXTS, vocab_size=_VOCAB)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder
