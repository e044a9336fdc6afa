from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from littune.base.errors import InputError
from littune.towers.image.from_open_clip import build_open_clip
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.image.trained import TrainedImageTower
from tests.open_clip_models import MODELS, drawn, in_folder, picture, registered

KINDS = [name for name in MODELS if name not in ("tiny-quick", "tiny-worldwide")]


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(tmp_path_factory.mktemp("open-clip")):
        yield


def saved(name: str, folder: Path) -> tuple[nn.Module, str]:
    """A drawn model, and the spec of its file."""
    model = drawn(name)
    torch.save(model.state_dict(), folder / "clip.pt")
    return model, f"open_clip:{name}@{folder / 'clip.pt'}"


def noise(tower: ImageTower) -> Tensor:
    shape = (2, 3, tower.preprocess.size, tower.preprocess.size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def own_words(model: nn.Module, tower: ImageTower, pixels: Tensor) -> Tensor:
    """What open_clip itself says of the pixels, before it is scaled to unit length."""
    output = model.visual(tower.preprocess.normalize(pixels))
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", [*KINDS, "tiny-quick"])
def test_own_output_is_encode_image(name: str, tmp_path: Path) -> None:
    model, spec = saved(name, tmp_path)
    tower = load_image_tower(spec, precision="float32")
    pixels = noise(tower)
    torch.testing.assert_close(tower.encode(pixels), own_words(model, tower, pixels), rtol=1e-5, atol=1e-5)
    assert tower.dim == MODELS[name]["embed_dim"]


def test_quick_gelu_is_another_model(tmp_path: Path) -> None:
    _, spec = saved("tiny-vit", tmp_path)
    exact, quick = (load_image_tower(text) for text in (spec, spec.replace("tiny-vit", "tiny-quick")))
    assert (exact.encode(noise(exact)) - quick.encode(noise(quick))).abs().max() > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_a_bundled_tower_needs_no_checkpoint(name: str, tmp_path: Path) -> None:
    _, spec = saved(name, tmp_path)
    tower = load_image_tower(spec, precision="float32")
    tower.save_weights(tmp_path / "bundle.safetensors")
    (tmp_path / "clip.pt").unlink()
    again = load_image_tower(spec, precision="float32", weights=tmp_path / "bundle.safetensors")
    assert again.identity == tower.identity
    assert torch.equal(again.encode(noise(tower)), tower.encode(noise(tower)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timm_model_name": "hf-hub:someone/elses"}, "timm has no model 'hf-hub:someone/elses'"),
        ({"timm_model_name": "local-dir:/somewhere"}, "timm has no model 'local-dir:/somewhere'"),
        ({"timm_model_pretrained": True}, "asks for timm's own weights of test_vit, which littune never writes into"),
    ],
)
def test_a_recipe_fetches_nothing(settings: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = MODELS["tiny-timm"]["vision_cfg"]
    build_open_clip({"embed_dim": 24, "vision_cfg": vision, "quick_gelu": False})
    made: list[object] = []
    monkeypatch.setattr("timm.create_model", lambda *_, **__: made.append(1))
    with pytest.raises(InputError, match=f"^the recipe of an image tower.* {message}"):
        build_open_clip({"embed_dim": 24, "vision_cfg": {**vision, **settings}, "quick_gelu": False})
    assert made == []


def test_a_folder_names_no_model_on_a_hub(tmp_path: Path) -> None:
    folder = in_folder(drawn("tiny-timm"), "tiny-timm", tmp_path)
    about = (folder / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(about.replace('"test_vit"', '"hf-hub:someone/elses"'))
    with pytest.raises(InputError, match=r"open_clip cannot build it \(.*timm has no model 'hf-hub:someone/elses'"):
        load_image_tower(f"open_clip:{folder}")


def test_tokens_are_those_that_are_pooled(tmp_path: Path) -> None:
    model, spec = saved("tiny-vit", tmp_path)
    tower = load_image_tower(spec, pooling="cls", precision="float32")
    pixels = noise(tower)
    projected = tower.encode(pixels) @ model.visual.proj.detach()
    torch.testing.assert_close(projected, own_words(model, tower, pixels), rtol=1e-5, atol=1e-5)


def test_the_mean_of_the_patches(tmp_path: Path) -> None:
    _, spec = saved("tiny-vit", tmp_path)
    model = open_clip.create_model("tiny-vit", pretrained=str(tmp_path / "clip.pt")).eval()
    model.visual.output_tokens = True
    tower = load_image_tower(spec, pooling="mean", precision="float32")
    pixels = noise(tower)
    with torch.no_grad():
        expected = model.visual(tower.preprocess.normalize(pixels))[1].mean(dim=1)
    torch.testing.assert_close(tower.encode(pixels), expected, rtol=1e-5, atol=1e-5)


def test_tokens_before_attentional_pooling(tmp_path: Path) -> None:
    model, spec = saved("tiny-attention", tmp_path)
    tower = load_image_tower(spec, pooling="cls+mean", precision="float32")
    seen: list[Tensor] = []
    model.visual.transformer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    own_words(model, tower, noise(tower))
    expected = torch.cat([seen[0][:, 0], seen[0][:, 1:].mean(dim=1)], dim=1)
    torch.testing.assert_close(tower.encode(noise(tower)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-resnet", "tiny-mlp"])
def test_convolutional_towers_have_no_class_token(name: str, tmp_path: Path) -> None:
    _, spec = saved(name, tmp_path)
    assert load_image_tower(spec, pooling="mean").dim > 0
    with pytest.raises(InputError, match="has no class token; pool with own or mean"):
        load_image_tower(spec, pooling="cls")


def test_the_tokens_of_timms_models(tmp_path: Path) -> None:
    model, spec = saved("tiny-timm", tmp_path)
    tower = load_image_tower(spec, pooling="cls", precision="float32")
    with torch.no_grad():
        expected = model.visual.trunk.forward_features(tower.preprocess.normalize(noise(tower)))[:, 0]
    torch.testing.assert_close(tower.encode(noise(tower)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bilinear"},
        {"mean": 0.5, "std": 0.25},
    ],
)
def test_pixels_are_open_clips(settings: dict[str, object], tmp_path: Path) -> None:
    in_folder(drawn("tiny-vit"), "tiny-vit", tmp_path, **settings)
    tower = load_image_tower(f"open_clip:{tmp_path}")
    transform = image_transform_v2(PreprocessCfg(**{"size": (32, 32), **settings}), is_train=False)
    ours, theirs = tower.preprocess.normalize(tower.preprocess(picture())[None])[0], transform(picture())
    # One resampling instead of resize and crop: a step of 1/255 here and there.
    assert (ours - theirs).abs().max() <= 2.01 / 255 / min(tower.preprocess.std)
    assert (ours - theirs).abs().mean() <= 0.3 / 255 / min(tower.preprocess.std)


def test_preprocessing_that_littune_has_not(tmp_path: Path) -> None:
    in_folder(drawn("tiny-vit"), "tiny-vit", tmp_path, resize_mode="longest")
    with pytest.raises(InputError, match="resized by 'longest'; littune has squares by shortest or squash alone"):
        load_image_tower(f"open_clip:{tmp_path}")


def test_weights_drawn_anew(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = load_image_tower("open_clip:tiny-vit", from_scratch=True)
    second = load_image_tower("open_clip:tiny-vit", from_scratch=True)
    assert first.identity.weights != second.identity.weights
    with pytest.raises(InputError, match="is drawn from scratch; leave '@file' out"):
        load_image_tower("open_clip:tiny-vit@file", from_scratch=True)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "tiny-timm"])
def test_the_tower_can_be_trained(name: str, tmp_path: Path) -> None:
    _, spec = saved(name, tmp_path)
    tower = load_image_tower(spec, precision="float32")
    trained = TrainedImageTower(tower, from_scratch=False)
    trained(noise(tower)).square().sum().backward()
    assert all(weight.grad is not None for weight in trained.parameters() if weight.requires_grad)
    torch.testing.assert_close(trained(noise(tower)).detach(), tower.encode(noise(tower)), rtol=1e-4, atol=1e-4)
