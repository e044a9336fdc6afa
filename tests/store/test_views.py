from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from littune.base.errors import InputError
from littune.store.views import Views, views_of
from littune.towers.image.preprocess import Preprocess
from tests.store.conftest import pair

PREPROCESS = Preprocess(size=8, resize=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8))


def drawn(picture: Image.Image, key: int = 0, source: str = "a", num: int = 2, seed: int = 0) -> Sequence[np.ndarray]:
    views = Views(num=num, augment="inception", flip=True, seed=seed)
    return [view.numpy() for view in views.of(picture, pair(key, source), PREPROCESS)]


def test_a_view_follows_from_seed_number_part_and_key_alone(picture: Image.Image) -> None:
    first, second = drawn(picture)
    assert first.shape == (3, 8, 8)
    np.testing.assert_array_equal(drawn(picture, num=1)[0], first)
    for other in (second, *drawn(picture, key=1), *drawn(picture, source="b"), *drawn(picture, seed=1)):
        assert (other != first).any()


def test_flips_alone_give_the_picture_or_its_mirror_image(picture: Image.Image) -> None:
    plain = PREPROCESS(picture).numpy()
    views = Views(num=20, augment="none", flip=True, seed=0).of(picture, pair(0), PREPROCESS)
    mirrored = [bool((view.numpy() == plain[:, :, ::-1]).all()) for view in views]
    assert 0 < sum(mirrored) < 20
    assert all(flip or (view.numpy() == plain).all() for flip, view in zip(mirrored, views, strict=True))


def test_a_plain_resize_sees_the_whole_picture(picture: Image.Image) -> None:
    (view,) = Views(num=1, augment="resize", flip=False, seed=0).of(picture, pair(0), PREPROCESS)
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), expected)


def test_none_are_none() -> None:
    assert views_of(0, "none", flip=False, seed=3) is None
    assert str(views_of(2, "inception", flip=True, seed=3)) == "2 (inception, flip, seed 3)"


@pytest.mark.parametrize(
    ("num", "augment", "flip", "message"),
    [
        (0, "inception", False, "augment inception goes with views"),
        (0, "none", True, "flip goes with views"),
        (-1, "inception", False, "views is -1"),
        (1, "none", False, "would repeat one picture"),
        (2, "resize", False, "would repeat one picture"),
    ],
)
def test_what_makes_no_sense_says_so(num: int, augment: str, flip: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        views_of(num, augment, flip=flip, seed=0)
