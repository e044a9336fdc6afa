"""How others load what is written here: Python code for the card, which runs in the exported folder."""

_PIXELS = """
def pixels(picture):
    wide, high = picture.size
    side, size = about["resize"], about["size"]
    if about["fit"] == "stretch":
        shape = (side, side)
    else:
        shape = (side * wide // min(wide, high), side * high // min(wide, high))
    left, upper = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    picture = picture.convert("RGB").resize(shape, Image.Resampling[about["interpolation"].upper()])
    picture = picture.crop((left, upper, left + size, upper + size))
    values = (np.asarray(picture, np.float32){scale} - about["mean"]) / about["std"]
    return values.transpose(2, 0, 1)[None].astype(np.float32)


picture = Image.new("RGB", (320, 240), "red")  # or Image.open("photo.jpg")
image_tower = onnxruntime.InferenceSession("image_tower.onnx", providers=["CPUExecutionProvider"])
images = image_tower.run(["image_embeds"], {{"pixel_values": pixels(picture)}})[0]
print(images.shape)
"""

_TEXTS = """\
import json

import numpy as np
import onnxruntime
{pillow}from tokenizers import Tokenizer

settings = json.load(open("settings.json"))
texts = ["a photo of a cat.", "a photo of a dog."]
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(settings["text"]["max_tokens"])
{padding}
tokens = tokenizer.encode_batch(texts)
text_tower = onnxruntime.InferenceSession("text_tower.onnx", providers=["CPUExecutionProvider"])
ids = np.array([its.ids for its in tokens], np.int64)
mask = {mask}
inputs = {{"input_ids": ids, "attention_mask": mask}}
rows = text_tower.run(None, inputs)[0]  # unit rows
print(rows.shape)
"""

_PADDING = 'tokenizer.enable_padding(pad_id=settings["text"]["pad_id"])'
_MASK = "np.array([its.attention_mask for its in tokens], np.int64)"

# For a tower that reads its padding.
_WHOLE_PADDING = """\
length = settings["text"]["max_tokens"]
tokenizer.enable_padding(pad_id=settings["text"]["pad_id"], length=length)  # which is a part of the text"""
_WHOLE_MASK = "np.ones_like(ids)"

_IMAGE = """
about = settings["image"]

{pixels}
logits = settings["logit_scale"] * images @ rows.T
probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
print(dict(zip(texts, (probabilities / probabilities.sum(axis=1, keepdims=True))[0].tolist())))
"""

_TOWER = """\
import tomllib

import numpy as np
import onnxruntime
from PIL import Image

about = tomllib.load(open("image_tower.toml", "rb"))  # mean and std are of pixels of 0...255

"""


def code_for_run(*, with_image: bool, padded: bool) -> str:
    """For the towers of a run; ``padded`` where the text tower reads its padding."""
    code = _TEXTS.format(
        pillow="from PIL import Image\n" if with_image else "",
        padding=_WHOLE_PADDING if padded else _PADDING,
        mask=_WHOLE_MASK if padded else _MASK,
    )
    return code + (_IMAGE.format(pixels=_PIXELS.format(scale=" / 255")) if with_image else "")


def code_for_tower() -> str:
    """For an image tower alone."""
    return _TOWER + _PIXELS.format(scale="")
