"""Published image towers against timm's own reader of the family, with the GELU that they were trained with."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from littune.base.errors import InputError
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from tests.towers.lit.checkpoints import PUBLISHED, VARIANTS, Array, Sizes, draw, save


def load(path: Path) -> ImageTower:
    return load_image_tower(f"lit:{path}", precision="float32")


def by_timm(arrays: dict[str, Array], sizes: Sizes, act_layer: str = "gelu_tanh") -> torch.nn.Module:
    """timm's ViT with what timm's reader makes of the arrays, under the names that it knows for each generation."""
    model = timm.create_model(
        "vit_base_patch16_224",
        img_size=16 * sizes.grid,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        no_embed_class=not sizes.class_position,
        act_layer=act_layer,
        num_classes=0,
    )
    arrays = {name: array for name, array in arrays.items() if name.startswith("img/")}
    if not sizes.old_image:  # timm knows the new names from big_vision, where positions are kept elsewhere
        arrays["img/pos_embedding"] = arrays.pop("img/Transformer/posembed_input/pos_embedding")
        arrays = {f"params/{name}": array for name, array in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    model.load_pretrained(file, prefix="img/" if sizes.old_image else "")
    return model.eval()


def pixels_and_images(sizes: Sizes, num: int = 3) -> tuple[Tensor, Tensor]:
    side = 16 * sizes.grid
    pixels = torch.randint(256, (num, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return pixels, pixels.float() / 127.5 - 1


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_what_timm_reads(name: str, tmp_path: Path) -> None:
    sizes = VARIANTS[name]
    tower = load(save(tmp_path, sizes))
    pixels, images = pixels_and_images(sizes)
    model = by_timm(draw(sizes), sizes)
    with torch.no_grad():
        expected = model.forward_features(images)
    torch.testing.assert_close(tower.encode(pixels), expected[:, 0], atol=1e-5, rtol=0)
    with torch.no_grad():
        exact = by_timm(draw(sizes), sizes, "gelu").forward_features(images)
    assert (tower.encode(pixels) - exact[:, 0]).abs().max() > 1e-5  # the wrong GELU would be seen


@pytest.mark.slow
def test_a_published_size_is_what_timm_reads(tmp_path: Path) -> None:
    sizes = replace(PUBLISHED["LiT-B16B"], text_depth=1)
    tower = load(save(tmp_path, sizes))
    assert (tower.dim, tower.preprocess.size) == (768, 224)
    pixels, images = pixels_and_images(sizes)
    with torch.no_grad():
        expected = by_timm(draw(sizes), sizes).forward_features(images)
    torch.testing.assert_close(tower.encode(pixels), expected[:, 0], atol=1e-5, rtol=0)


def test_pictures_are_stretched_onto_minus_one_to_one(tmp_path: Path) -> None:
    tower = load(save(tmp_path, VARIANTS["LiT-B16B"]))
    picture = Image.new("RGB", (90, 30), (255, 0, 0))
    picture.paste((0, 0, 255), (45, 0, 90, 30))
    images = tower.preprocess.normalize(tower.preprocess(picture)[None])
    assert images.shape == (1, 3, 32, 32)
    assert images[0, :, 5, 2].tolist() == [1, -1, -1]
    assert images[0, :, 5, 29].tolist() == [-1, -1, 1]


def test_it_can_be_bundled(tmp_path: Path) -> None:
    path = save(tmp_path, VARIANTS["no position for the class token"])
    tower = load(path)
    tower.save_weights(tmp_path / "image_tower.safetensors")
    path.unlink()
    again = load_image_tower(f"lit:{path}", weights=tmp_path / "image_tower.safetensors", precision="float32")
    pixels, _ = pixels_and_images(VARIANTS["LiT-B16B"])
    assert torch.equal(again.encode(pixels), tower.encode(pixels))
    assert again.identity == tower.identity


def test_a_vocabulary_in_the_spec_is_not_needed(tmp_path: Path) -> None:
    path = save(tmp_path, VARIANTS["LiT-B16B"])
    path.with_suffix(".txt").unlink()
    assert load_image_tower(f"lit:{path}@{tmp_path / 'none.txt'}").dim == 32


def test_names_that_are_wrong_missing_or_left_over(tmp_path: Path) -> None:
    sizes = VARIANTS["LiT-B16B"]
    names = [name for name in draw(sizes) if name.startswith("img/") and name != "img/head/bias"]
    for name in names:
        arrays = draw(sizes)
        arrays[f"{name}s"] = arrays.pop(name)
        path = save(tmp_path, sizes, arrays)
        with pytest.raises(InputError, match=rf"model.npz lacks {name}"):
            load(path)
    path = save(tmp_path, sizes, draw(sizes) | {"img/pre_logits/bias": np.zeros(4, np.float32)})
    with pytest.raises(InputError, match=r"model.npz holds img/pre_logits/bias, which is no part of such"):
        load(path)


def test_shapes_that_do_not_go_together(tmp_path: Path) -> None:
    sizes = VARIANTS["LiT-B16B"]
    name = "img/Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel"
    path = save(tmp_path, sizes, draw(sizes) | {name: np.zeros((32, 64), np.float32)})
    with pytest.raises(InputError, match=rf"{name} has the shape \(32, 64\); with the others it must be \(32, 128\)"):
        load(path)


def test_a_checkpoint_without_an_image_tower(tmp_path: Path) -> None:
    sizes = VARIANTS["LiT-B16B"]
    path = save(tmp_path, sizes, {name: array for name, array in draw(sizes).items() if not name.startswith("img/")})
    with pytest.raises(InputError, match=r"model.npz lacks img/embedding/kernel: it is no LiT checkpoint"):
        load(path)
