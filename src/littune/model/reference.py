"""ImageReference: the image tower that a model reads out, without loading it."""

from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import MismatchError
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import Identity, ImageTower


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """The image tower that a model reads out: how to load it, and what it must then be."""

    spec: str
    pooling: str
    identity: Identity
    weights: Path | None = None
    """The tower's own weights, where the run carries them (``--bundle``)."""

    def load(self, *, device: str, precision: str) -> ImageTower:
        """Load the tower that the spec names."""
        return load_image_tower(
            self.spec, pooling=self.pooling, weights=self.weights, device=device, precision=precision
        )

    def check(self, identity: Identity, what: str) -> None:
        """Check that ``what`` (a tower or store) has this tower's identity.

        Raises:
            MismatchError: it has not; the message says in what they differ.
        """
        differences = self.identity.differences(identity)
        if differences:
            raise MismatchError(
                f"{what} is not of the image tower {self.spec} that the run reads out: {'; '.join(differences)}"
            )
