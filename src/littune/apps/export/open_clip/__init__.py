"""A CLIP for open_clip: ``local-dir:FOLDER`` loads it, and the same folder on a hub is ``hf-hub:NAME``.

The centre and the heads become the towers' own projections, so that what is written is a plain CLIP. What open_clip
cannot express is an error that says why. What it does express is loaded again and compared before it is handed over.
"""

import copy
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.open_clip.image import image_part
from littune.apps.export.open_clip.part import Part
from littune.apps.export.open_clip.pixels import exact_transform, preprocess_settings
from littune.apps.export.open_clip.text import TEXT_FOLDER, text_part
from littune.base.errors import InputError, LittuneError, first_line
from littune.base.files import write_bytes, write_json
from littune.model.lit import LiT
from littune.towers.image.tower import pooled
from littune.towers.open_clip import CONFIG_FILE, WEIGHTS_FILE

# After littune.towers.open_clip, which says what to install.
import open_clip  # isort: skip

_LEAST_COSINE = 0.9999
_TEXTS = (
    "a photo of a cat.",
    "Two children play with a red ball in the park while a brown dog runs after them",
    "Zwei Hunde spielen im Schnee",
    "un café, s'il vous plaît",
    "x",
)


def to_open_clip(model: LiT, out: Path, options: ExportOptions) -> Exported:
    """Write ``model`` into the folder ``out``.

    Raises:
        InputError: open_clip cannot express one of its parts.
        LittuneError: the folder cannot be written, or open_clip says something else with it.
    """
    model.lock_image()
    image, text = image_part(model), text_part(model, out)
    config: dict[str, object] = {
        "embed_dim": model.dim,
        "quick_gelu": _quick_gelu(image, text),
        "custom_text": True,
        "vision_cfg": image.settings,
        "text_cfg": text.settings,
    }
    weights = {f"visual.{name}": value for name, value in image.weights.items()}
    weights |= {f"text.{name}": value for name, value in text.weights.items()}
    weights["logit_scale"] = model.log_temperature
    if model.bias is not None:
        config["init_logit_bias"] = float(model.bias.detach())
        weights["logit_bias"] = model.bias
    # Clones, as a head on two towers may share memory, which safetensors does not.
    saved = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    write_bytes(out / WEIGHTS_FILE, save(saved, metadata={"format": "pt"}))
    preprocess = model.image_tower.preprocess
    write_json(out / CONFIG_FILE, {"model_cfg": config, "preprocess_cfg": preprocess_settings(preprocess)})
    check(model, out, config)
    transform = exact_transform(preprocess)
    notes = [*text.notes]
    if transform is not None:
        notes.append(
            f"open_clip has no preprocessing that sees {preprocess.size} of {preprocess.resize} pixels by "
            f"{preprocess.interpolation}; take the transform that the card shows, not the one that open_clip makes"
        )
    return Exported(how_to_load=_code(transform), notes=tuple(notes))


@torch.no_grad()
def check(model: LiT, out: Path, config: dict[str, object]) -> None:
    """Compare what open_clip says with the folder ``out`` with what the model says.

    Raises:
        LittuneError: they differ, or open_clip cannot load the folder.
    """
    settings = copy.deepcopy(config)
    del settings["custom_text"]
    text_settings = settings["text_cfg"]
    assert isinstance(text_settings, dict)
    if text_settings.get("hf_model_name") == TEXT_FOLDER:
        text_settings["hf_model_name"] = str(out)  # else it would hang on the working folder
    tower = model.image_tower
    size = tower.preprocess.size
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    embeddings = pooled(copy.deepcopy(tower.trunk).cpu(), images, tower.pooling, tower.spec)
    device = model.center.device
    theirs = _said_by_open_clip(settings, out, images)
    ours = {
        "images": model.project_images(embeddings.to(device)).cpu(),
        "texts": model.project_texts(model.text.embed(list(_TEXTS), precision="float32").to(device)).cpu(),
    }
    for what, said in ours.items():
        least = _least_cosine(theirs[what], said)
        if not least >= _LEAST_COSINE:
            raise LittuneError(
                f"open_clip would say something else of {what} (cosine {least:.4f}): it computes a part of this model "
                "in another way; choose another format"
            )


def _said_by_open_clip(
    settings: dict[str, object], out: Path, images: Float[Tensor, "n 3 h w"]
) -> dict[str, Float[Tensor, "n d"]]:
    """What open_clip, with the folder ``out``, says of ``images`` and of ``_TEXTS``."""
    try:
        clip = open_clip.CustomTextCLIP(**settings).eval()
        clip.load_state_dict(load_file(out / WEIGHTS_FILE))
        tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
        return {"images": clip.encode_image(images), "texts": clip.encode_text(tokenizer(list(_TEXTS)))}
    except Exception as error:  # Each of the libraries beneath it raises what it will.
        raise LittuneError(f"open_clip cannot hold this model: {first_line(error)}") from error


def _least_cosine(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> float:
    return float(F.cosine_similarity(first, second).min())


def _quick_gelu(image: Part, text: Part) -> bool:
    """The one setting of open_clip for both towers."""
    wanted = {part.quick_gelu for part in (image, text)} - {None}
    if len(wanted) > 1:
        which = "image" if image.quick_gelu else "text"
        raise InputError(f"open_clip has one GELU for both towers; here the {which} tower alone has the quick one")
    return bool(wanted.pop()) if wanted else False


def _code(transform: str | None) -> str:
    return _LOAD.format(more_imports="", transform="") if transform is None else _LOAD.format(**_with(transform))


def _with(transform: str) -> dict[str, str]:
    return {"more_imports": "\nfrom torchvision import transforms", "transform": f"preprocess = {transform}\n"}


_LOAD = """\
import open_clip
import torch
from PIL import Image{more_imports}

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:.")
{transform}tokenizer = open_clip.get_tokenizer("local-dir:.")
model.eval()

images = preprocess(Image.new("RGB", (640, 480), "red"))[None]  # or Image.open("photo.jpg").convert("RGB")
texts = tokenizer(["a photo of a cat.", "a photo of a dog."])
with torch.no_grad():
    image_embeddings = model.encode_image(images, normalize=True)
    text_embeddings = model.encode_text(texts, normalize=True)
    logits_per_image, _ = model.get_logits(images, texts)
print(logits_per_image.softmax(dim=1))
"""
