"""Text encoders of transformers: BERT, MiniLM, RoBERTa, ModernBERT, T5's encoder, and whatever else reads text.

Attention is transformers' own eager one: on a CPU, torch's fused attention is slower for short texts, backward
above all. Poolers are left out: littune pools the last layer's outputs itself. Nothing that comes with a
checkpoint is run, and a checkpoint that lacks weights is an error, not a model with random ones.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)
from transformers.utils import cached_file

from littune.base.errors import InputError, first_line
from littune.base.files import read_json, write_json
from littune.towers.hub import explained
from littune.towers.specs import Spec, without_checkpoint
from littune.towers.text.encoder import Encoder
from littune.towers.text.options import Options
from littune.towers.text.tower import TextTower

# sentence-transformers' names of the poolings that littune has.
_POOLINGS = {"cls": "first", "mean": "mean", "lasttoken": "last"}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


class HFEncoder(Encoder):
    """Token ids → the last layer's outputs.

    Attributes:
        core: transformers' model, without a pooler.
        config: its configuration.
        dim: its width.
    """

    kind = "hf"

    def __init__(self, core: PreTrainedModel, config: PretrainedConfig) -> None:
        super().__init__()
        self.core = core
        self.config = config
        self.dim: int = config.hidden_size

    def word_embedding(self) -> nn.Embedding:
        """The table that token ids are looked up in."""
        words = self.core.get_input_embeddings()
        assert isinstance(words, nn.Embedding)
        return words

    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        """The tokens' outputs; those of padding mean nothing."""
        outputs: Tensor = self.core(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return outputs

    def weights(self) -> dict[str, Tensor]:
        """The weights under transformers' names."""
        return dict(self.core.state_dict())

    def write_config(self, folder: Path) -> None:
        """Write what ``load`` needs beside the weights."""
        config = self.config.to_dict()
        config.pop("_name_or_path", None)  # where it was loaded from, which is no part of it
        write_json(folder / "config.json", config)

    @classmethod
    def load(cls, name: str | Path, *, exact: bool = False) -> "HFEncoder":
        """Load a folder or a hub model.

        Args:
            name: the folder, or the model's name.
            exact: weights that the model has no use for (heads, poolers, decoders) are an error.

        Raises:
            InputError: there is no such model, it does not read text, or its weights are not whole.
        """
        with explained(str(name)):
            config = AutoConfig.from_pretrained(name)
            model_class = _model_class(config, str(name))
            model, found = model_class.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
                **_without_pooler(model_class),
            )
        lacking, left_over = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
        if lacking:
            raise InputError(f"{name} lacks {len(lacking)} of the model's weights, such as {lacking[0]}")
        if exact and left_over:
            raise InputError(f"{name} holds {len(left_over)} unknown weights, such as {left_over[0]}; was it edited?")
        return cls(model, config)

    def check_length(self, max_tokens: int, name: str) -> None:
        """Check that the model reads so many tokens.

        Raises:
            InputError: it does not.
        """
        limit = self.config.to_dict().get("max_position_embeddings")
        fix = f"takes no max_tokens {max_tokens}; take fewer"
        if isinstance(limit, int) and 0 < limit < max_tokens:
            raise InputError(f"{name} has positions for {limit} tokens and {fix}")
        # Some tables have rows that no token reaches, so let it read a text that long.
        ids = torch.full((1, max_tokens), 0 if self.config.pad_token_id else 1)
        try:
            with torch.no_grad():
                self(ids, torch.ones_like(ids, dtype=torch.bool))
        except (IndexError, RuntimeError) as error:
            raise InputError(f"{name} {fix} ({first_line(error)})") from error


def load_hf_text(spec: Spec, options: Options) -> TextTower:
    """Load ``hf:NAME_OR_DIR``.

    Raises:
        InputError: there is no such model, it does not read text, its weights or its tokenizer cannot be used, or the
            options do not go with it.
    """
    without_checkpoint(spec, what="text tower")
    folder = Path(spec.name).expanduser()
    name = str(folder) if folder.is_dir() else spec.name
    encoder = HFEncoder.load(name)
    tokenizer, pad_id = load_hf_tokenizer(name)
    pooling = default_pooling(name, encoder.config)
    return hf_tower(encoder, tokenizer, pad_id=pad_id, pooling=pooling, spec=spec, options=options)


def hf_tower(
    encoder: HFEncoder, tokenizer: Tokenizer, *, pad_id: int, pooling: str, spec: Spec, options: Options
) -> TextTower:
    """The tower of an encoder and its tokenizer, pooled by ``pooling`` unless the options say otherwise.

    Raises:
        InputError: the tokenizer has more tokens than the encoder, or the options do not go with it.
    """
    num_words, num_tokens = encoder.word_embedding().num_embeddings, tokenizer.get_vocab_size()
    if num_tokens > num_words:
        raise InputError(f"{spec.text}: its tokenizer has {num_tokens} tokens, its model only {num_words}")
    tower = TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or pooling,
        max_tokens=options.tokens,
        pad_id=pad_id,
    )
    encoder.check_length(options.tokens, spec.text)
    return tower


def load_hf_tokenizer(name: str | Path) -> tuple[Tokenizer, int]:
    """The tokenizer of a folder or hub model, and the id it pads with.

    Raises:
        InputError: it has none, or one that is not in the tokenizers library's format.
    """
    with explained(str(name)):
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
    # transformers makes an empty tokenizer where there is none.
    if not any(_file(name, file) for file in tokenizer.vocab_files_names.values()):
        raise InputError(f"{name} has no tokenizer; save one there, as tokenizer.json")
    if not tokenizer.is_fast:
        raise InputError(f"{name} has no fast tokenizer; save it anew as tokenizer.json")
    # Padding is masked, so that any token will do where a model has none for it.
    return tokenizer.backend_tokenizer, tokenizer.pad_token_id or 0


def default_pooling(name: str | Path, config: PretrainedConfig) -> str:
    """The pooling that a sentence-transformers folder asks for, or else what suits the architecture.

    That is "mean" for encoders that were trained with a decoder (T5), "last" for models that read left to right,
    and "first" for BERT and its kin, as in the paper.
    """
    path = _file(name, "1_Pooling/config.json")
    if path is not None:
        asked = read_json(path)
        modes = [asked.get("pooling_mode"), *(mode for key, mode in _OLD_POOLINGS.items() if asked.get(key))]
        for mode in modes:
            if mode in _POOLINGS:
                return _POOLINGS[mode]
    if config.is_encoder_decoder:
        return "mean"
    bidirectional = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING or type(config) in MODEL_FOR_MASKED_LM_MAPPING
    return "first" if bidirectional else "last"


def _file(name: str | Path, file: str) -> Path | None:
    path = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if path is None else Path(path)


def _model_class(config: PretrainedConfig, name: str) -> Any:
    kind = type(config)
    if kind in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return MODEL_FOR_TEXT_ENCODING_MAPPING[kind]
    if config.is_encoder_decoder:
        raise InputError(f"{name} is a {config.model_type} model, whose encoder littune cannot take by itself")
    if kind in MODEL_FOR_MASKED_LM_MAPPING or kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_MAPPING[kind]
    raise InputError(f"{name} is a {config.model_type} model, not a text encoder; name one, such as a BERT or a T5")


def _without_pooler(model_class: Any) -> dict[str, bool]:
    takes_it = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if takes_it else {}
