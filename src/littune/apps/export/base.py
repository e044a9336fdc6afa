"""What every target of an export is given, and what it says when it is done."""

from dataclasses import dataclass

from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.towers.image.sources import names_image_tower
from littune.towers.image.tower import ImageTower


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a user may ask of an export."""

    int8: bool = False
    """Store weights as int8, where the target can."""
    on: tuple[str, ...] = ()
    """Evaluation sets on which int8's loss is measured; empty for those that the run itself was scored on."""
    device: str = "cpu"
    precision: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    how_to_load: str
    """Python code that runs in the exported folder."""
    notes: tuple[str, ...] = ()
    """What a user should know of it."""


def image_tower_of(model: LiT) -> tuple[ImageTower | None, str]:
    """The image tower; or None and why no spec leads to it, where it is unknown or was a module of the user's.

    Raises:
        LittuneError: its spec leads to it, but it cannot be had now.
    """
    if model.reference.identity is not None and names_image_tower(model.reference.spec):
        return model.image_tower, ""
    try:
        return model.image_tower, ""
    except InputError as error:
        return None, str(error)
