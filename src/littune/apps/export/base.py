"""What every target of an export is given, and what it says when it is done."""

from dataclasses import dataclass


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
