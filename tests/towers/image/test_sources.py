from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file

from littune.base.errors import InputError, MismatchError
from littune.towers import ImageTower, load_image_tower
from littune.towers.image.trained import TrainedImageTower


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
    with pytest.raises(InputError, match="image tower 'resnet18' does not say what .*KIND one of hf, lit"):
        load_image_tower("resnet18")


def test_a_run_brings_the_image_tower_that_it_carries(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = TrainedImageTower(load_image_tower(timm_spec(tmp_path), precision="float32"), from_scratch=False)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.1)
    locked = trained.locked()
    locked.save_weights(run / "image_tower.safetensors")
    tower = load_image_tower(f"run:{run}", precision="float32")
    assert tower.spec == f"run:{run}" and tower.identity == locked.identity and tower.preprocess == locked.preprocess
    assert torch.equal(tower.encode(pixels(tower)), locked.encode(pixels(tower)))
    # A run on its embeddings may bundle it in its turn.
    tower.save_weights(tmp_path / "next" / "image_tower.safetensors")
    for again in (
        load_image_tower(tower.spec, weights=tmp_path / "next" / "image_tower.safetensors"),
        load_image_tower(f"run:{tmp_path / 'next'}"),
    ):
        assert again.identity == locked.identity


def test_a_runs_tower_pools_as_it_was_trained(tmp_path: Path) -> None:
    load_image_tower(timm_spec(tmp_path), pooling="mean").save_weights(tmp_path / "image_tower.safetensors")
    assert load_image_tower(f"run:{tmp_path}", pooling="mean").pooling == "mean"
    with pytest.raises(MismatchError, match=r"a run that pools with mean, not own; write --pooling mean"):
        load_image_tower(f"run:{tmp_path}")


def test_a_run_without_an_image_tower_is_one_clear_line(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match=r"no image_tower.safetensors is in .*--locking U… or u…\) or.*--bundle"):
            load_image_tower(f"run:{name}")


@pytest.mark.parametrize("kind", ["timm", "ViTModel", "package"])
def test_from_scratch_the_seed_draws_the_weights_of_the_architecture(kind: str, tmp_path: Path) -> None:
    if kind == "package":
        spec = "package:efficientnet-lite0"
    else:
        spec = "timm:test_resnet" if kind == "timm" else hf_spec(tmp_path, kind)

    def draw(seed: int) -> ImageTower:
        torch.manual_seed(seed)
        return load_image_tower(spec, from_scratch=True, precision="float32")

    first, again, other = draw(0), draw(0), draw(1)
    assert first.identity == again.identity and first.identity.weights != other.identity.weights
    assert first.spec == spec and first.classifier is None
    first.save_weights(tmp_path / "image_tower.safetensors")
    bundled = load_image_tower(f"run:{tmp_path}", precision="float32")
    assert bundled.identity == first.identity
    assert torch.equal(bundled.encode(pixels(first)), first.encode(pixels(first)))


def test_from_scratch_is_the_architecture_that_would_be_loaded(tmp_path: Path) -> None:
    spec = hf_spec(tmp_path, "ViTModel")
    drawn, loaded = load_image_tower(spec, from_scratch=True), load_image_tower(spec)
    assert drawn.preprocess == loaded.preprocess and drawn.dim == loaded.dim
    shapes = [{name: value.shape for name, value in t.module.state_dict().items()} for t in (drawn, loaded)]
    assert shapes[0] == shapes[1] and drawn.identity.weights != loaded.identity.weights


def test_from_scratch_takes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'timm' takes no '@.*c.pth'"):
        load_image_tower(timm_spec(tmp_path), from_scratch=True)
    with pytest.raises(InputError, match="timm has no model 'resnet81'"):
        load_image_tower("timm:resnet81", from_scratch=True)


def test_a_tower_like_that_of_a_run_may_be_drawn_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = load_image_tower("timm:test_vit", precision="float32", from_scratch=True)
    tower.save_weights(tmp_path / "image_tower.safetensors")
    drawn = [load_image_tower(f"run:{tmp_path}", precision="float32", from_scratch=True) for _ in range(2)]
    assert drawn[0].preprocess == tower.preprocess
    assert len({one.identity.weights for one in (tower, *drawn)}) == 3
