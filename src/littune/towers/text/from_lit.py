"""The text towers of the paper's published checkpoints: BERT, and the release's own small text transformers.

All read 16 lower-cased tokens (App. E). BERT's class token is pooled. The small ones fill every text up with the end
token, read that as they read the text, and pool the last token.
"""

from pathlib import Path

from transformers import BertModel

from littune.base.errors import InputError
from littune.towers.lit.arrays import check_arrays, fill
from littune.towers.lit.heads import head_entries, num_outputs
from littune.towers.lit.npz import Checkpoint, read_checkpoint
from littune.towers.lit.style import SENTENCEPIECE, Style
from littune.towers.lit.texts import (
    MAX_TOKENS,
    TEXT,
    bert_config,
    bert_entries,
    holds_bert,
    text_generation,
    transformer_entries,
    transformer_shape,
)
from littune.towers.lit.vit import image_generation
from littune.towers.lit.vocabulary import read_vocabulary, wordpiece_tokenizer
from littune.towers.specs import Spec
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.options import Options
from littune.towers.text.sentencepiece import END_PIECE, sentencepiece_tokenizer
from littune.towers.text.tower import TextTower
from littune.towers.text.transformer import Transformer


def load_lit_text(spec: Spec, options: Options) -> TextTower:
    """Load the text tower of ``lit:PATH.npz[@VOCABULARY]``, without its head.

    Raises:
        InputError: there is no such checkpoint or vocabulary, they are not whole, do not belong together, or the
            options do not go with them.
    """
    checkpoint = read_checkpoint(Path(spec.name).expanduser(), TEXT)
    tower = _bert(checkpoint, spec, options) if holds_bert(checkpoint) else _transformer(checkpoint, spec, options)
    num_tokens, num_words = tower.tokenizer.get_vocab_size(), tower.encoder.word_embedding().num_embeddings
    if num_tokens != num_words:
        raise InputError(
            f"the vocabulary of {checkpoint.path} has {num_tokens} tokens, its text tower {num_words}: "
            "it belongs to another checkpoint"
        )
    return tower


def _bert(checkpoint: Checkpoint, spec: Spec, options: Options) -> TextTower:
    config = bert_config(checkpoint)
    entries = bert_entries(config)
    head = head_entries(TEXT, config.hidden_size, num_outputs(checkpoint, TEXT))
    check_arrays(checkpoint.arrays, [*entries, *head], checkpoint.path)
    path, vocabulary = read_vocabulary(checkpoint.path, spec.checkpoint, ".txt")
    tokenizer = wordpiece_tokenizer(vocabulary, str(path))
    model = BertModel._from_config(config, attn_implementation="eager", add_pooling_layer=False)
    fill(model, checkpoint.arrays, entries)
    encoder = HFEncoder(model, config)
    max_tokens = options.max_tokens or MAX_TOKENS
    encoder.check_length(max_tokens, spec.text)
    return TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or "first",
        max_tokens=max_tokens,
        pad_id=0,
        kept=Style(image_blocks=image_generation(checkpoint)).kept(),
    )


def _transformer(checkpoint: Checkpoint, spec: Spec, options: Options) -> TextTower:
    shape = transformer_shape(checkpoint)
    if options.max_tokens not in (None, shape.num_positions):
        raise InputError(
            f"{spec.text} fills every text up to {shape.num_positions} tokens; "
            f"leave --max-tokens {options.max_tokens} out"
        )
    style = Style(
        image_blocks=image_generation(checkpoint),
        text_blocks=text_generation(checkpoint),
        text_head_bias=f"{TEXT}head/bias" in checkpoint.names,
    )
    entries = transformer_entries(shape, style.text_blocks)
    head = head_entries(TEXT, shape.width, num_outputs(checkpoint, TEXT), bias=style.text_head_bias)
    check_arrays(checkpoint.arrays, [*entries, *head], checkpoint.path)
    path, vocabulary = read_vocabulary(checkpoint.path, spec.checkpoint, ".model")
    tokenizer = sentencepiece_tokenizer(vocabulary, str(path))
    encoder = Transformer(shape)
    fill(encoder, checkpoint.arrays, entries)
    return TextTower(
        encoder,
        tokenizer,
        spec=spec.text,
        pooling=options.pooling or "last",
        max_tokens=shape.num_positions,
        pad_id=tokenizer.get_vocab()[END_PIECE],
        padded=True,
        kept=style.kept() | {SENTENCEPIECE: vocabulary},
    )
