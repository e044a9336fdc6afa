"""The names of the text towers: BERT as flaxformer names it, and the release's own text transformer."""

from transformers import BertConfig

from littune.base.errors import InputError
from littune.towers.lit.arrays import Entry, dense_entries, norm_entries
from littune.towers.lit.npz import Checkpoint
from littune.towers.lit.vit import Generation, block_entries, generation_of, num_heads_of
from littune.towers.text.transformer import Shape

TEXT = "txt/"

MAX_TOKENS = 16
"""What all published towers were trained on (App. E)."""

# The file does not say how many heads share a kernel; BERT's are all of this width.
BERT_HEAD_WIDTH = 64
BERT_ACTIVATION, BERT_NORM_EPS = "gelu_pytorch_tanh", 1e-12

_BERT = f"{TEXT}BertEncoder_0/"
_EMBEDDERS = f"{_BERT}embedder/embedders_"
_LAYERS = f"{_BERT}encoder_block/layer_sequence/layers_"
_WORDS, _ENCODER = f"{TEXT}Embed_0/embedding", f"{TEXT}Encoder_0/"

# The parts of a block in littune's text transformer, by those in timm.
_BLOCK = {
    "norm1": "attention_norm",
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "out": "attention.out",
    "norm2": "mlp_norm",
    "mlp_in": "mlp_in",
    "mlp_out": "mlp_out",
}


def holds_bert(checkpoint: Checkpoint) -> bool:
    """Whether the text tower is a BERT, not the release's own transformer.

    Raises:
        InputError: there is neither.
    """
    if any(name.startswith(_BERT) for name in checkpoint.arrays):
        return True
    if not any(name.startswith((_WORDS, _ENCODER)) for name in checkpoint.arrays):
        raise InputError(f"{checkpoint.path} has no text tower: neither {_BERT}… nor {_ENCODER}… is in it")
    return False


def bert_config(checkpoint: Checkpoint) -> BertConfig:
    """The configuration of a checkpoint's BERT.

    Raises:
        InputError: it is none of BERT's shape.
    """
    num_words, width = checkpoint.shape(f"{_EMBEDDERS}token_ids/embedding", 2)
    checkpoint.shape(f"{_LAYERS}0/attention_block/attention_layer/query/kernel", 2)
    if width % BERT_HEAD_WIDTH:
        raise InputError(f"{checkpoint.path} has a BERT of width {width}, which is no multiple of {BERT_HEAD_WIDTH}")
    return BertConfig(
        vocab_size=num_words,
        hidden_size=width,
        num_hidden_layers=checkpoint.count(_LAYERS),
        num_attention_heads=width // BERT_HEAD_WIDTH,
        intermediate_size=4 * width,
        hidden_act=BERT_ACTIVATION,
        layer_norm_eps=BERT_NORM_EPS,
        max_position_embeddings=checkpoint.shape(f"{_EMBEDDERS}position_ids/embedding", 2)[0],
        type_vocab_size=checkpoint.shape(f"{_EMBEDDERS}segment_ids/embedding", 2)[0],
    )


def bert_entries(config: BertConfig) -> list[Entry]:
    """The arrays of a BERT, and their places in transformers' model without a pooler."""
    width = config.hidden_size
    tables = {
        "token_ids": ("word", config.vocab_size),
        "position_ids": ("position", config.max_position_embeddings),
        "segment_ids": ("token_type", config.type_vocab_size),
    }
    return [
        *(
            Entry(f"{_EMBEDDERS}{name}/embedding", (rows, width), f"embeddings.{place}_embeddings.weight")
            for name, (place, rows) in tables.items()
        ),
        *norm_entries(f"{_BERT}layer_norm", "embeddings.LayerNorm", width),
        *(entry for index in range(config.num_hidden_layers) for entry in _bert_layer(index, width)),
    ]


def _bert_layer(index: int, width: int) -> list[Entry]:
    name, tensor = f"{_LAYERS}{index}", f"encoder.layer.{index}"
    attention, mlp = f"{name}/attention_block", f"{name}/mlp_block"
    return [
        *(
            entry
            for part in ("query", "key", "value")
            for entry in dense_entries(
                f"{attention}/attention_layer/{part}", f"{tensor}.attention.self.{part}", (width,), (width,)
            )
        ),
        *dense_entries(f"{attention}/dense_layer", f"{tensor}.attention.output.dense", (width,), (width,)),
        *norm_entries(f"{attention}/layer_norm", f"{tensor}.attention.output.LayerNorm", width),
        *dense_entries(f"{mlp}/mlp/dense_layer", f"{tensor}.intermediate.dense", (width,), (4 * width,)),
        *dense_entries(f"{mlp}/dense_layer", f"{tensor}.output.dense", (4 * width,), (width,)),
        *norm_entries(f"{mlp}/layer_norm", f"{tensor}.output.LayerNorm", width),
    ]


def transformer_shape(checkpoint: Checkpoint) -> Shape:
    """The size of a checkpoint's text transformer.

    Raises:
        InputError: its words, its positions or its first block are missing.
    """
    num_words, width = checkpoint.shape(_WORDS, 2)
    return Shape(
        width=width,
        depth=checkpoint.count(f"{_ENCODER}encoderblock_"),
        num_heads=num_heads_of(checkpoint, _ENCODER),
        vocab_size=num_words,
        num_positions=checkpoint.shape(f"{TEXT}pos_embedding", 3)[1],
    )


def transformer_entries(shape: Shape, generation: Generation) -> list[Entry]:
    """The arrays of a text transformer, and their places in littune's."""
    width = shape.width
    blocks = [
        block_entries(
            f"{_ENCODER}encoderblock_{index}",
            f"blocks.{index}",
            _BLOCK,
            width=width,
            num_heads=shape.num_heads,
            generation=generation,
        )
        for index in range(shape.depth)
    ]
    return [
        Entry(_WORDS, (shape.vocab_size, width), "words.weight"),
        Entry(f"{TEXT}pos_embedding", (1, shape.num_positions, width), "positions"),
        *(entry for block in blocks for entry in block),
        *norm_entries(f"{_ENCODER}encoder_norm", "norm", width),
    ]


def text_generation(checkpoint: Checkpoint) -> Generation:
    """How the blocks of a text transformer are named."""
    return generation_of(checkpoint.names, _ENCODER)
