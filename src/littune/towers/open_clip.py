"""open_clip's models: which there are, their configuration and their weights, one tower at a time.

A name of open_clip's, or a folder as its hub has them (``open_clip_config.json`` beside the weights). Weights are
those of a whole CLIP, read as weights only, never as pickled code; the tower that is asked for is built alone, so
that the other one, which may need a hub, is never made. They fit exactly: what is missing or left over in the tower
is an error, where open_clip would stretch position embeddings.
"""

import difflib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from littune.base.errors import InputError, MissingExtraError, first_line
from littune.base.files import read_json
from littune.towers.specs import Spec

try:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg
except ImportError as error:
    raise MissingExtraError("the package open_clip_torch", "open-clip") from error

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
# In the order in which open_clip looks for them.
_WEIGHTS_FILES = (WEIGHTS_FILE, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_OUTSIDE_TEXT = ("visual.", "logit_scale", "logit_bias")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A model of open_clip, not built yet.

    Attributes:
        spec: how it was named.
        what: what is made of it, for messages: "image tower" or "text tower".
        config: open_clip's configuration of the model.
        preprocess: open_clip's settings of its preprocessing, those that are not the default.
        folder: where it lies, if it is a folder.
        checkpoint: the file of its weights, if there is one.
    """

    spec: Spec
    what: str
    config: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    folder: Path | None = None
    checkpoint: Path | None = None

    @property
    def embed_dim(self) -> int:
        """The dimensions of the space that its towers share."""
        return int(self.config["embed_dim"])

    @property
    def quick_gelu(self) -> bool:
        """Whether its transformers use x·sigmoid(1.702 x) for a GELU."""
        return bool(self.config.get("quick_gelu"))

    def problem(self, what: str) -> InputError:
        """An error that says what is wrong with this model."""
        return InputError(f"{self.what} {self.spec.text!r}: {what}")

    def fill(self, tower: nn.Module) -> None:
        """Load the checkpoint's weights of one tower.

        Raises:
            InputError: the checkpoint cannot be read, or is of another architecture.
        """
        assert self.checkpoint is not None
        weights = read_weights(self.checkpoint, self)
        part = _visual_part(weights) if self.what == "image tower" else _text_part(weights)
        try:
            tower.load_state_dict(part)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            misfit = " ".join(lines[:2])[:200]
            raise self.problem(f"{self.checkpoint} is no checkpoint of {self.spec.name} ({misfit})") from error


def find_clip(spec: Spec, what: str) -> Clip:
    """The model that ``open_clip:MODEL@CHECKPOINT_OR_TAG`` or ``open_clip:FOLDER`` names.

    Raises:
        InputError: there is no such model, checkpoint or tag, or the tag's weights cannot be downloaded.
    """
    folder = Path(spec.name).expanduser()
    if folder.is_dir():
        clip = _in_folder(spec, what, folder)
        found = [folder / name for name in _WEIGHTS_FILES if (folder / name).is_file()]
        if not found:
            raise clip.problem(f"{folder} has no weights; {WEIGHTS_FILE} should be there")
        return replace(clip, checkpoint=found[0])
    clip = _by_name(spec, what)
    tags = list(open_clip.list_pretrained_tags_by_model(_model_name(spec)))
    if spec.checkpoint is None:
        example = tags[0] if tags else "FILE"
        known = f"a tag ({_some(tags)}) or a file" if tags else "a file of weights"
        raise clip.problem(f"which weights? add {known}, as in open_clip:{spec.name}@{example}")
    path = Path(spec.checkpoint).expanduser()
    if path.is_file():
        return replace(clip, checkpoint=path)
    settings = get_pretrained_cfg(_model_name(spec), spec.checkpoint)
    if not settings:
        close = difflib.get_close_matches(spec.checkpoint, tags, n=1)
        hint = f"did you mean {close[0]}?" if close else f"its tags are {_some(tags)}" if tags else "it has no tags"
        raise clip.problem(f"{spec.checkpoint} is neither a file nor one of open_clip's tags; {hint}")
    return _tagged(clip, settings)


def find_architecture(spec: Spec, what: str) -> Clip:
    """The model that ``open_clip:MODEL`` or ``open_clip:FOLDER`` names, whatever its weights.

    Raises:
        InputError: there is no such model, or the spec names weights.
    """
    folder = Path(spec.name).expanduser()
    if spec.checkpoint is not None:
        raise InputError(f"{what} {spec.text!r} is drawn from scratch; leave '@{spec.checkpoint}' out")
    return _in_folder(spec, what, folder) if folder.is_dir() else _by_name(spec, what)


def read_weights(path: Path, clip: Clip) -> dict[str, Tensor]:
    """The weights of a file of ``clip``, out of the wrappers that training puts around them.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        fix = "save its state_dict alone"
        raise clip.problem(f"{path} holds more than weights, or none, and no code in it is run; {fix}") from error
    except Exception as error:  # Truncated and foreign files: each reader has its own.
        raise clip.problem(f"{path} cannot be read as weights ({first_line(error)})") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise clip.problem(f"{path} holds no weights of a model")
    return {name.removeprefix("module."): value for name, value in found.items()}


def _visual_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}


