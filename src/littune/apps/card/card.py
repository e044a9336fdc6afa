"""README.md: what a run or an export is, of what it was made, how good it is, under which licences, how to load it.

The head is Hugging Face's, so that a folder that is pushed is found and shown as what it is. A card says nothing
that the run does not say, names no folder of its owner's, and comes out the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.apps.card.markdown import bullets, code, fenced, front_matter, name, prose
from littune.apps.card.models import of_model
from littune.apps.card.parts import Body, of_store, of_tower
from littune.base.files import write_bytes
from littune.model.hub_runs import repository_of
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import ImageTower

CARD = "README.md"

_LOAD_RUN = """\
import littune as lt

model = lt.LiT.load("RUN")  # this folder, or hf:NAME where it lies on the hub
print(model.classify("photo.jpg", ["a cat", "a dog"]))
"""


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What the hub is told of an export: the library that reads it, and what it is for."""

    library: str
    pipeline: str = "zero-shot-image-classification"


# The library that reads an export, where the target's own name is not that of one.
_LIBRARIES = {"npz": "littune"}
_OF_TOWERS = _Head(library="onnx", pipeline="image-feature-extraction")
_OF_STORES = _Head(library="", pipeline="")


def write_run_card(model: LiT) -> None:
    """Write the card of the run that ``model`` was loaded from into its folder.

    Raises:
        LittuneError: the folder cannot be written.
    """
    assert model.folder is not None, "a run has a folder"
    body = of_model(model, _title(model.folder), exported=False, carried=_carries(model))
    _write(model.folder, _Head(library="littune"), body, _LOAD_RUN, ())


def write_export_card(
    folder: Path,
    what: LiT | EmbeddingStore | ImageTower,
    *,
    to: str,
    how_to_load: str,
    notes: Sequence[str] = (),
) -> None:
    """Write the card of an export.

    Args:
        folder: the exported folder.
        what: what was exported.
        to: the target's name.
        how_to_load: Python code.
        notes: what a user should know of it.

    Raises:
        LittuneError: the folder cannot be written.
    """
    if isinstance(what, LiT):
        of = _title(what.folder) if what.folder else name(what.text.spec)
        is_run = to == "littune"
        body = of_model(what, f"{of}, for {to}", exported=not is_run, carried=is_run)
        _write(folder, _Head(library=_LIBRARIES.get(to, to)), body, how_to_load, notes)
    elif isinstance(what, ImageTower):
        _write(folder, _OF_TOWERS, of_tower(what, to), how_to_load, notes)
    else:
        _write(folder, _OF_STORES, of_store(what, to), how_to_load, notes)


def _write(folder: Path, head: _Head, body: Body, how_to_load: str, notes: Sequence[str]) -> None:
    top = front_matter(
        library_name=head.library,
        pipeline_tag=head.pipeline,
        tags=["littune", "lit", "contrastive-learning", "image-text-retrieval"],
        license="other",
        license_name="licence-of-each-part",
        language=sorted(body.languages),
        base_model=[model for model in dict.fromkeys(body.base_models) if model],
    )
    load = ["## How to load it", *([bullets(map(prose, notes))] if notes else []), fenced(how_to_load, "python")]
    write_bytes(folder / CARD, ("\n\n".join([top, *body.sections, *load]) + "\n").encode("utf-8", "replace"))


def _carries(model: LiT) -> bool:
    return model.reference.weights is not None or model.image is not None


def _title(run: Path) -> str:
    """A run is called as its folder is, or its repository: that of a download is called by a commit's hash."""
    return code(repository_of(run.resolve()) or run.resolve().name)
