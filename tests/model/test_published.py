"""Published checkpoints as models: heads and temperature by hand, classification as with any run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.model.lit import LiT
from littune.model.published import load_published
from littune.towers.image.sources import load_image_tower
from littune.towers.text.sources import load_text_tower
from tests.towers.lit.checkpoints import TEXTS, VARIANTS, draw, save

LABELS = ["dog", "red ball", "bicycle"]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def unit(rows: np.ndarray) -> np.ndarray:
    unit_rows: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_towers_and_heads(name: str, tmp_path: Path) -> None:
    sizes, path = VARIANTS[name], save(tmp_path, VARIANTS[name])
    arrays = draw(sizes)
    model = LiT.load(f"lit:{path}", precision="float32")
    tower, text = load_image_tower(f"lit:{path}", precision="float32"), load_text_tower(f"lit:{path}")
    pixels = torch.stack([tower.preprocess(picture(0)), tower.preprocess(picture(1))])
    images = tower.encode(pixels).numpy()
    if sizes.image_head is not None:
        images = images @ arrays["img/head/kernel"] + arrays["img/head/bias"]
    texts = text.embed(TEXTS, precision="float32").numpy() @ arrays["txt/head/kernel"]
    texts = texts + arrays.get("txt/head/bias", 0)
    np.testing.assert_allclose(model.encode_image([picture(0), picture(1)]), unit(images), atol=1e-5)
    np.testing.assert_allclose(model.encode_text(TEXTS), unit(texts), atol=1e-5)
    assert model.logit_scale == pytest.approx(float(np.exp(arrays["t"][0])), rel=1e-6)
    assert model.dim == sizes.out_dim
    assert not model.center.any()
    assert model.bias is None


@pytest.mark.parametrize("name", ["LiT-B16B", "LiT-L16S"])
def test_classification_and_a_run_folder_that_stands_alone(name: str, tmp_path: Path) -> None:
    path = save(tmp_path, VARIANTS[name])
    model = LiT.load(f"lit:{path}", precision="float32")
    scores = model.classify(picture(2), LABELS, templates=["a {}"])
    assert {score.label for score in scores} == set(LABELS)
    assert sum(score.score for score in scores) == pytest.approx(1)
    cosines = model.encode_text([f"a {label}" for label in LABELS]) @ model.encode_image(picture(2))[0]
    assert scores[0].label == LABELS[int(cosines.argmax())]
    model.save(tmp_path / "run", bundle=True)
    for file in tmp_path.glob("model.*"):
        file.unlink()
    again = LiT.load(tmp_path / "run", precision="float32")
    assert again.classify(picture(2), LABELS, templates=["a {}"]) == scores
    assert again.reference.identity == model.reference.identity


def test_a_vocabulary_elsewhere(tmp_path: Path) -> None:
    path = save(tmp_path, VARIANTS["LiT-B16B"])
    expected = load_published(f"lit:{path}").text.identity
    moved = path.with_suffix(".txt").rename(tmp_path / "vocab.txt")
    with pytest.raises(InputError, match=r"the vocabulary .*model.txt of .* does not exist"):
        load_published(f"lit:{path}")
    assert load_published(f"lit:{path}@{moved}").text.identity == expected


@pytest.mark.parametrize("name", ["t", "txt/head/kernel", "img/head/kernel"])
def test_what_is_neither_tower_is_checked_too(name: str, tmp_path: Path) -> None:
    sizes = VARIANTS["LiT-B16B"]
    arrays = draw(sizes)
    del arrays[name]
    with pytest.raises(InputError, match=rf"model.npz lacks {name}"):
        load_published(f"lit:{save(tmp_path, sizes, arrays)}")
    shape = (3, *draw(sizes)[name].shape[1:])
    with pytest.raises(InputError, match=rf"{name} has the shape \(3,.*must be"):
        load_published(f"lit:{save(tmp_path, sizes, draw(sizes) | {name: np.zeros(shape, np.float32)})}")


def test_towers_of_two_spaces(tmp_path: Path) -> None:
    arrays = draw(VARIANTS["LiT-B16B"])
    del arrays["img/head/kernel"], arrays["img/head/bias"]
    path = save(tmp_path, VARIANTS["LiT-B16B"], arrays)
    with pytest.raises(MismatchError, match=r"model.npz has 32-d images and 40-d texts; its towers must agree"):
        load_published(f"lit:{path}")


@pytest.mark.parametrize("run", ["lit:", "lit:none.npz"])
def test_no_checkpoint(run: str) -> None:
    with pytest.raises(LittuneError, match=r"has no name|the checkpoint none.npz does not exist"):
        LiT.load(run)
