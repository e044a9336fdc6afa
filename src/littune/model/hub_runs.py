"""``hf:NAME[@REVISION]``: runs on the Hugging Face hub, downloaded once into its cache and checked.

Only the files of a run are fetched, all of them data: JSON, TOML, a card, safetensors, a vocabulary. What a repository
holds beside them (code, pickles, checkpoints) never gets here, and a text tower that asks for code is refused.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors
from safetensors import safe_open

from littune.base.errors import InputError, LittuneError, first_line
from littune.base.files import read_json
from littune.model.run_files import FORMAT
from littune.towers.lit.style import SENTENCEPIECE, STYLE

ABOUT = "model.json"
_NEEDED = (
    ABOUT,
    "model.safetensors",
    "text_tower/config.json",
    "text_tower/model.safetensors",
    "text_tower/text_tower.json",
    "text_tower/tokenizer.json",
)
BUNDLE = "image_tower.safetensors"
# What the text tower of a published checkpoint keeps, for ``export --to npz`` (``towers.lit.style``).
_KEPT = tuple(f"text_tower/kept/{name}" for name in (STYLE, SENTENCEPIECE))
RUN_FILES = (*_NEEDED, *_KEPT, BUNDLE, "config.toml", "cost.json", "data.json", "scores.json", "README.md")
"""All that a finished run holds for others; each is named, so that nothing else comes along."""

LOG_IN = "log in (hf auth login, or HF_TOKEN)"
OFFLINE = "HF_HUB_OFFLINE keeps littune from asking the hub"

_ENTRY = "models--"  # how the folder of a repository begins in the hub's cache
_MOST_BYTES = 64 << 20
"""The largest file that is read, weights aside, in bytes; the tokenizers of the largest vocabularies have half."""


def run_folder_of_hub(name: str) -> Path:
    """The folder in the hub's cache of the run ``NAME[@REVISION]``, downloaded where it is not there or not current.

    With ``HF_HUB_OFFLINE=1``, or where the hub cannot be reached, it is what was downloaded last.

    Raises:
        InputError: there is no such repository or revision, or none that may be read; it holds no littune run, or too
            large a file; it cannot be downloaded; or what came is not whole.
    """
    if Path(name).is_dir():
        raise InputError(f"hf:{name} is a folder here; name it without hf:")
    repository, _, revision = name.partition("@")
    with explained(name, _explanation):
        _check_sizes(name)
        about = huggingface_hub.hf_hub_download(repository, ABOUT, revision=revision or None)
        _check_about(Path(about), name)
        folder = Path(
            huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=list(RUN_FILES))
        )
    check_run_folder(folder, name)
    return folder


def repository_of(folder: Path) -> str:
    """The name on the hub of the repository that ``folder`` is a download of; empty for any other folder."""
    snapshots, entry = folder.parent, folder.parent.parent
    if snapshots.name != "snapshots" or not entry.name.startswith(_ENTRY):
        return ""
    return entry.name.removeprefix(_ENTRY).replace("--", "/")


def check_run_folder(folder: Path, name: str) -> None:
    """Check that a download is whole and holds nothing that is not looked at with care.

    Args:
        folder: where it lies.
        name: the run's name on the hub, for messages.

    Raises:
        InputError: a file is missing, cut short, too large, or asks for code to be run.
    """
    about = _check_about(folder / ABOUT, name)
    image = about.get("image")
    carries = isinstance(image, dict) and image.get("bundled") is True
    for file in (*_NEEDED, *([BUNDLE] if carries else [])):
        if not (folder / file).is_file():
            raise InputError(f"hf:{name} is not whole, {file} is missing: load it again with the hub in reach")
    for file in RUN_FILES:
        if (folder / file).is_file():
            _check_file(folder / file, f"hf:{name}: {file}")
    if "auto_map" in read_json(folder / "text_tower" / "config.json"):
        raise InputError(f"hf:{name}: its text tower asks for code of its own, and littune runs none that it downloads")


def _check_about(path: Path, name: str) -> dict[str, object]:
    _check_file(path, f"hf:{name}: {path.name}")
    about = read_json(path)
    if about.get("format") != FORMAT:
        raise InputError(f"hf:{name} holds no littune run (its {ABOUT} is of something else)")
    return about


def _check_sizes(name: str) -> None:
    """Refuse files that are too large before they are downloaded; what came is looked at again.

    Raises:
        InputError: the hub says that one is.
    """
    repository, _, revision = name.partition("@")
    patience = huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT
    try:
        about = huggingface_hub.model_info(repository, revision=revision or None, files_metadata=True, timeout=patience)
    except Exception:  # offline the cache serves; otherwise the download says what is wrong
        return
    for file in about.siblings or ():
        if file.rfilename in RUN_FILES:
            _check_size(file.rfilename, file.size or 0, f"hf:{name}: {file.rfilename}")


def _check_size(file: str, size: int, what: str) -> None:
    if not file.endswith(".safetensors") and size > _MOST_BYTES:
        raise InputError(f"{what} has {size:,} bytes, and at most {_MOST_BYTES:,} are read")


def _check_file(path: Path, what: str) -> None:
    _check_size(path.name, path.stat().st_size, what)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass  # its header says how long it must be
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # safetensors has an error of its own, and JSON may be nested too deep.
        raise InputError(f"{what} is damaged ({first_line(error)}); delete {_entry(path)} and load it again") from error


def _entry(path: Path) -> Path:
    """The folder of a repository in the hub's cache that ``path`` lies in; else ``path`` itself."""
    return next((folder for folder in path.parents if folder.name.startswith(_ENTRY)), path)


@contextmanager
def explained(name: str, explanation: Callable[[str, Exception], str]) -> Iterator[None]:
    """Turn what huggingface_hub raises in the block into one line about the run ``name``.

    Args:
        name: the run's name on the hub, without ``hf:``.
        explanation: what is to be said of a name and an error, after the name.

    Raises:
        InputError: whatever was raised in the block that is no error of littune's.
    """
    try:
        yield
    except LittuneError:
        raise
    except Exception as error:  # of the hub's, of whichever HTTP library it uses, of the disk's
        raise InputError(f"hf:{name} {explanation(name, error)}") from error


def _explanation(name: str, error: Exception) -> str:
    repository, _, revision = name.partition("@")
    if isinstance(error, errors.HFValidationError):
        return "is no name on the hub; write hf:USER/NAME or hf:USER/NAME@REVISION, or a run's folder without hf:"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated: ask for access on its page, then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"is not on the hub, or is private: check the name, or {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}; name a branch, a tag or a commit of {repository}"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        return f"is not (wholly) in the cache, and {OFFLINE if offline else 'the hub cannot be reached'}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"holds no littune run (no {ABOUT})"
    return f"cannot be downloaded: {first_line(error)}"