def _text_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower has a prefix in the newer models, and lies loose among the others' weights in the older."""
    prefixed = {name.removeprefix("text."): value for name, value in weights.items() if name.startswith("text.")}
    return prefixed or {name: value for name, value in weights.items() if not name.startswith(_OUTSIDE_TEXT)}


def _in_folder(spec: Spec, what: str, folder: Path) -> Clip:
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{what} {spec.text!r}: {folder} has no {CONFIG_FILE}, and is no model of open_clip")
    if spec.checkpoint is not None:
        raise InputError(f"{what} {spec.text!r}: the weights of a folder lie in it; leave '@{spec.checkpoint}' out")
    about: Any = read_json(folder / CONFIG_FILE)
    config, preprocess = about.get("model_cfg"), about.get("preprocess_cfg") or {}
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise InputError(f"{what} {spec.text!r}: {folder / CONFIG_FILE} describes no model of open_clip")
    return Clip(spec=spec, what=what, config=config, preprocess=preprocess, folder=folder)


def _by_name(spec: Spec, what: str) -> Clip:
    config = open_clip.get_model_config(_model_name(spec))
    if config is None:
        close = difflib.get_close_matches(_model_name(spec), open_clip.list_models(), n=1)
        hint = f"did you mean open_clip:{close[0]}?" if close else "open_clip.list_models() names them"
        raise InputError(f"{what} {spec.text!r}: open_clip has no model {spec.name!r}, nor is it a folder; {hint}")
    return Clip(spec=spec, what=what, config=config, preprocess={})


def _model_name(spec: Spec) -> str:
    """open_clip takes "ViT-B/32" too. A name with a colon would be looked for on a hub."""
    return spec.name.replace("/", "-").replace(":", "-")


def _tagged(clip: Clip, settings: Mapping[str, Any]) -> Clip:
    """``clip`` with the weights of a tag, which were trained with the quick GELU where the tag or the model says so.

    Tags say it of models whose name does not, and one model has it (roberta-ViT-B-32) whose tag does not say so.
    """
    try:
        path = Path(download_pretrained(dict(settings)))
    except Exception as error:  # The hub's clients raise what they will.
        where = f"hf.co/{settings['hf_hub'].strip('/')}" if settings.get("hf_hub") else settings.get("url")
        fix = f"fetch the folder {where} where there is a network, and write open_clip:FOLDER"
        raise clip.problem(f"its weights cannot be downloaded now ({first_line(error)}); {fix}") from error
    config = {**clip.config, "quick_gelu": clip.quick_gelu or bool(settings.get("quick_gelu"))}
    return replace(clip, config=config, preprocess=settings, checkpoint=path)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
