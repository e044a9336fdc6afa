"""Encoder: what stands between token ids and pooling in a text tower. Each source of towers has one."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Token ids → one output a token.

    Attributes:
        kind: how a saved tower names the class.
        dim: the width of an output.
    """

    kind: ClassVar[str]
    dim: int

    @abstractmethod
    def forward(self, ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Float[Tensor, "n t dim"]:
        """The tokens' outputs; those of padding mean nothing."""

    @abstractmethod
    def word_embedding(self) -> nn.Embedding:
        """The table that token ids are looked up in."""

    @abstractmethod
    def write_config(self, folder: Path) -> None:
        """Write what is needed beside the weights to build the encoder again."""

    def weights(self) -> dict[str, Tensor]:
        """The weights under the names that they are saved by."""
        return self.state_dict()
