"""Image towers in transformers: the same embeddings, and pixels of the same pictures."""

import itertools
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from littune.apps.export.hf.image import clip_processor, image_model, shifted_crop, write_image_model
from littune.apps.export.hf.saving import load_arguments, quietly
from littune.base.errors import InputError
from littune.towers.image.from_timm import TimmTrunk, build_timm
from littune.towers.image.tower import ImageTower
from tests.apps.export.drawn_models import image_tower, pictures, preprocess_to, vit_trunk

SIZES = [(200, 261), (260, 200), (333, 201), (201, 334), (240, 240), (50, 41)]


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *itertools.product(["vit", "clip", "test_vit"], ["own", "cls", "mean", "cls+mean"]),
        *itertools.product(["test_resnet", "swin"], ["own", "mean"]),
    ],
)
def test_gives_the_towers_embeddings(kind: str, pooling: str) -> None:
    tower = image_tower(kind, pooling)
    pixels = torch.stack([tower.preprocess(picture) for picture in pictures()])
    found = image_model(tower).embed(tower.preprocess.normalize(pixels))
    torch.testing.assert_close(found, tower.encode(pixels), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["test_vit", "test_resnet", "vit", "clip"])
def test_a_folder_loads_with_its_weights_and_its_processor(kind: str, tmp_path: Path) -> None:
    tower = image_tower(kind)
    image = image_model(tower)
    write_image_model(image, tmp_path)
    with quietly():
        loaded = transformers.AutoModel.from_pretrained(tmp_path, **load_arguments(image.model)).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(image.model)
    for name, value in image.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    found = processor(pictures(), return_tensors="pt").pixel_values
    expected = tower.preprocess.normalize(torch.stack([tower.preprocess(picture) for picture in pictures()]))
    # Two steps of 255 where resampling is torchvision's, else none to speak of.
    torch.testing.assert_close(found, expected, atol=2.1 / 255 / 0.2, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "fit"), [(182, "short"), (160, "short"), (160, "stretch"), (182, "stretch")])
def test_timms_transforms_cut_as_littune_does(size: tuple[int, int], resize: int, fit: str, tmp_path: Path) -> None:
    trunk = build_timm({"kind": "timm", "name": "test_resnet", "num_classes": 0})
    preprocess = preprocess_to(160, resize, fit)
    image = image_model(ImageTower(spec="timm:x", trunk=trunk, preprocess=preprocess))
    assert shifted_crop(image) == ()
    write_image_model(image, tmp_path)
    with quietly():
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    (picture,) = pictures([size])
    found = processor(picture, return_tensors="pt").pixel_values
    torch.testing.assert_close(found, preprocess.normalize(preprocess(picture)[None]), atol=2.1 / 255 / 0.2, rtol=0)


def test_a_crop_of_transformers_may_be_one_pixel_to_the_side() -> None:
    image = image_model(image_tower("clip"))
    assert shifted_crop(image) == (
        "transformers' image processor may cut a picture one pixel to the side of where littune cuts it",
    )
    processor = transformers.CLIPImageProcessor(**clip_processor(image.preprocess))
    # 40 is resized to; 8 are cut off below and above, 11 on the sides: 5 on the left there, 6 here.
    (picture,) = pictures([(43 * 5, 40 * 5)])
    found = processor(picture, return_tensors="pt").pixel_values
    ours = image.preprocess.normalize(image.preprocess(picture)[None])
    assert not torch.allclose(found, ours, atol=2.1 / 255 / 0.2)
    torch.testing.assert_close(found[..., 1:], ours[..., :-1], atol=2.1 / 255 / 0.2, rtol=0)


def test_a_tower_stays_as_it_was_and_keeps_its_classifier() -> None:
    tower = image_tower("test_vit")
    model = image_model(tower).model
    assert tower.trunk.head(), "the classifier is gone"
    before = tower.trunk.digest()
    for weight in model.parameters():
        nn.init.zeros_(weight)
    assert tower.trunk.digest() == before


def test_what_timm_was_told_is_told_again() -> None:
    recipe = {"kind": "timm", "name": "test_vit", "num_classes": 0, "options": {"act_layer": "gelu_tanh"}}
    tower = ImageTower(spec="timm:x", trunk=build_timm(recipe), preprocess=preprocess_to(160, 160))
    assert image_model(tower).model.config.model_args == {"act_layer": "gelu_tanh"}


def test_another_kind_of_tower_is_one_clear_line() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    tower = ImageTower.from_module(flat, preprocess=preprocess_to(8, 8), name="mine")
    with pytest.raises(InputError, match="the image tower mine is neither timm's nor transformers'"):
        image_model(tower)


def test_a_model_that_timm_would_not_make_again_is_one_clear_line() -> None:
    trunk = build_timm({"kind": "timm", "name": "test_vit", "num_classes": 0})
    assert isinstance(trunk, TimmTrunk)
    trunk.name = "test_resnet"
    tower = ImageTower(spec="timm:test_vit", trunk=trunk, preprocess=preprocess_to(160, 160))
    with pytest.raises(InputError, match="timm makes another model of the image tower timm:test_vit now"):
        image_model(tower)


def test_a_model_that_pools_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = vit_trunk(has_pooler=True)
    tower = ImageTower(spec="hf:x", trunk=trunk, preprocess=preprocess_to(32, 32))
    monkeypatch.setattr(type(trunk), "own", lambda self, images: torch.ones(len(images), 48))
    with pytest.raises(InputError, match="ViTModel of transformers pools otherwise than the image tower hf:x"):
        image_model(tower)
