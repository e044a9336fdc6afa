"""``push``: a finished run to the Hugging Face hub, from where ``hf:NAME`` loads it.

What is uploaded is named file by file: no checkpoint, cache or stray file comes along, and no link out of the run.
Paths in the settings lose the folders that only their owner knows.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

from littune.apps.card import CARD, write_run_card
from littune.apps.card.markdown import public_name
from littune.base.errors import InputError, first_line
from littune.base.files import read_json
from littune.base.progress import log
from littune.config import read_toml
from littune.model.hub_runs import ABOUT, BUNDLE, LOG_IN, OFFLINE, RUN_FILES, explained
from littune.model.lit import LiT
from littune.model.run_files import read_about

_PREFIX = "hf:"
# Kinds of image towers that others can have, those of them that may be folders, and those that a run can carry.
_PUBLISHED = ("hf", "open_clip", "package", "timm")
_OF_FOLDERS = ("hf", "open_clip")
_CARRIED = ("hf", "lit", "open_clip", "run", "timm")
_WEIGHTS = (".bin", ".npz", ".pt", ".pth", ".safetensors")
# Whose strings may be paths; the other files are nothing but numbers, or a card without any.
_WITH_PATHS = ("data.json", "scores.json", ABOUT, "text_tower/text_tower.json")


def push(run: Path, name: str, *, private: bool) -> str:
    """Upload a run to the hub, into a repository that is made where it is not there.

    Args:
        run: the folder of a finished run.
        name: ``hf:USER/NAME``, or ``hf:NAME`` for one's own.
        private: whether only its owner may read it.

    Returns:
        Where it can be seen.

    Raises:
        InputError: the run is not finished, a file of it is a link out of it, or the repository holds something else,
            is public though ``private`` is asked for, or may not be written.
    """
    if not name.startswith(_PREFIX):
        raise InputError(f"{name!r} does not say where to; write hf:USER/NAME")
    about = read_about(run)
    files = _files(run)
    if CARD not in files:  # a run of an earlier version
        write_run_card(LiT.load(run))
        files = _files(run)
    repository = name.removeprefix(_PREFIX)
    with explained(repository, _explanation), tempfile.TemporaryDirectory() as aside:
        api = HfApi(library_name="littune")
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        there = _check_repository(api, url.repo_id, private=private)
        add = [CommitOperationAdd(file, _public(run, file, Path(aside))) for file in files]
        gone = [CommitOperationDelete(file, is_folder=False) for file in RUN_FILES if file in there - {*files}]
        api.create_commit(url.repo_id, [*add, *gone], commit_message="Upload a littune run")
    _warn_of_tower(about)
    return str(url)


def _files(run: Path) -> list[str]:
    """The files of the run that are there.

    Raises:
        InputError: one is a link out of the run.
    """
    found = [file for file in RUN_FILES if (run / file).is_file()]
    for file in found:
        if not (run / file).resolve().is_relative_to(run.resolve()):
            raise InputError(f"{run / file} is a link out of the run; put a copy in its place")
    return found


def _check_repository(api: HfApi, repository: str, *, private: bool) -> set[str]:
    """What a repository holds already.

    Raises:
        InputError: it is no place for the run.
    """
    about = api.model_info(repository)
    there = {file.rfilename for file in about.siblings or ()}
    if there - {".gitattributes", CARD} and ABOUT not in there:
        raise InputError(f"hf:{repository} holds something that is no littune run; choose another name")
    if private and not about.private:
        raise InputError(f"hf:{repository} is there already and is public; make it private on its page, then push")
    return there


def _public(run: Path, file: str, aside: Path) -> Path | bytes:
    """A file of the run as it is uploaded, its owner's folders left out."""
    path = run / file
    if file == "config.toml":
        return tomli_w.dumps(_without_folders(read_toml(path))).encode()
    if file in _WITH_PATHS:
        return (json.dumps(_without_folders(read_json(path)), indent=1, ensure_ascii=False) + "\n").encode()
    return _public_bundle(path, aside / path.name) if file == BUNDLE else path


def _without_folders(value: Any) -> Any:
    """JSON or TOML values with the paths among their strings shortened."""
    if isinstance(value, dict):
        return {name: _without_folders(its) for name, its in value.items()}
    if isinstance(value, list):
        return [_without_folders(its) for its in value]
    return public_name(value) if isinstance(value, str) else value


def _public_bundle(path: Path, copy: Path) -> Path:
    """The image tower that a run carries; its header names the spec, which must be that of ``model.json``."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        public = {**header, "__metadata__": _without_folders(header["__metadata__"])}
        if public == header:
            return path
        text = json.dumps(public).encode()
        text += b" " * (-len(text) % 8)  # tensors lie at multiples of eight
        with copy.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(file, out)
    return copy


def _warn_of_tower(about: Mapping[str, Any]) -> None:
    """Say so where who loads the run will not have its image tower."""
    image = about["image"]
    spec = image["spec"]
    if image["identity"] is None:
        log(
            "it reads out an unknown image tower, that of the foreign stores that it was trained on: who loads it "
            "embeds no pictures with it, only texts, and searches stores of that tower"
        )
    elif not image["bundled"] and _is_ones_own(spec):
        kind = spec.partition(":")[0]
        way = (
            f"it cannot be sent along; publish what {public_name(spec)} names, and say where"
            if kind not in _CARRIED
            else "train with --bundle, or write the run anew with littune export RUN --to littune, and push that"
        )
        log(f"who loads it needs the image tower {public_name(spec)}, which was not uploaded: {way}")


def _is_ones_own(spec: str) -> bool:
    """Whether an image tower is a file, a folder or a module that only its owner has."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in _PUBLISHED or public_name(spec) != spec:
        return True
    if kind in _OF_FOLDERS and (Path(rest).expanduser().is_dir() or rest.startswith(".") or rest.count("/") > 1):
        return True
    checkpoint = rest.partition("@")[2]
    # A checkpoint is a file, but for the tags of open_clip's weights.
    return bool(checkpoint) and (kind != "open_clip" or Path(checkpoint).suffix in _WEIGHTS)


def _explanation(name: str, error: Exception) -> str:
    return f"cannot be written: {_reason(error)}"


def _reason(error: Exception) -> str:
    if isinstance(error, errors.HFValidationError):
        return "it is no name on the hub; write hf:USER/NAME"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return OFFLINE
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"nobody is logged in; {LOG_IN}"
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status == 401:
            return f"the hub does not know you; {LOG_IN} with a token that may write"
        if status == 403:
            return f"your token may not write there; {LOG_IN} with one that may, or choose another name"
    return first_line(error)
