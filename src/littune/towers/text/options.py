"""What a caller may ask of any text tower, whatever its source."""

from collections.abc import Iterable
from dataclasses import dataclass

from littune.config import MAX_TOKENS


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a caller may ask of a text tower."""

    max_tokens: int | None = None
    """The most tokens of a text that are read, special tokens included; None for the tower's own number."""
    pooling: str | None = None
    """"first", "mean" or "last"; None for what the tower was made for."""
    texts: Iterable[str] | None = None
    """What a tokenizer from scratch is trained on."""

    @property
    def tokens(self) -> int:
        """``max_tokens``, of a tower that has no number of its own."""
        return MAX_TOKENS if self.max_tokens is None else self.max_tokens
