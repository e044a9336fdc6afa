"""One tower of a CLIP as open_clip writes it down."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Of the bias: what is left of it when a matrix has no room for all of it.
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Part:
    """A tower's settings and weights."""

    settings: Mapping[str, Any]
    """``vision_cfg`` or ``text_cfg``."""
    weights: Mapping[str, Tensor]
    """Under open_clip's names, without the tower's prefix."""
    quick_gelu: bool | None = None
    """Which GELU it has; None where it does not hang on open_clip's setting."""
    notes: tuple[str, ...] = ()
    """What a user should know of it."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """x → weight x + bias."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"]

    @classmethod
    @torch.no_grad()
    def of_head(cls, head: nn.Linear) -> "Affine":
        """What a head does."""
        assert head.bias is not None
        return cls(weight=head.weight.detach().cpu(), bias=head.bias.detach().cpu())

    def after(self, weight: Float[Tensor, "mid in"], bias: Float[Tensor, " mid"] | None) -> "Affine":
        """What it makes of another such function's outputs."""
        shift = self.bias if bias is None else self.weight @ bias.cpu() + self.bias
        return Affine(weight=self.weight @ weight.cpu(), bias=shift)


def shift_before(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"]) -> Float[Tensor, " in"] | None:
    """The shortest x with ``weight`` x = ``bias``; None where there is none.

    It goes into the bias of a norm, for a projection that has none of its own.
    """
    matrix, wanted = weight.double(), bias.double()
    found: Tensor = torch.linalg.lstsq(matrix, wanted[:, None], driver="gelsd").solution[:, 0]
    missing = (matrix @ found - wanted).norm()
    return found.float() if missing <= _TOLERANCE * wanted.norm() else None
