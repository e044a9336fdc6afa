import math

import numpy as np
import pytest
import torch
from PIL import Image

from littune.towers.image.augment import augmented, inception_box
from littune.towers.image.preprocess import Preprocess

PREPROCESS = Preprocess(size=32, resize=40, interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SHAPES = [(300, 200), (200, 300), (64, 64), (500, 33), (33, 500), (1, 1), (7, 3)]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def view(picture: Image.Image, seed: int, augment: str, *, flip: bool = False) -> torch.Tensor:
    return augmented(picture, PREPROCESS, np.random.default_rng(seed), augment=augment, flip=flip)


@pytest.mark.parametrize("shape", SHAPES)
def test_none_is_the_towers_own_preprocessing(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    assert torch.equal(view(picture, 0, "none"), PREPROCESS(picture))


@pytest.mark.parametrize("shape", SHAPES)
def test_resize_stretches_the_whole_picture(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(view(picture, 0, "resize").permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_inception_crop_is_a_resized_box(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    box = inception_box(*shape, np.random.default_rng(3))
    expected = picture.resize((32, 32), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(view(picture, 3, "inception").permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("shape", [*SHAPES, (80, 3), (3, 80), (20, 1)])
def test_boxes_lie_in_the_picture_and_are_as_large_and_wide_as_they_may_be(shape: tuple[int, int]) -> None:
    width, height = shape
    random = np.random.default_rng(0)
    for _ in range(500):
        left, upper, right, lower = inception_box(width, height, random)
        assert 0 <= left < right <= width and 0 <= upper < lower <= height
        area = (right - left) * (lower - upper) / (width * height)
        aspect = (right - left) / (lower - upper)
        assert area * (1 + 1e-6) >= 0.05 and area <= 1
        assert 3 / 4 - 1e-6 <= aspect <= 4 / 3 + 1e-6 or (left, upper, right, lower) == (0, 0, width, height)


def drawn_by_retrying(width: int, height: int, random: np.random.Generator) -> tuple[float, float]:
    """The area and aspect as TensorFlow draws them, without rounding to whole pixels: until a box fits."""
    for _ in range(100):
        aspect = random.uniform(3 / 4, 4 / 3)
        smallest = math.sqrt(0.05 * width * height / aspect)
        largest = min(math.sqrt(width * height / aspect), height, width / aspect)
        if smallest <= largest:
            high = random.uniform(smallest, largest)
            return high * high * aspect / (width * height), aspect
    raise AssertionError("no box fits")


@pytest.mark.parametrize("shape", [(300, 200), (100, 100), (250, 10)])
def test_boxes_are_drawn_as_by_retrying(shape: tuple[int, int]) -> None:
    random, num = np.random.default_rng(0), 4000
    boxes = np.array([inception_box(*shape, random) for _ in range(num)])
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ours = np.stack([wide * high / (shape[0] * shape[1]), wide / high], axis=1)
    theirs = np.array([drawn_by_retrying(*shape, random) for _ in range(num)])
    quantiles = np.linspace(0.02, 0.98, 25)
    distance = np.abs(np.quantile(ours, quantiles, axis=0) - np.quantile(theirs, quantiles, axis=0))
    # About four standard errors of a quantile of 4,000 draws, over the spread.
    assert (distance / theirs.std(axis=0)).max() < 0.15


def test_boxes_lie_anywhere_in_the_room_there_is() -> None:
    random = np.random.default_rng(0)
    places = []
    for _ in range(4000):
        left, upper, right, lower = inception_box(300, 200, random)
        places.append((left / (300 - (right - left)), upper / (200 - (lower - upper))))
    assert np.abs(np.mean(places, axis=0) - 0.5).max() < 0.03
    assert np.abs(np.std(places, axis=0) - 1 / math.sqrt(12)).max() < 0.02


@pytest.mark.parametrize("shape", [(2000, 10), (10, 2000)])
def test_a_picture_too_long_for_any_box_is_seen_whole(shape: tuple[int, int]) -> None:
    assert inception_box(*shape, np.random.default_rng(0)) == (0, 0, *shape)


@pytest.mark.parametrize("augment", ["none", "resize", "inception"])
def test_a_view_follows_from_the_generator(augment: str) -> None:
    picture = noise(90, 70)
    views = [view(picture, seed, augment, flip=True) for seed in (0, 0, 1, 2, 3, 4, 5)]
    assert torch.equal(views[0], views[1])
    assert len({each.numpy().tobytes() for each in views}) == (6 if augment == "inception" else 2)


def test_every_other_picture_is_mirrored() -> None:
    picture = noise(90, 70)
    plain = view(picture, 0, "resize")
    mirrored = [view(picture, seed, "resize", flip=True) for seed in range(400)]
    count = sum(not torch.equal(each, plain) for each in mirrored)
    assert all(torch.equal(each, plain) or torch.equal(each, plain.flip(2)) for each in mirrored)
    assert 150 < count < 250


@pytest.mark.parametrize("flip", [False, True])
def test_pixels_lie_in_memory_as_those_of_the_picture(flip: bool) -> None:
    for seed in range(4):
        pixels = view(noise(90, 70), seed, "inception", flip=flip)
        assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32)
        assert pixels.permute(1, 2, 0).is_contiguous()
