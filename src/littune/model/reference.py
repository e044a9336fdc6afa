"""ImageReference: the image tower that a model reads out, without loading it.

A model that was trained on embeddings made elsewhere may not know its tower. Then nothing matches by itself: what is
to go together with it has to be admitted, and pictures cannot be encoded until somebody says which tower it is.
"""

from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError, MismatchError
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import Identity, ImageTower


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """The image tower that a model reads out: how to load it, and what it must then be."""

    spec: str
    pooling: str
    identity: Identity | None
    """What must match; None where nobody said which tower it is."""
    weights: Path | None = None
    """The tower's own weights, where the run carries them (``--bundle``)."""

    @classmethod
    def of(cls, tower: ImageTower) -> "ImageReference":
        """The reference to a tower."""
        return cls(spec=tower.spec, pooling=tower.pooling, identity=tower.identity)

    @classmethod
    def unknown(cls) -> "ImageReference":
        """The reference to a tower of which nothing is known but what it said of images."""
        return cls(spec="unknown", pooling="own", identity=None)

    def load(self, *, device: str, precision: str) -> ImageTower:
        """Load the tower that the spec names.

        Raises:
            InputError: it is unknown, or cannot be loaded.
        """
        if self.identity is None:
            raise InputError(
                "the run reads no pictures, as it was trained on a foreign store and does not know its image tower: "
                "train it with --image SPEC too, or set model.image_tower = littune.load_image_tower(SPEC)"
            )
        return load_image_tower(
            self.spec, pooling=self.pooling, weights=self.weights, device=device, precision=precision
        )

    def check(self, identity: Identity | None, what: str, *, allow_foreign: bool = False) -> None:
        """Check that ``what`` (a tower or store) has this tower's identity.

        Args:
            identity: what it says that it is of; None where it does not say.
            what: its name.
            allow_foreign: take it on trust where one of the two is unknown. What is known is compared all the same.

        Raises:
            MismatchError: it has not, or may not have; the message says in what they differ.
        """
        if self.identity is not None and identity is not None:
            differences = self.identity.differences(identity)
            if differences:
                raise MismatchError(
                    f"{what} is not of the image tower {self.spec} that the run reads out: {'; '.join(differences)}"
                )
        elif not allow_foreign:
            why = (
                f"{what} does not say which image tower it is of"
                if identity is None
                else f"the run does not know its image tower, so {what} may be of another"
            )
            raise MismatchError(f"{why}; if you know that it is the same, --allow-foreign admits it")

    @property
    def knowledge(self) -> int:
        """How much it says of the tower: 0 nothing, 1 its weights (as class directions do), 2 its preprocessing too."""
        return 0 if self.identity is None else 1 + bool(self.identity.preprocess)
