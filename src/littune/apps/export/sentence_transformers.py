"""A model for sentence-transformers: ``SentenceTransformer(FOLDER).encode`` embeds texts, and images too.

The heads are its Dense layers, with a bias and no activation; the centre is in the image layer's bias. A Router sends
texts one way and images the other. Each way is a folder that is a model by itself: ``FOLDER/text`` loads in versions
that know no images. All of it is JSON and safetensors, so that the package is not needed to write it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from littune.apps.export.base import Exported, ExportOptions, image_tower_of
from littune.apps.export.hf.image import ImageModel, image_model, shifted_crop, write_image_model
from littune.apps.export.hf.saving import load_arguments
from littune.apps.export.hf.text import write_text_tower
from littune.base.errors import InputError, LittuneError
from littune.base.files import write_bytes, write_json
from littune.model.lit import LiT
from littune.towers.text.tower import TextTower

_MODULES = "sentence_transformers.models"
_POOLINGS = {"first": "cls", "mean": "mean", "last": "lasttoken"}
_OLD_POOLINGS = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}


@dataclass(frozen=True)
class _Linear:
    """The layer between pooled outputs and unit rows, float32."""

    weight: Float[Tensor, "o d"]
    bias: Float[Tensor, " o"]


def to_sentence_transformers(model: LiT, out: Path, options: ExportOptions) -> Exported:
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
        poolings, linear = _image_layer(model, image)
    except LittuneError as error:
        return _texts_alone(model, out, str(error))
    text_modules = _write_texts(model, out / "text")
    image_modules = _write_images(image, poolings, linear, out / "image")
    _write_router(out, {"text": text_modules, "image": image_modules})
    version = "images need sentence-transformers 5.4 or newer; an older one loads the folder's text/"
    if model.text.padded:
        version = "the folder needs sentence-transformers 5.4 or newer"
    return Exported(how_to_load=_CODE_OF_TEXTS + _CODE_OF_IMAGES, notes=(version, *shifted_crop(image)))


def _texts_alone(model: LiT, out: Path, reason: str) -> Exported:
    _write_texts(model, out)
    return Exported(how_to_load=_CODE_OF_TEXTS, notes=(f"only texts are written: {reason}",))


def _write_texts(model: LiT, folder: Path) -> dict[str, str]:
    """Write the way of the texts; its modules by their folders."""
    text = write_text_tower(model.text, folder)
    settings: dict[str, object] = {"max_seq_length": model.text.max_tokens, "do_lower_case": False}
    if model.text.padded:
        settings["processing_kwargs"] = {"text": {"padding": "max_length"}}
    if load_arguments(text):
        settings["model_args"] = load_arguments(text)
    write_json(folder / "sentence_bert_config.json", settings)
    write_json(folder / "1_Pooling" / "config.json", _pooling_of_texts(model.text))
    modules = {"": "Transformer", "1_Pooling": "Pooling"}
    if model.text_head is not None:
        _write_dense(folder / "2_Dense", _linear(model.text_head))
        modules["2_Dense"] = "Dense"
    return _write_way(folder, modules)


def _pooling_of_texts(tower: TextTower) -> dict[str, object]:
    chosen = _POOLINGS[tower.pooling]
    modes = {f"pooling_mode_{name}": mode == chosen for mode, name in _OLD_POOLINGS.items()}
    return {"word_embedding_dimension": tower.dim, **modes}


def _write_images(image: ImageModel, poolings: list[str], linear: _Linear, folder: Path) -> dict[str, str]:
    """Write the way of the images; its modules by their folders."""
    write_image_model(image, folder)
    output = "last_hidden_state" if poolings else "pooler_output"
    settings: dict[str, object] = {
        "modality_config": {"image": {"method": "forward", "method_output_name": output}},
        "module_output_name": "token_embeddings" if poolings else "sentence_embedding",
    }
    if load_arguments(image.model):
        settings["model_args"] = load_arguments(image.model)
    write_json(folder / "sentence_bert_config.json", settings)
    modules = {"": "Transformer"}
    if poolings:
        width = linear.weight.shape[1] // len(poolings)
        write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": width, "pooling_mode": poolings})
        modules["1_Pooling"] = "Pooling"
    _write_dense(folder / "2_Dense", linear)
    modules["2_Dense"] = "Dense"
    return _write_way(folder, modules)


def _image_layer(model: LiT, image: ImageModel) -> tuple[list[str], _Linear]:
    """How sentence-transformers pools images, if it is to, and what makes the shared space of that.

    It takes the mean of all tokens, the class token among them: that and the class token give the patches' mean.

    Raises:
        InputError: it cannot pool as the tower does.
    """
    dim = len(model.center)
    head = _Linear(torch.eye(dim), torch.zeros(dim)) if model.image_head is None else _linear(model.image_head)
    bias = head.bias - head.weight @ model.center.detach().cpu()
    if image.pooling == "pooler":
        return [], _Linear(head.weight, bias)
    if image.pooling == "cls":
        return ["cls"], _Linear(head.weight, bias)
    if image.layout == "NHWC" or image.num_prefix > 1:
        raise InputError("sentence-transformers has no mean of its image tower's patches alone")
    if image.num_prefix == 0:
        return ["mean"], _Linear(head.weight, bias)
    places = image.num_places
    width = dim if image.pooling == "mean" else dim // 2
    one = torch.eye(width)
    mean = torch.cat([-one / places, one * (places + 1) / places], dim=1)
    both = torch.cat([torch.cat([one, torch.zeros(width, width)], dim=1), mean])
    return ["cls", "mean"], _Linear(head.weight @ (mean if image.pooling == "mean" else both), bias)


def _linear(layer: nn.Linear) -> _Linear:
    return _Linear(layer.weight.detach().cpu().float(), layer.bias.detach().cpu().float())


def _write_dense(folder: Path, linear: _Linear) -> None:
    num_out, num_in = linear.weight.shape
    activation = "torch.nn.modules.linear.Identity"
    write_json(
        folder / "config.json",
        {"in_features": num_in, "out_features": num_out, "bias": True, "activation_function": activation},
    )
    weights = {"linear.weight": linear.weight.contiguous(), "linear.bias": linear.bias.contiguous()}
    write_bytes(folder / "model.safetensors", save(weights))


def _write_way(folder: Path, modules: dict[str, str]) -> dict[str, str]:
    """Write what makes a folder a model, with unit rows at its end; the modules by their folders."""
    modules = {**modules, "3_Normalize": "Normalize"}
    write_json(folder / "3_Normalize" / "config.json", {})
    _write_model(folder, modules)
    return modules


def _write_model(folder: Path, modules: dict[str, str]) -> None:
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}.{kind}"}
        for number, (path, kind) in enumerate(modules.items())
    ]
    write_json(folder / "modules.json", listed)
    settings: dict[str, object] = {
        "__version__": {},
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", settings)


def _write_router(out: Path, ways: dict[str, dict[str, str]]) -> None:
    """Write the Router over the ways, whose modules stay where they are."""
    types, structure = {}, {}
    for way, modules in ways.items():
        named = {f"{way}/{path}" if path else way: f"{_MODULES}.{kind}" for path, kind in modules.items()}
        types.update(named)
        structure[way] = list(named)
    parameters = {
        "default_route": "text",
        "allow_empty_key": True,
        "route_mappings": {f"(None, '{way}')": way for way in ways},
    }
    write_json(out / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    _write_model(out, {"": "Router"})


_CODE_OF_TEXTS = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
text_embeddings = model.encode(["a photo of a cat.", "a photo of a dog."])  # of unit length
print(text_embeddings)
"""

_CODE_OF_IMAGES = """
from PIL import Image

images = [Image.new("RGB", (640, 480), "red")]  # or Image.open("photo.jpg").convert("RGB")
image_embeddings = model.encode(images)
print(model.similarity(image_embeddings, text_embeddings))
"""
