"""VisionTextDualEncoder: it says what the model says, or is refused with the reason."""

import pytest
import torch
from torch import nn

from littune.apps.export.hf.dual_encoder import CannotHoldError, dual_encoder, without_bias
from littune.apps.export.hf.image import image_model
from littune.config import Heads
from littune.model.lit import LiT
from tests.apps.export.drawn_models import TEXTS, image_tower, lit, minimal_cosine, pictures, text_tower


def held(model: LiT) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and texts as the dual encoder embeds them."""
    tower = model.image_tower
    dual = dual_encoder(model, image_model(tower))
    ids, mask = model.text.tokenize(TEXTS).batch(range(len(TEXTS)))
    pixels = tower.preprocess.normalize(torch.stack([tower.preprocess(picture) for picture in pictures()]))
    with torch.no_grad():
        found = dual(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels)
    logits = model.logit_scale * model.encode_image(pictures()) @ model.encode_text(TEXTS).T
    torch.testing.assert_close(found.logits_per_image, torch.from_numpy(logits), atol=2e-3, rtol=0)
    return found.image_embeds, found.text_embeds


@pytest.mark.parametrize("heads", ["text", "both"])
@pytest.mark.parametrize("image", ["vit", "clip", "test_vit", "test_convnext"])
def test_a_centre_and_the_biases_of_heads_are_kept(image: str, heads: Heads) -> None:
    """Texts have 32 dimensions, images 48 or 64, so that a bias lies outside what a projection alone can reach."""
    model = lit(text_tower("bert", "first"), image_tower(image), heads)
    images, texts = held(model)
    assert minimal_cosine(images, model.encode_image(pictures())) > 0.99999
    assert minimal_cosine(texts, model.encode_text(TEXTS)) > 0.99999


def test_the_papers_text_transformer_fits_too() -> None:
    model = lit(text_tower("scratch", "first"), image_tower("vit"))
    assert minimal_cosine(held(model)[1], model.encode_text(TEXTS)) > 0.99999


def test_a_tower_that_ends_in_attention_pooling_has_its_centre_subtracted() -> None:
    model = lit(text_tower("bert", "first"), image_tower("test_vit3"))
    assert minimal_cosine(held(model)[0], model.encode_image(pictures())) > 0.99999


def test_the_model_stays_as_it_was() -> None:
    model = lit(text_tower("bert", "first"), image_tower("test_vit"), "both")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image, text = model.image_tower.trunk.digest(), model.text.identity
    dual_encoder(model, image_model(model.image_tower))
    assert (model.image_tower.trunk.digest(), model.text.identity) == (image, text)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_without_bias_is_the_same_line_on_a_normalisations_outputs(offset: float) -> None:
    torch.manual_seed(0)
    norm, head = nn.LayerNorm(12), nn.Linear(12, 30)
    nn.init.normal_(norm.weight, mean=1, std=0.3)
    nn.init.normal_(norm.bias, mean=offset)
    nn.init.normal_(head.bias, std=3)
    rows = norm(torch.randn(50, 12) * 4 + 1)
    weight, shift = without_bias(head.weight, head.bias, norm)
    torch.testing.assert_close((rows + shift) @ weight.T, head(rows), atol=1e-4, rtol=1e-4)
    assert torch.linalg.matrix_rank(torch.cat([head.weight, head.bias[:, None]], dim=1)) == 13, "the bias is in reach"


@pytest.mark.parametrize(
    ("text", "image", "reason"),
    [
        (("bert", "mean"), "test_vit", "its text tower pools 'mean', a pooler of transformers the first token"),
        (("scratch", "last"), "test_vit", "its text tower pools 'last'"),
        (("bert", "first"), "test_resnet", "its image tower does not end where a centre could be subtracted"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(text: tuple[str, str], image: str, reason: str) -> None:
    model = lit(text_tower(*text), image_tower(image))
    with pytest.raises(CannotHoldError, match=reason):
        dual_encoder(model, image_model(model.image_tower))


def test_a_text_tower_that_reads_padding_is_refused() -> None:
    model = lit(text_tower("scratch", "first", padded=True), image_tower("test_vit"))
    with pytest.raises(CannotHoldError, match="reads padding"):
        dual_encoder(model, image_model(model.image_tower))


def test_a_pooling_that_is_not_the_models_own_is_refused() -> None:
    model = lit(text_tower("bert", "first"), image_tower("test_vit", "mean"))
    with pytest.raises(CannotHoldError, match="its image tower pools 'mean', not as TimmWrapperModel does itself"):
        dual_encoder(model, image_model(model.image_tower))


def test_what_would_say_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.apps.export.hf.dual_encoder._SMALL", 10.0)  # where a tanh is no line
    model = lit(text_tower("bert", "first"), image_tower("test_vit"))
    with pytest.raises(CannotHoldError, match="its text tower would not say the same"):
        dual_encoder(model, image_model(model.image_tower))
