from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from littune.base.errors import InputError, MismatchError
from littune.towers import ImageTower, load_image_tower


def pixels(tower: ImageTower) -> torch.Tensor:
    size = tower.preprocess.size
    return torch.randint(256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def timm_spec(folder: Path) -> str:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), folder / "c.pth")
    return f"timm:test_resnet@{folder / 'c.pth'}"


def hf_spec(folder: Path, model_class: str) -> str:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    transformers.utils.logging.disable_progress_bar()
    getattr(transformers, model_class)(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", ["timm", "ViTModel", "ViTForImageClassification"])
def test_bundled_weights_need_nothing_else(kind: str, tmp_path: Path) -> None:
    source, bundle = tmp_path / "source", tmp_path / "run" / "image_tower.safetensors"
    source.mkdir()
    spec = timm_spec(source) if kind == "timm" else hf_spec(source, kind)
    tower = load_image_tower(spec, precision="float32")
    tower.save_weights(bundle)
    source.rename(tmp_path / "gone")
    again = load_image_tower(spec, weights=bundle, precision="float32")
    assert again.identity == tower.identity and again.spec == spec and again.preprocess == tower.preprocess
    torch.testing.assert_close(again.encode(pixels(tower)), tower.encode(pixels(tower)))
    assert (again.classifier is None) == (tower.classifier is None)
    if tower.classifier is not None and again.classifier is not None:
        assert torch.equal(again.classifier.weight, tower.classifier.weight)


def test_bundles_of_another_spec_or_make_are_errors(tmp_path: Path) -> None:
    bundle = tmp_path / "image_tower.safetensors"
    load_image_tower(timm_spec(tmp_path)).save_weights(bundle)
    with pytest.raises(MismatchError, match="holds the image tower 'timm:test_resnet@.*', not 'timm:test_vit'"):
        load_image_tower("timm:test_vit", weights=bundle)
    save_file({"a": torch.ones(2)}, bundle)
    with pytest.raises(InputError, match="is not an image tower that this littune wrote"):
        load_image_tower("timm:test_vit", weights=bundle)
    bundle.write_bytes(b"garbage")
    with pytest.raises(InputError, match="holds no weights that can be read"):
        load_image_tower("timm:test_vit", weights=bundle)
    with pytest.raises(InputError, match="holds no weights that can be read"):
        load_image_tower("timm:test_vit", weights=tmp_path / "nowhere")


def test_options_reach_the_tower(tmp_path: Path) -> None:
    tower = load_image_tower(timm_spec(tmp_path), pooling="mean", device="cpu", precision="bfloat16")
    assert (tower.pooling, tower.precision, str(tower.device)) == ("mean", "bfloat16", "cpu")


def test_unknown_kinds_are_one_clear_line() -> None:
    with pytest.raises(InputError, match="image tower 'tim:resnet18' is of an unknown kind 'tim'; did you mean 'timm'"):
        load_image_tower("tim:resnet18")
    with pytest.raises(InputError, match="image tower 'resnet18' does not say what kind it is; .*hf, package, timm"):
        load_image_tower("resnet18")
