"""The paper's text transformer, trained from scratch (LiT, section 3 and App. C: "ViT text").

A ViT's encoder over learned word and position embeddings: norms before the blocks, tanh-GELU, no causal mask,
and a final norm. big_vision pads every text to 16 tokens with the end token and attends to the padding; here
texts keep their own length, and the end token, which a cut does not lose, is the last token to be pooled. (The
towers of published checkpoints go on as they were trained: ``TextTower.padded``.)
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from littune.base.errors import InputError, first_line
from littune.base.files import read_json, write_json
from littune.towers.text.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a text transformer."""

    width: int
    """Channels of a token."""
    depth: int
    """Blocks."""
    num_heads: int
    """Attention heads in a block."""
    vocab_size: int
    """Rows of the word embedding."""
    num_positions: int
    """Rows of the position embedding: the most tokens a text may have."""


# Width, depth, heads; as the ViTs of these names.
SIZES = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}


class Transformer(Encoder):
    """Token ids → the last block's normed outputs. Weights are drawn from torch's generator.

    Attributes:
        shape: its size.
        dim: its width.
        words: the word embedding.
    """

    kind = "transformer"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.dim = shape.width
        self.words = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Parameter(torch.empty(shape.num_positions, shape.width))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        for table in (self.words.weight, self.positions):
            nn.init.normal_(table, std=shape.width**-0.5)

    @classmethod
    def of_size(cls, size: str, *, vocab_size: int, num_positions: int) -> "Transformer":
        """A fresh transformer of one of the paper's sizes.

        Raises:
            InputError: there is no such size.
        """
        if size not in SIZES:
            raise InputError(f"the text transformer has no size {size!r}; choose one of {', '.join(SIZES)}")
        width, depth, num_heads = SIZES[size]
        return cls(
            Shape(width=width, depth=depth, num_heads=num_heads, vocab_size=vocab_size, num_positions=num_positions)
        )

    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        """The tokens' outputs; those of padding mean nothing."""
        tokens = self.words(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            tokens = block(tokens, mask)
        normed: Tensor = self.norm(tokens)
        return normed

    def word_embedding(self) -> nn.Embedding:
        """The table that token ids are looked up in."""
        return self.words

    def write_config(self, folder: Path) -> None:
        """Write what ``load`` needs beside the weights."""
        write_json(folder / "config.json", asdict(self.shape))

    @classmethod
    def load(cls, folder: Path) -> "Transformer":
        """Read ``config.json`` and ``model.safetensors``.

        Raises:
            InputError: they are missing, damaged, or do not belong together.
        """
        try:
            encoder = cls(Shape(**read_json(folder / "config.json")))  # type: ignore[arg-type]
            encoder.load_state_dict(load_file(folder / "model.safetensors"))
        except (TypeError, RuntimeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder} holds no whole text transformer: {first_line(error)}") from error
        return encoder


class _Block(nn.Module):
    """Attention and MLP, each after a norm and beside a residual path."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.attention = _Attention(shape)
        self.mlp_norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp_in = nn.Linear(shape.width, 4 * shape.width)
        self.mlp_out = nn.Linear(4 * shape.width, shape.width)
        for layer in (self.mlp_in, self.mlp_out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, tokens: Float[Tensor, "n t dim"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        tokens = tokens + self.attention(self.attention_norm(tokens), mask)
        hidden = F.gelu(self.mlp_in(self.mlp_norm(tokens)), approximate="tanh")
        out: Tensor = self.mlp_out(hidden)
        return tokens + out


class _Attention(nn.Module):
    """Every token attends to every token of its text. Plain products: torch's fused attention is slower here."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(shape.width, shape.width) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "n t dim"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        query, key, value = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, tokens: Float[Tensor, "n t dim"]) -> Float[Tensor, "n h t d"]:
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)
