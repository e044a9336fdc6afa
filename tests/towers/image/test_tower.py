import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from littune.base.errors import InputError
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.tower import Identity, ImageTower, Preprocess

PREPROCESS = Preprocess(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Patches(nn.Module):
    """Each 4 × 4 patch's mean colour as a token, after ``num_prefix`` tokens of ones."""

    def __init__(self, num_prefix: int = 0) -> None:
        super().__init__()
        self.pool, self.num_prefix = nn.AvgPool2d(4), num_prefix

    def forward(self, images: Tensor) -> Tensor:
        patches = self.pool(images).flatten(2).transpose(1, 2)
        return torch.cat([torch.ones(len(images), self.num_prefix, 3), patches], dim=1)


def pixels(count: int = 2, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def timm_tower(name: str = "test_vit", pooling: str = "own") -> ImageTower:
    torch.manual_seed(0)
    preprocess = Preprocess(size=160, resize=160, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return ImageTower(spec=name, trunk=TimmTrunk(timm.create_model(name), name), preprocess=preprocess, pooling=pooling)


def test_any_module_gives_its_own_output_in_float32_without_gradients() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Dropout(0.9))
    tower = ImageTower.from_module(module, preprocess=PREPROCESS, name="mine")
    embeddings = tower.encode(pixels())
    assert tower.dim == 5 and tower.spec == "mine" and tower.pooling == "own" and tower.classifier is None
    torch.testing.assert_close(embeddings, module[1](PREPROCESS.normalize(pixels()).flatten(1)))
    assert not embeddings.requires_grad and not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("num_prefix", [1, 3])
def test_poolings_of_tokens(num_prefix: int) -> None:
    def embed(pooling: str) -> Tensor:
        return ImageTower.from_module(
            Patches(num_prefix), preprocess=PREPROCESS, name="p", pooling=pooling, num_prefix_tokens=num_prefix
        ).encode(pixels())

    mean = PREPROCESS.normalize(pixels()).mean(dim=(2, 3))
    torch.testing.assert_close(embed("cls"), torch.ones(2, 3))
    torch.testing.assert_close(embed("mean"), mean)
    torch.testing.assert_close(embed("cls+mean"), torch.cat([torch.ones(2, 3), mean], dim=1))


def test_mean_of_a_map() -> None:
    tower = ImageTower.from_module(nn.AvgPool2d(2), preprocess=PREPROCESS, name="map", pooling="mean")
    torch.testing.assert_close(tower.encode(pixels()), PREPROCESS.normalize(pixels()).mean(dim=(2, 3)))


@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_no_class_token_is_an_error(pooling: str) -> None:
    with pytest.raises(InputError, match="image tower 'p' has no class token; pool with own or mean"):
        ImageTower.from_module(Patches(), preprocess=PREPROCESS, name="p", pooling=pooling)
    with pytest.raises(InputError, match="image tower 'test_resnet' has no class token; pool with own or mean"):
        timm_tower("test_resnet", pooling)


def test_unusable_modules_and_poolings_are_named() -> None:
    with pytest.raises(InputError, match="pooling 'max' is unknown; choose one of own, cls, mean"):
        ImageTower.from_module(Patches(), preprocess=PREPROCESS, name="p", pooling="max")
    with pytest.raises(InputError, match=r"'p' does not run .*pooling own needs an output of shape \(n, d\)"):
        ImageTower.from_module(Patches(), preprocess=PREPROCESS, name="p")
    with pytest.raises(InputError, match=r"'l' does not run on images of shape \(1, 3, 8, 8\)"):
        ImageTower.from_module(nn.Linear(7, 7), preprocess=PREPROCESS, name="l")


def test_devices_and_precisions() -> None:
    tower = timm_tower()
    assert str(tower.device) == "cpu" and tower.precision in ("float32", "bfloat16")
    assert tower.to("cpu", "bfloat16").precision == "bfloat16"
    assert tower.to("cpu", "float32").precision == "float32"
    with pytest.raises(InputError, match="precision 'half' is unknown"):
        tower.to("cpu", "half")
    with pytest.raises(InputError, match="device 'nonsense'"):
        tower.to("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda' cannot be used here"):
            tower.to("cuda")
    assert tower.encode(pixels(1, 160)).shape == (1, 64)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_bfloat16_stays_close_to_float32(name: str) -> None:
    tower = timm_tower(name)
    exact = tower.to("cpu", "float32").encode(pixels(2, 160))
    rough = tower.to("cpu", "bfloat16").encode(pixels(2, 160))
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert torch.cosine_similarity(exact, rough).min() > 0.999


def test_a_batch_is_embedded_as_its_images_are() -> None:
    tower = timm_tower("test_resnet").to("cpu", "float32")
    batch = tower.encode(pixels(3, 160))
    single = torch.cat([tower.encode(pixels(3, 160)[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(batch, single, rtol=1e-4, atol=1e-5)


def test_identity_is_of_the_weights_without_the_classifier() -> None:
    first, second = timm_tower(), timm_tower()
    assert first.identity == second.identity and len(first.identity.weights) == 64

    with torch.no_grad():
        second.module.head.weight.add_(1)
    again = ImageTower(spec="again", trunk=TimmTrunk(second.module, "test_vit"), preprocess=second.preprocess)
    assert again.identity == first.identity

    with torch.no_grad():
        second.module.cls_token.add_(1e-3)
    other = ImageTower(spec="other", trunk=TimmTrunk(second.module, "test_vit"), preprocess=second.preprocess)
    assert other.identity.weights != first.identity.weights
    assert len(first.identity.differences(other.identity)) == 1


def test_identity_does_not_hang_on_folding_or_memory_layout() -> None:
    tower = timm_tower("test_convnext")
    moved = tower.module.to(memory_format=torch.channels_last)
    again = ImageTower(spec="again", trunk=TimmTrunk(moved, "test_convnext"), preprocess=tower.preprocess)
    assert again.identity == tower.identity


def test_differences_of_identities() -> None:
    identity = Identity(weights="a" * 64, pooling="own", dim=4, preprocess="b" * 64)
    assert identity.differences(identity) == []
    assert identity.differences(Identity(weights="a" * 64, pooling="own", dim=4)) == []
    other = Identity(weights="c" * 64, pooling="mean", dim=5, preprocess="d" * 64)
    assert [text.split(" (")[0] for text in identity.differences(other)] == [
        "other weights",
        "another pooling",
        "another number of dimensions",
        "another preprocessing",
    ]
    assert Identity.from_dict(json.loads(json.dumps(identity.to_dict()))) == identity
    with pytest.raises(InputError, match="is not littune's"):
        Identity.from_dict({"weights": "a"})


def test_classifier_gives_the_models_logits() -> None:
    tower = timm_tower("test_resnet").to("cpu", "float32")
    classifier = tower.classifier
    assert classifier is not None and classifier.bias is not None and classifier.label_set == "imagenet-1k"
    with torch.no_grad():
        expected = tower.module(tower.preprocess.normalize(pixels(2, 160)))
    logits = tower.encode(pixels(2, 160)) @ classifier.weight.T + classifier.bias
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert timm_tower("test_resnet", "mean").classifier is None


def test_a_modules_weights_cannot_be_bundled(tmp_path: Path) -> None:
    tower = ImageTower.from_module(nn.Flatten(), preprocess=PREPROCESS, name="mine")
    with pytest.raises(InputError, match="'mine' cannot be bundled"):
        tower.save_weights(tmp_path / "tower.safetensors")
