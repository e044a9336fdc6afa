import pytest
import timm
import torch
from torch import Tensor, nn

from littune.towers.image.folding import folded


def draw_statistics(module: nn.Module) -> nn.Module:
    """Running statistics as training would leave them: fresh ones make folding trivial."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.5, generator=generator)
            layer.running_var.uniform_(0.3, 3, generator=generator)
            layer.weight.data.uniform_(0.5, 2, generator=generator)
            layer.bias.data.normal_(0, 0.5, generator=generator)
    return module.eval()


def count(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv3_small_050"])
@torch.no_grad()
def test_timm_models_say_the_same_without_normalisations(name: str) -> None:
    model = draw_statistics(timm.create_model(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trial, other = torch.randn(1, 3, 64, 64), torch.randn(2, 3, 96, 96)
    result = folded(model, lambda module: module(trial))
    assert count(model) > 0 and count(result) == 0
    expected = model(other)
    torch.testing.assert_close(result(other), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@torch.no_grad()
def test_plain_layers_with_and_without_bias_and_affine() -> None:
    model = draw_statistics(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)
        )
    )
    model.append(nn.Conv2d(5, 2, 1)).append(nn.BatchNorm2d(2, affine=False)).eval()
    images = torch.randn(2, 3, 8, 8)
    result = folded(model, lambda module: module(images))
    assert count(result) == 0
    torch.testing.assert_close(result(images), model(images))


def test_a_model_without_normalisations_is_returned_itself() -> None:
    model = nn.Conv2d(3, 4, 3)
    assert folded(model, lambda module: module(torch.zeros(1, 3, 4, 4))) is model


class TwoReaders(nn.Module):
    """Reads its convolution's output beside the normalisation, so that folding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        output = self.conv(images)
        return output + self.norm(output)


class LooksInside(nn.Module):
    """Uses its normalisation's numbers, which folding would take away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)) * self.norm.weight.view(-1, 1, 1)


@pytest.mark.parametrize("module_class", [TwoReaders, LooksInside])
@torch.no_grad()
def test_what_folding_would_change_stays_as_it_was(module_class: type[nn.Module]) -> None:
    model = draw_statistics(module_class())
    images = torch.randn(1, 3, 4, 4)
    assert folded(model, lambda module: module(images)) is model


@torch.no_grad()
def test_the_first_convolutions_stay_in_float32_under_autocast() -> None:
    convolutions = [layer for _ in range(4) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))]
    model = draw_statistics(nn.Sequential(*convolutions))
    images = torch.randn(1, 3, 4, 4)
    result = folded(model, lambda module: module(images))
    kinds = []
    for layer in result.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        result(images)
    assert kinds == [torch.float32, torch.float32, torch.float32, torch.bfloat16]
