"""A model as two towers of transformers apart, the numbers between them, and the code that puts them together.

The code needs transformers, torch, safetensors and PIL alone, and gives unit rows of texts and images.
"""

from pathlib import Path

from safetensors.torch import save
from transformers import PreTrainedModel

from littune.apps.export.hf.image import ImageModel, write_image_model
from littune.apps.export.hf.saving import load_arguments
from littune.apps.export.hf.text import write_text_tower
from littune.base.files import write_bytes
from littune.model.lit import LiT
from littune.towers.image.preprocess import Preprocess
from littune.towers.text.tower import TextTower

_TEXTS = """\
tokenizer = AutoTokenizer.from_pretrained("text_tower")
text_tower = {text_class}.from_pretrained("text_tower"{text_arguments}).eval()


@torch.no_grad()
def encode_texts(texts):
    tokens = tokenizer(texts, padding={padding}, truncation=True, return_tensors="pt")
    outputs = text_tower(**tokens).last_hidden_state
    {pooling}
    return torch.nn.functional.normalize({head})
"""

_IMAGES = """\
{processor}
image_tower = {image_class}.from_pretrained("image_tower"{image_arguments}).eval()


@torch.no_grad()
def encode_images(images):
    outputs = image_tower(pixel_values={pixels})
    {pooling}
    return torch.nn.functional.normalize({head})
"""

_CUT = """\
def to_pixels(image):
    width, height = image.size
    {resize}
    left, upper = round((wide - {size}) / 2), round((high - {size}) / 2)
    image = image.resize((wide, high), Image.Resampling.{filter}).crop((left, upper, left + {size}, upper + {size}))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor({mean}).view(3, 1, 1)) / torch.tensor({std}).view(3, 1, 1)

"""

_PROBABILITIES = """\
images = [Image.new("RGB", (640, 480), "red")]  # or Image.open("photo.jpg").convert("RGB")
texts = ["a photo of a cat.", "a photo of a dog."]
image_embeddings, text_embeddings = encode_images(images), encode_texts(texts)  # of unit length
logits = heads["log_temperature"].exp() * image_embeddings @ text_embeddings.T
probabilities = logits.softmax(dim=1)
print(probabilities)
"""

_TEXTS_ALONE = """\
text_embeddings = encode_texts(["a photo of a cat.", "a photo of a dog."])  # of unit length
print(text_embeddings)
"""


def write_apart(model: LiT, image: ImageModel | None, out: Path) -> str:
    """Write ``text_tower/``, ``image_tower/`` and ``heads.safetensors``.

    Args:
        model: the model.
        image: its image tower; None to leave it out.
        out: the folder.

    Returns:
        The code: ``encode_texts``, ``encode_images`` and the probabilities of some texts.

    Raises:
        InputError: transformers has no such text tower.
    """
    text = write_text_tower(model.text, out / "text_tower")
    if image is not None:
        write_image_model(image, out / "image_tower")
    heads = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith(("text.", "image."))
    }
    write_bytes(out / "heads.safetensors", save(heads))
    return _code(model, text, image)


def _code(model: LiT, text: PreTrainedModel, image: ImageModel | None) -> str:
    classes = {"AutoTokenizer", type(text).__name__}
    parts = ['heads = load_file("heads.safetensors")', _code_of_texts(model, text)]
    imports = ["import torch"]
    if image is not None:
        classes |= {type(image.model).__name__} | ({"AutoImageProcessor"} if image.is_timm else set())
        parts += ["", _code_of_images(model, image)]
        imports = [*([] if image.is_timm else ["import numpy as np"]), "import torch", "from PIL import Image"]
    imports += ["from safetensors.torch import load_file", f"from transformers import {', '.join(sorted(classes))}", ""]
    return "\n".join([*imports, *parts, "", _TEXTS_ALONE if image is None else _PROBABILITIES])


def _code_of_texts(model: LiT, text: PreTrainedModel) -> str:
    return _TEXTS.format(
        text_class=type(text).__name__,
        text_arguments=_arguments(text),
        padding='"max_length"' if model.text.padded else "True",
        pooling=_pooling_of_texts(model.text).replace("\n", "\n    "),
        head="embeddings" if model.text_head is None else _head("text_head", "embeddings"),
    )


def _pooling_of_texts(tower: TextTower) -> str:
    if tower.pooling == "first":
        return "embeddings = outputs[:, 0]"
    if tower.padded:
        return f"embeddings = outputs{'[:, -1]' if tower.pooling == 'last' else '.mean(dim=1)'}"
    if tower.pooling == "last":
        return "embeddings = outputs[torch.arange(len(outputs)), tokens.attention_mask.sum(dim=1) - 1]"
    return (
        "mask = tokens.attention_mask[:, :, None]\n"
        "embeddings = outputs.masked_fill(mask == 0, 0).sum(dim=1) / mask.sum(dim=1)"
    )


def _code_of_images(model: LiT, image: ImageModel) -> str:
    processor = 'image_processor = AutoImageProcessor.from_pretrained("image_tower")'
    pixels = 'image_processor(images, return_tensors="pt").pixel_values'
    centered = 'embeddings - heads["center"]'
    return _IMAGES.format(
        processor=processor if image.is_timm else _cut(image.preprocess),
        image_class=type(image.model).__name__,
        image_arguments=_arguments(image.model),
        pixels=pixels if image.is_timm else "torch.stack([to_pixels(image) for image in images])",
        pooling=_pooling_of_images(image).replace("\n", "\n    "),
        head=centered if model.image_head is None else _head("image_head", f"({centered})"),
    )


def _pooling_of_images(image: ImageModel) -> str:
    if image.pooling == "pooler":
        return "embeddings = outputs.pooler_output"
    tokens = {
        "tokens": "tokens = outputs.last_hidden_state",
        "NCHW": "tokens = outputs.last_hidden_state.flatten(2).transpose(1, 2)",
        "NHWC": "tokens = outputs.last_hidden_state.flatten(1, 2)",
    }[image.layout]
    mean = f"tokens[:, {image.num_prefix}:].mean(dim=1)"
    embeddings = {"cls": "tokens[:, 0]", "mean": mean, "cls+mean": f"torch.cat([tokens[:, 0], {mean}], dim=1)"}
    return f"{tokens}\nembeddings = {embeddings[image.pooling]}"


def _cut(preprocess: Preprocess) -> str:
    """Code that prepares a picture as littune does."""
    side = preprocess.resize
    short = (
        f"wide, high = ({side}, {side} * height // width) if width <= height else ({side} * width // height, {side})"
    )
    return _CUT.format(
        resize=short if preprocess.fit == "short" else f"wide, high = {side}, {side}",
        size=preprocess.size,
        filter=preprocess.interpolation.upper(),
        mean=list(preprocess.mean),
        std=list(preprocess.std),
    )


def _head(name: str, rows: str) -> str:
    return f'{rows} @ heads["{name}.weight"].T + heads["{name}.bias"]'


def _arguments(model: PreTrainedModel) -> str:
    return "".join(f", {name}={value}" for name, value in load_arguments(model).items())
