"""In what files of one model may differ besides their values: kept with a text tower, so that its own are written."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

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

    def kept(self) -> dict[str, bytes]:
        """What a text tower keeps of it."""
        return {} if self == Style() else {STYLE: json.dumps(asdict(self)).encode()}

    @classmethod
    def of_kept(cls, kept: Mapping[str, bytes]) -> "Style":
        """The style that a text tower kept, or else the usual one."""
        return cls(**json.loads(kept[STYLE])) if STYLE in kept else cls()
