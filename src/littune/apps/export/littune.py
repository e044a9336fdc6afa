"""A run folder that needs nothing else: of a published checkpoint, a run on the hub, or a run that carries no tower."""

import shutil
from pathlib import Path

from littune.apps.card.records import DATA, SCORES
from littune.apps.export.base import Exported, ExportOptions
from littune.model.lit import LiT
from littune.model.run_files import COST

_CARRIED = ("config.toml", COST, DATA, SCORES)


def to_littune(model: LiT, out: Path, options: ExportOptions) -> Exported:
    """Write ``model`` as a run folder, the image tower's weights included.

    Raises:
        InputError: the image tower is one that littune cannot build again.
    """
    model.save(out, bundle=True)
    for name in _CARRIED if model.folder is not None else ():
        assert model.folder is not None
        if (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, out / name)
    return Exported(how_to_load=_CODE)


_CODE = """\
import littune as lt

model = lt.LiT.load(".")
print(model.encode_text(["a photo of a cat."]).shape)
"""
