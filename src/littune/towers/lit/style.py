"""In what files of one model may differ besides their values: kept with a text tower, so that its own are written."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import get_args

from littune.base.errors import InputError, first_line
from littune.towers.lit.vit import Generation

STYLE, SENTENCEPIECE = "npz.json", "vocabulary.model"
"""The names of what a text tower keeps: the style, where it is not the usual one, and a vocabulary that its tokenizer
cannot be turned back into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How a file names and keeps things."""

    image_blocks: Generation = "new"
    text_blocks: Generation = "new"
    text_head_bias: bool = True

    def __post_init__(self) -> None:
        generations = get_args(Generation)
        if not {self.image_blocks, self.text_blocks} <= set(generations) or not isinstance(self.text_head_bias, bool):
            raise InputError(f"{self}: blocks are {' or '.join(generations)}, and a bias is there or not")

    def kept(self) -> dict[str, bytes]:
        """What a text tower keeps of it."""
        return {} if self == Style() else {STYLE: json.dumps(asdict(self)).encode()}

    @classmethod
    def of_kept(cls, kept: Mapping[str, bytes]) -> "Style":
        """The style that a text tower kept, or else the usual one.

        Raises:
            InputError: what it kept is not what ``kept`` gives.
        """
        if STYLE not in kept:
            return cls()
        try:
            return cls(**json.loads(kept[STYLE]))
        except (TypeError, ValueError) as error:
            raise InputError(f"what the text tower keeps as {STYLE} is not littune's ({first_line(error)})") from error
