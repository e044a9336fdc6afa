import json

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from littune.base.errors import InputError
from littune.towers.image.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(301, 200), (200, 301), (97, 97), (64, 64), (500, 33), (48, 40)]


def noise(width: int, height: int) -> Image.Image:
    """The picture on which resampling shows most."""
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mode", "fit"), [("center", "short"), ("squash", "stretch")], ids=["short", "stretch"])
@pytest.mark.parametrize("crop", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_gives_the_tensor_of_timms_transform(
    shape: tuple[int, int], mode: str, fit: str, crop: float, interpolation: str
) -> None:
    size = 64
    preprocess = Preprocess(
        size=size, resize=int(size / crop), fit=fit, interpolation=interpolation, mean=MEAN, std=STD
    )
    transform = timm.data.create_transform(
        (3, size, size), crop_pct=crop, crop_mode=mode, interpolation=interpolation, mean=MEAN, std=STD
    )
    picture = noise(*shape)
    ours, theirs = preprocess.normalize(preprocess(picture)[None])[0], transform(picture)
    # Pillow keeps the box in float32, which decides rounding where it is close to a tie.
    assert (ours - theirs).abs().max() <= 1.01 / 255 / min(STD)
    assert ((ours - theirs).abs() > 1e-5).float().mean() < 0.05


def test_pixels_are_bytes_of_a_square() -> None:
    pixels = Preprocess(size=32, resize=36, mean=MEAN, std=STD)(noise(50, 40))
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32)


def test_normalization_by_hand() -> None:
    preprocess = Preprocess(size=1, resize=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    assert preprocess.normalize(pixels).flatten().tolist() == pytest.approx([0.0, 1.0, (0.2 - 1) / 0.25])


def test_normalization_does_not_depend_on_the_order_in_memory() -> None:
    preprocess = Preprocess(size=4, resize=4, mean=MEAN, std=STD)
    pixels = torch.arange(2 * 3 * 16, dtype=torch.uint8).view(2, 3, 4, 4)
    channels_last = preprocess.normalize(pixels.contiguous(memory_format=torch.channels_last))
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(channels_last, preprocess.normalize(pixels))


def test_other_modes_become_rgb() -> None:
    preprocess = Preprocess(size=2, resize=2, mean=MEAN, std=STD)
    assert preprocess(Image.new("L", (5, 5), 7)).unique().tolist() == [7]


def test_a_very_long_picture_costs_no_more_than_its_middle() -> None:
    picture = Image.new("RGB", (60_000, 1), (10, 20, 30))
    pixels = Preprocess(size=224, resize=256, mean=MEAN, std=STD)(picture)
    assert pixels.flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


def test_survives_json() -> None:
    preprocess = Preprocess(size=4, resize=5, fit="stretch", interpolation="bilinear", mean=MEAN, std=STD)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_unusable_settings_are_named() -> None:
    with pytest.raises(InputError, match="size 5 must be from 1 to resize, which is 4"):
        Preprocess(size=5, resize=4, mean=MEAN, std=STD)
    with pytest.raises(InputError, match="fit 'long' is unknown; choose one of short, stretch"):
        Preprocess(size=4, resize=4, fit="long", mean=MEAN, std=STD)
    with pytest.raises(InputError, match="interpolation 'cubic' is unknown"):
        Preprocess(size=4, resize=4, interpolation="cubic", mean=MEAN, std=STD)
    with pytest.raises(InputError, match="std above 0"):
        Preprocess(size=4, resize=4, mean=MEAN, std=(0.0, 1.0, 1.0))
    with pytest.raises(InputError, match="is not littune's"):
        Preprocess.from_dict({"size": 4})
