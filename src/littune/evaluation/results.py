"""What an evaluation found on one set, as data; scores are fractions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Result:
    """The scores on one set."""

    data: str
    """The set, as it was named."""
    task: Literal["zero_shot", "retrieval"]
    num_images: int
    num_texts: int | None = None
    """For retrieval, how many texts there are; a text that several images have counts for each."""
    metrics: Mapping[str, float]
    """Name → fraction: ``accuracy@1``, ``text_to_image/recall@5``, …"""

    def to_dict(self) -> dict[str, object]:
        """The result as JSON values."""
        texts = {} if self.num_texts is None else {"num_texts": self.num_texts}
        about = {"data": self.data, "task": self.task, "num_images": self.num_images}
        return {**about, **texts, "metrics": dict(self.metrics)}
