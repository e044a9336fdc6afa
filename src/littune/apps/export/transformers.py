"""A model for plain transformers, without littune.

Where it fits exactly, the folder is one VisionTextDualEncoder, and
``pipeline("zero-shot-image-classification", model=FOLDER)`` takes it. Else the towers lie apart: ``text_tower/``,
``image_tower/`` and the numbers between them in ``heads.safetensors``, which a few lines of torch put together.
"""

from pathlib import Path

from littune.apps.export.base import Exported, ExportOptions, image_tower_of
from littune.apps.export.hf.apart import write_apart
from littune.apps.export.hf.dual_encoder import CannotHoldError, dual_encoder
from littune.apps.export.hf.image import (
    ImageModel,
    clip_processor,
    image_model,
    shifted_crop,
    timm_settings,
)
from littune.apps.export.hf.saving import save_model
from littune.apps.export.hf.text import write_tokenizer
from littune.base.errors import LittuneError
from littune.base.files import read_json, write_json
from littune.model.lit import LiT


def to_transformers(model: LiT, out: Path, options: ExportOptions) -> Exported:
    """Write ``model`` into the folder ``out``.

    Raises:
        InputError: transformers has no such text tower.
        LittuneError: the image tower cannot be had now.
    """
    model.lock_image()
    tower, reason = image_tower_of(model)
    if tower is None:
        return _texts_alone(model, out, reason)
    try:
        image = image_model(tower)
    except LittuneError as error:
        return _texts_alone(model, out, str(error))
    try:
        dual = dual_encoder(model, image)
    except CannotHoldError as error:
        note = f"written as two towers, as no VisionTextDualEncoder holds the run: {error}"
        return Exported(how_to_load=write_apart(model, image, out), notes=(note,))
    save_model(dual, out)
    write_tokenizer(model.text, out)
    _write_processor(image, out)
    return Exported(how_to_load=_DUAL_ENCODER, notes=shifted_crop(image))


def _texts_alone(model: LiT, out: Path, reason: str) -> Exported:
    return Exported(how_to_load=write_apart(model, None, out), notes=(f"only texts are written: {reason}",))


def _write_processor(image: ImageModel, out: Path) -> None:
    if not image.is_timm:
        write_json(out / "preprocessor_config.json", clip_processor(image.preprocess))
        return
    # timm's processor reads the model's configuration; which processor it is, is looked for in either file.
    kind = {"image_processor_type": "TimmWrapperImageProcessor"}
    settings = {**kind, "pretrained_cfg": timm_settings(image.preprocess)}
    write_json(out / "config.json", read_json(out / "config.json") | settings)
    write_json(out / "preprocessor_config.json", kind)


_DUAL_ENCODER = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionTextDualEncoderModel

# pipeline("zero-shot-image-classification", model=".") takes it too, though it says that it does not know the class.
model = VisionTextDualEncoderModel.from_pretrained(".").eval()
tokenizer = AutoTokenizer.from_pretrained(".")
image_processor = AutoImageProcessor.from_pretrained(".")

images = [Image.new("RGB", (640, 480), "red")]  # or Image.open("photo.jpg").convert("RGB")
texts = ["a photo of a cat.", "a photo of a dog."]
tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
pixels = image_processor(images, return_tensors="pt")
with torch.no_grad():
    outputs = model(**tokens, **pixels)
image_embeddings, text_embeddings = outputs.image_embeds, outputs.text_embeds  # of unit length
probabilities = outputs.logits_per_image.softmax(dim=1)
print(probabilities)
"""
