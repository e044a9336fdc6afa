from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from littune.base.errors import InputError
from littune.towers.image.from_hf import preprocess_of
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}
SQUARE = {"height": 32, "width": 32}


def vit() -> transformers.ViTModel:
    return transformers.ViTModel(transformers.ViTConfig(**TINY))


def dinov2() -> transformers.Dinov2Model:
    return transformers.Dinov2Model(transformers.Dinov2Config(**TINY))


def dinov2_with_registers() -> transformers.Dinov2WithRegistersModel:
    config = transformers.Dinov2WithRegistersConfig(**TINY, num_register_tokens=3)
    return transformers.Dinov2WithRegistersModel(config)


def dinov3() -> transformers.DINOv3ViTModel:
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**TINY, num_register_tokens=4))


def clip() -> transformers.CLIPModel:
    text = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=TINY))


def clip_vision() -> transformers.CLIPVisionModel:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY))


def siglip() -> transformers.SiglipModel:
    text = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=TINY))


def siglip_vision() -> transformers.SiglipVisionModel:
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TINY))


# Each with its image processor and the number of tokens before the patches' (0: no class token).
MODELS = {
    "vit": (vit, transformers.ViTImageProcessor(size=SQUARE), 1),
    "dinov2": (dinov2, transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE), 1),
    "dinov2_with_registers": (
        dinov2_with_registers,
        transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE),
        4,
    ),
    "dinov3": (dinov3, transformers.DINOv3ViTImageProcessor(size=SQUARE), 5),
    "clip": (clip, transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), 1),
    "clip_vision": (clip_vision, transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), 1),
    "siglip": (siglip, transformers.SiglipImageProcessor(size=SQUARE), 0),
    "siglip_vision": (siglip_vision, transformers.SiglipImageProcessor(size=SQUARE), 0),
}


def saved(folder: Path, name: str) -> nn.Module:
    """Save a drawn model and its processor; gives its vision part."""
    torch.manual_seed(0)
    make, processor, _ = MODELS[name]
    model = make().eval()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    vision: nn.Module = model.vision_model if name in ("clip", "siglip") else model
    return vision


def pixels() -> torch.Tensor:
    return torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_gives_the_models_own_output(name: str, tmp_path: Path) -> None:
    model, num_prefix = saved(tmp_path, name), MODELS[name][2]

    def load(pooling: str) -> ImageTower:
        return load_image_tower(f"hf:{tmp_path}", pooling=pooling, precision="float32")

    output = model(pixel_values=load("own").preprocess.normalize(pixels()))
    tokens = output.last_hidden_state
    torch.testing.assert_close(load("own").encode(pixels()), output.pooler_output)
    torch.testing.assert_close(load("mean").encode(pixels()), tokens[:, num_prefix:].mean(dim=1))
    assert tokens[:, num_prefix:].shape[1] == 16
    if num_prefix:
        torch.testing.assert_close(load("cls").encode(pixels()), tokens[:, 0])
        assert load("cls+mean").dim == 64
    else:
        with pytest.raises(InputError, match="has no class token"):
            load("cls")


@pytest.mark.parametrize("name", list(MODELS))
def test_preprocesses_as_the_folders_processor_does(name: str, tmp_path: Path) -> None:
    saved(tmp_path, name)
    tower = load_image_tower(f"hf:{tmp_path}")
    shades = np.linspace(0, 255, 64 * 48 * 3).reshape(64, 48, 3) + np.random.default_rng(0).normal(0, 9, (64, 48, 3))
    picture = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    expected = MODELS[name][1](picture, return_tensors="pt")["pixel_values"]
    ours = tower.preprocess.normalize(tower.preprocess(picture)[None])
    assert ours.shape == expected.shape
    # transformers resamples in torch, we in Pillow: two steps of 255, and mostly none.
    assert (ours - expected).abs().max() <= 2.01 / 255 / min(tower.preprocess.std)
    assert (ours - expected).abs().mean() <= 0.3 / 255 / min(tower.preprocess.std)


def test_a_vit_without_its_poolers_weights_pools_by_the_class_token(tmp_path: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size=SQUARE).save_pretrained(tmp_path)
    towers = [load_image_tower(f"hf:{tmp_path}", pooling=pooling, precision="float32") for pooling in ("own", "cls")]
    assert torch.equal(towers[0].encode(pixels()), towers[1].encode(pixels()))
    with torch.no_grad():
        expected = model.vit(towers[0].preprocess.normalize(pixels())).last_hidden_state[:, 0]
    torch.testing.assert_close(towers[0].encode(pixels()), expected)


def test_half_precision_checkpoints_are_read_in_float32(tmp_path: Path) -> None:
    saved(tmp_path, "vit").half().save_pretrained(tmp_path)
    tower = load_image_tower(f"hf:{tmp_path}", precision="float32")
    assert {parameter.dtype for parameter in tower.module.parameters()} == {torch.float32}


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, "clip")
    capfd.readouterr()
    transformers.utils.logging.enable_progress_bar()
    load_image_tower(f"hf:{tmp_path}")
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    saved(tmp_path, "dinov2")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 of its weights, such as layernorm.weight"):
        load_image_tower(f"hf:{tmp_path}")


def test_unusable_folders_are_one_clear_line(tmp_path: Path) -> None:
    bert, empty, bare = tmp_path / "bert", tmp_path / "empty", tmp_path / "bare"
    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    transformers.BertModel(transformers.BertConfig(**small)).save_pretrained(bert)
    empty.mkdir()
    saved(bare, "dinov3")
    (bare / "preprocessor_config.json").unlink()
    cases = {
        f"hf:{bert}": "is a 'bert' model; littune reads out clip, ",
        f"hf:{empty}": "has no config.json; name a folder that a transformers model was saved to",
        f"hf:{bare}": "cannot be loaded: Can't load image processor",
        f"hf:{tmp_path / 'nowhere'}": "the folder .*nowhere does not exist",
        "hf:nobody/nothing": "nobody/nothing is no folder here, nor a model that can be downloaded now",
        "hf:nobody/nothing@main": "'hf' takes no '@main'",
    }
    for spec, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            load_image_tower(spec)
        assert "\n" not in str(error.value)


def test_processors_that_give_no_squares_are_an_error() -> None:
    normal = {"do_resize": True, "resample": 3, "size": {"shortest_edge": 40}}
    for settings in (
        normal,
        {**normal, "do_resize": False},
        {**normal, "do_center_crop": True, "crop_size": {"height": 32, "width": 24}},
        {**normal, "size": {"height": 32, "width": 24}},
        {**normal, "size": {"longest_edge": 24}},
    ):
        with pytest.raises(InputError, match="does not give squares of one size"):
            preprocess_of(settings, "hf:x")


def test_rescaling_is_part_of_the_normalisation() -> None:
    settings = {"do_resize": True, "resample": 2, "size": {"height": 4, "width": 4}}
    plain = preprocess_of(settings, "hf:x")
    pixels = torch.tensor([0, 100, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(plain.normalize(pixels).flatten(), torch.tensor([0.0, 100.0, 255.0]))
    scaled = {"do_rescale": True, "rescale_factor": 1 / 127.5, "do_normalize": True}
    values = {"image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 2.0]}
    halves = preprocess_of({**settings, **scaled, **values}, "hf:x")
    expected = torch.tensor([-1.0, 100 / 127.5 - 1, 0.5])
    torch.testing.assert_close(halves.normalize(pixels).flatten(), expected)
