"""A model as transformers' VisionTextDualEncoder, which pipelines take, where that is exact.

    unit(projection(pooler_output))    for each tower; the projections have no bias, and a text's pooler has a tanh

A centre is subtracted in the last bias of the image tower. A head's bias goes where layer normalisation leaves room:
its outputs h = γ n + β lie in a plane, as the numbers n sum to 0, so that u . h with u = 1 / γ is one number κ for
every input, and W h + b = (W + b uᵀ / κ) h. The tanh is given inputs so small that float32 cannot tell it from a
line. What comes out is compared with the model, and is refused where it says anything else.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, VisionTextDualEncoderConfig, VisionTextDualEncoderModel, ViTModel

from littune.apps.export.hf.image import ImageModel
from littune.apps.export.hf.saving import quietly
from littune.apps.export.hf.text import text_model
from littune.base.errors import InputError, LittuneError
from littune.model.lit import LiT

# What a tanh may be given: it strays by a third of the square.
_SMALL = 1e-3
_COSINE = 1 - 1e-5
_TEXTS = ("a cat", "a photo of two dogs that run over the grass beside a red house", "7", "Über den Dächern von Prag")


class CannotHoldError(LittuneError):
    """The model does not fit into a VisionTextDualEncoder; the message says why."""


def dual_encoder(model: LiT, image: ImageModel) -> PreTrainedModel:
    """The model as a VisionTextDualEncoder, float32, on the CPU.

    Args:
        model: the model.
        image: its image tower.

    Raises:
        CannotHoldError: it would not say the same.
    """
    try:
        text, text_projection = _text_side(model)
    except InputError as error:
        raise CannotHoldError(str(error)) from error
    vision, image_projection = _image_side(model, image)
    config = VisionTextDualEncoderConfig(
        vision_config=vision.config.to_dict(), text_config=text.config.to_dict(), projection_dim=model.dim
    )
    with quietly():
        dual = VisionTextDualEncoderModel(config=config, vision_model=vision, text_model=text).eval()
    dual.text_projection.weight.data = text_projection
    dual.visual_projection.weight.data = image_projection
    dual.logit_scale.data = model.log_temperature.detach().cpu().float()
    _compare(dual, model, image)
    return dual


def without_bias(
    weight: Float[Tensor, "o d"], bias: Float[Tensor, " o"], norm: nn.LayerNorm
) -> tuple[Float[Tensor, "o d"], Float[Tensor, " d"]]:
    """A linear layer on the outputs of a layer normalisation as one without a bias.

    Returns:
        The weight, and what is to be added to the normalisation's outputs, so that they are far enough from 0.
    """
    weight, bias, gain, offset = (value.detach().cpu().double() for value in (weight, bias, norm.weight, norm.bias))
    direction = 1 / gain
    length = direction.norm()
    kappa = length * len(gain) ** 0.5
    shift = (kappa - direction @ offset) * direction / length**2
    moved = weight + torch.outer(bias - weight @ shift, direction) / kappa
    return moved.float(), shift.float()


def _text_side(model: LiT) -> tuple[PreTrainedModel, Tensor]:
    """A text model with a pooler that is a line, and the projection."""
    if model.text.padded:
        raise CannotHoldError("its text tower reads padding up to its full length, which pipelines do not give it")
    if model.text.pooling != "first":
        raise CannotHoldError(f"its text tower pools {model.text.pooling!r}, a pooler of transformers the first token")
    plain = text_model(model.text)
    try:
        text = type(plain)(copy.deepcopy(plain.config), add_pooling_layer=True).eval()
        dense = text.get_submodule("pooler.dense")
    except (TypeError, AttributeError) as error:
        raise CannotHoldError(f"{type(plain).__name__} has no pooler") from error
    text.load_state_dict(plain.state_dict(), strict=False)
    norm = _last_layer(text, lambda: _first_tokens(text, model), nn.LayerNorm)
    if not isinstance(norm, nn.LayerNorm):
        raise CannotHoldError(f"{type(plain).__name__} does not end in a layer normalisation")
    weight, shift = torch.eye(model.text.dim), torch.zeros(model.text.dim)
    if model.text_head is not None:
        weight, shift = without_bias(model.text_head.weight, model.text_head.bias, norm)
    largest = norm.weight.detach().abs() * model.text.dim**0.5 + (norm.bias.detach() + shift).abs()
    scale = _SMALL / float(largest.max())
    assert isinstance(dense, nn.Linear)
    dense.weight.data, dense.bias.data = scale * torch.eye(model.text.dim), scale * shift
    return text, weight / scale


def _image_side(model: LiT, image: ImageModel) -> tuple[PreTrainedModel, Tensor]:
    """A vision model whose last bias has the centre subtracted, and the projection."""
    vision = _with_linear_pooler(image)
    pixels = torch.rand(1, 3, image.preprocess.size, image.preprocess.size, generator=torch.Generator().manual_seed(1))
    kind = nn.Module if model.image_head is None else nn.LayerNorm
    last = _last_layer(vision, lambda: vision(pixel_values=pixels).pooler_output, kind)
    if last is None:
        raise CannotHoldError("its image tower does not end where a centre could be subtracted")
    weight, shift = torch.eye(model.dim), -model.center.detach().cpu()
    if model.image_head is not None:
        assert isinstance(last, nn.LayerNorm)
        head = model.image_head
        bias = head.bias - head.weight @ model.center
        weight, shift = without_bias(head.weight, bias, last)
    last.get_parameter("bias").data += shift
    return vision, weight


def _with_linear_pooler(image: ImageModel) -> PreTrainedModel:
    """A copy of the vision model whose ``pooler_output`` is the embedding."""
    vision = copy.deepcopy(image.model)
    if image.pooling == "pooler":
        return vision
    if image.pooling != "cls" or type(vision) is not ViTModel or vision.pooler is not None:
        raise CannotHoldError(f"its image tower pools {image.pooling!r}, not as {type(vision).__name__} does itself")
    config = copy.deepcopy(vision.config)
    config.pooler_act, config.pooler_output_size = "linear", config.hidden_size
    pooling = ViTModel(config, add_pooling_layer=True).eval()
    pooling.load_state_dict(vision.state_dict(), strict=False)
    pooling.pooler.dense.weight.data = torch.eye(config.hidden_size)
    pooling.pooler.dense.bias.data = torch.zeros(config.hidden_size)
    return pooling


@torch.no_grad()
def _last_layer(model: nn.Module, run: Callable[[], Float[Tensor, "n d"]], kind: type[nn.Module]) -> nn.Module | None:
    """The layer of a kind whose bias goes straight into the output; it is seen, not read off the code."""
    before = run()
    for layer in reversed(list(model.modules())):
        bias = getattr(layer, "bias", None)
        if not isinstance(layer, kind) or not isinstance(bias, nn.Parameter) or bias.shape != before.shape[1:]:
            continue
        kept = bias.data.clone()
        step = torch.linspace(-1, 1, len(bias)) * before.abs().max()
        bias.data += step
        moved = run() - before
        bias.data = kept
        if torch.allclose(moved, step.expand_as(moved), rtol=0, atol=1e-4 * float(step.abs().max())):
            return layer
    return None


def _first_tokens(text: PreTrainedModel, model: LiT) -> Float[Tensor, "n d"]:
    ids, mask = model.text.tokenize(_TEXTS).batch(range(len(_TEXTS)))
    return text(input_ids=ids, attention_mask=mask.long()).last_hidden_state[:, 0]  # type: ignore[no-any-return]


@torch.no_grad()
def _compare(dual: PreTrainedModel, model: LiT, image: ImageModel) -> None:
    """Check that the towers say what they said."""
    ids, mask = model.text.tokenize(_TEXTS).batch(range(len(_TEXTS)))
    shape = (2, 3, image.preprocess.size, image.preprocess.size)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = dual(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels)
    device = model.center.device
    texts = model.project_texts(model.text.embed(_TEXTS, precision="float32").to(device)).cpu()
    images = model.project_images(image.embed(pixels).to(device)).cpu()
    for what, rows, expected in (("text", found.text_embeds, texts), ("image", found.image_embeds, images)):
        if not bool(((rows * expected).sum(dim=1) >= _COSINE).all()):
            raise CannotHoldError(f"its {what} tower would not say the same")
