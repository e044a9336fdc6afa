"""Which folders hold embeddings: known at the ground, since pairs must tell them from folders of images."""

from pathlib import Path

from littune.base.errors import InputError
from littune.base.files import read_json

MANIFEST = "manifest.json"
STORE_FORMAT = "littune-store"

# Where others put them: clip-retrieval and LAION, PD12M, and whoever downloads LAION's files into one folder.
_FOREIGN_EMBEDDINGS = ("img_emb/*.npy", "embeddings/*.npy", "img_emb_*.npy")
_FOREIGN_METADATA = ("metadata/*.parquet", "*-metadata/*.parquet", "metadata_*.parquet")


def is_store(path: str | Path) -> bool:
    """Whether a folder is a store, littune's own or a foreign one."""
    return _has_own_manifest(Path(path)) or bool(foreign_embeddings(Path(path)))


def foreign_embeddings(folder: Path) -> list[Path]:
    """The files of embeddings in a folder that something else may have written, in no order."""
    return _first_that_match(folder, _FOREIGN_EMBEDDINGS)


def foreign_metadata(folder: Path) -> list[Path]:
    """The files of metadata in a folder that something else may have written, in no order."""
    return _first_that_match(folder, _FOREIGN_METADATA)


def _has_own_manifest(folder: Path) -> bool:
    try:
        return read_json(folder / MANIFEST).get("format") == STORE_FORMAT
    except (InputError, OSError):
        return False


def _first_that_match(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return next(filter(None, (list(folder.glob(pattern)) for pattern in patterns)), [])
